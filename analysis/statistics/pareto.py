"""What fine-tuning gains against what it loses: one point per model, and which are dominated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from worldrep.evaluation.improvement import spread_of

QUANTITIES = ("change", "gain")


def pareto_front(change: Sequence[float], gain: Sequence[float]) -> NDArray[np.bool_]:
    """Which points (n,) no other one dominates; of both quantities more is better.

    A point is dominated by one that is at least as good in both and better in one, so that equal
    points stand together. One with a NaN is not on the front, and dominates none.
    """
    points = np.column_stack([np.asarray(change, dtype=float), np.asarray(gain, dtype=float)])
    others, own = points[np.newaxis], points[:, np.newaxis]
    dominated = np.all(others >= own, axis=2) & np.any(others > own, axis=2)
    return np.isfinite(points).all(axis=1) & ~np.any(dominated, axis=1)


def mean_over_tasks(cells: pd.DataFrame, keys: Sequence[str], column: str) -> pd.Series:
    """The mean of a column over the rows of each group, NaN where one of them is missing."""
    groups = cells.groupby(list(keys), sort=False)[column]
    return groups.mean().where(groups.count() == groups.size())


def over_seeds(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The mean point of each model, and whether it is on the front.

    points: one row per model and seed with `keys`, seed, change, gain. Columns: keys, change, gain,
    change_std, gain_std (ddof=1 over seeds, NaN for one), n (seeds that have both), missing (those
    that do not), on_front.
    """
    rows = []
    for key, own in points.groupby(list(keys), sort=False):
        there = own.dropna(subset=list(QUANTITIES))
        spreads = {name: spread_of(there[name].to_numpy()) for name in QUANTITIES}
        rows.append(
            dict(zip(keys, key, strict=True))
            | {name: spread.mean for name, spread in spreads.items()}
            | {f"{name}_std": spread.std for name, spread in spreads.items()}
            | {"n": len(there), "missing": len(own) - len(there)}
        )
    columns = [*keys, *QUANTITIES, *(f"{name}_std" for name in QUANTITIES), "n", "missing"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(on_front=pareto_front(table["change"], table["gain"]))
