"""Spread over seeds of the groups of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from worldrep.evaluation.improvement import spread_of


def over_seeds(table: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Average a column over the rows of each seed, then over seeds, for each group of `keys`.

    The models of one seed share a base and count as one value. NaN counts as missing.

    Returns:
        The keys; mean, std (ddof=1), low and high (Student's 95% interval) and n over seeds; rows
        and missing, which count rows; parts, the values of the seeds; seeds, their names.
    """
    by_seed = table.groupby([*keys, "seed"], sort=False, observed=True)[column].mean()
    found = []
    for key, own in by_seed.groupby([*keys], sort=False, observed=True):
        own = own.dropna().sort_index(level="seed")
        seeds = " ".join(map(str, own.index.get_level_values("seed")))
        numbers = asdict(spread_of(own.to_numpy())) | {"parts": tuple(own), "seeds": seeds}
        found.append(dict(zip(keys, key, strict=True)) | numbers)
    counts = table.groupby([*keys], sort=False, observed=True)[column].agg(["size", "count"])
    columns = [*keys, "mean", "std", "low", "high", "n", "parts", "seeds"]
    return (
        pd.DataFrame(found, columns=columns)
        .astype(table[[*keys]].dtypes.to_dict())
        .assign(
            rows=counts["size"].to_numpy(),
            missing=(counts["size"] - counts["count"]).to_numpy(),
        )
    )
