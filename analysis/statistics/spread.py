"""Spread over seeds of the groups of a table, and its rows as nested statistics."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from worldrep.evaluation.improvement import spread_of

SPREAD = ["mean", "std", "low", "high", "n"]


def over_seeds(table: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Average a column over the rows of each seed, then over seeds, for each group of `keys`.

    The models of one seed share a base and count as one value. Returns the keys; SPREAD over seeds
    (std with ddof=1, low and high of Student's 95% interval); parts, the values of the seeds;
    seeds, their names; rows and missing (NaN), which count rows.
    """
    by_seed = table.groupby([*keys, "seed"], sort=False, observed=True)[column].mean()
    found = []
    for _, own in by_seed.groupby([*keys], sort=False, observed=True):
        own = own.dropna().sort_index(level="seed")
        seeds = " ".join(map(str, own.index.get_level_values("seed")))
        found.append(asdict(spread_of(own.to_numpy())) | {"parts": tuple(own), "seeds": seeds})
    counts = table.groupby([*keys], sort=False, observed=True)[column].agg(["size", "count"])
    spread = pd.DataFrame(found, columns=[*SPREAD, "parts", "seeds"])
    rows, known = counts["size"].to_numpy(), counts["count"].to_numpy()
    return counts.reset_index()[[*keys]].join(spread).assign(rows=rows, missing=rows - known)


def nested(table: pd.DataFrame, keys: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
    """Nest the rows of a table by the values of `keys`, with the numbers in the columns `kept`."""
    facts: dict[str, Any] = {}
    for row in table.to_dict("records"):
        place = facts
        for key in keys:
            place = place.setdefault(str(row[key]), {})
        place.update({name: row[name] for name in kept})
    return facts
