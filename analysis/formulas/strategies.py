"""Strategies of fine-tuning against one another: means over the models that all of them have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.normalize import normalized_improvement
from worldrep.spread import spread_of
from worldrep.tasks import TASKS

QUANTITIES = ("gain", "trained", "transfer", "change", "retention", "halfway_share")


def retention(cell: Any) -> float:
    """The normalised improvement formula for a standard value: 1 is the base's own, 0 what the base
    scores on Atlantis."""
    numbers = (cell.after, cell.base_atlantis, cell.base_standard)
    return normalized_improvement(*numbers, TASKS[cell.task].accuracy)


def by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy, ft and seed of cells (one row per task), NaN where a task is missing.

    cells: strategy, ft, seed, task, trained, normalised_change, normalised, retention. Columns:
    change, gain and retention, means over the seven tasks; trained and transfer, means of the
    normalised improvement over the tasks that were and were not trained on.
    """
    rows = []
    for (strategy, ft, seed), own in cells.groupby(["strategy", "ft", "seed"], sort=False):
        rows.append(
            {
                "strategy": strategy,
                "ft": ft,
                "seed": seed,
                "change": _mean(own["normalised_change"]),
                "gain": _mean(own["normalised"]),
                "trained": _mean(own.loc[own["trained"], "normalised"]),
                "transfer": _mean(own.loc[~own["trained"], "normalised"]),
                "retention": _mean(own["retention"]),
            }
        )
    return pd.DataFrame(rows)


def by_seed(models: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and seed: means over all models, NaN where one of them is missing."""
    quantities = [name for name in QUANTITIES if name in models]
    groups = models.groupby(["strategy", "seed"], sort=False, observed=True)[quantities]
    return groups.agg(_mean).reset_index()


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and quantity: mean, std (ddof=1), Student's 95% interval, n, missing."""
    rows = []
    for strategy, own in seeds.groupby("strategy", sort=False, observed=True):
        for name in QUANTITIES:
            there = own[name].dropna()
            spread = spread_of(there.to_numpy())
            numbers = {"mean": spread.mean, "std": spread.std, "low": spread.low}
            counts = {"high": spread.high, "n": spread.n, "missing": len(own) - spread.n}
            rows.append({"strategy": strategy, "quantity": name, **numbers, **counts})
    return pd.DataFrame(rows)


def mean_by_share(points: pd.DataFrame, fts: Sequence[str]) -> pd.DataFrame:
    """The mean course of the models of each strategy, seed and split, by share of the training.

    points: of `mean_courses`, with strategy. A measurement is told by its place in its course, and
    left out where not every model has it. Columns: strategy, seed, split, share, normalised.
    """
    own = points[points["ft"].isin(fts)].dropna(subset=["normalised"])
    own = own.sort_values("step")
    keys = ["strategy", "seed", "split", "ft"]
    last = own.groupby(keys, sort=False, observed=True)["step"].transform("max")
    own = own.assign(share=own["step"] / last)
    own["place"] = own.groupby(keys, sort=False, observed=True).cumcount()
    groups = own.groupby(["strategy", "seed", "split", "place"], sort=False, observed=True)
    means = groups[["share", "normalised"]].mean()[groups.size() == len(fts)]
    return means.reset_index().drop(columns="place")


def _mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))
