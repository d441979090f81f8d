"""Strategies of fine-tuning against one another: means over the models that all of them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.statistics.pareto import mean_over_tasks
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement, spread_of

MODEL = ["strategy", "ft", "seed"]
QUANTITIES = ("gain", "trained", "transfer", "change", "retention", "halfway_share")


def retention(cell: Any) -> float:
    """The normalised improvement formula for a standard value: 1 is the base's own, 0 what the base
    scores on Atlantis."""
    numbers = (cell.after, cell.base_atlantis, cell.base_standard)
    return normalized_improvement(*numbers, TASKS[cell.task].accuracy)


def by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy, ft and seed of cells (one row per task), NaN where a task is missing.

    cells: MODEL, task, trained, normalised_change, normalised, retention. Columns: change, gain and
    retention, means over the seven tasks; trained and transfer, means of the normalised improvement
    over the tasks that were and were not trained on.
    """
    trained, others = cells[cells["trained"]], cells[~cells["trained"]]
    means = {
        "change": mean_over_tasks(cells, MODEL, "normalised_change"),
        "gain": mean_over_tasks(cells, MODEL, "normalised"),
        "trained": mean_over_tasks(trained, MODEL, "normalised"),
        "transfer": mean_over_tasks(others, MODEL, "normalised"),
        "retention": mean_over_tasks(cells, MODEL, "retention"),
    }
    return pd.DataFrame(means).reset_index()


def by_seed(models: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and seed: means over all models, NaN where one of them is missing."""
    groups = models.groupby(["strategy", "seed"], sort=False, observed=True)[list(QUANTITIES)]
    return groups.mean().where(groups.count().eq(groups.size(), axis=0)).reset_index()


def quantities_over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and quantity: mean, std (ddof=1), Student's 95% interval, n, missing."""
    rows = []
    for strategy, own in seeds.groupby("strategy", sort=False, observed=True):
        for name in QUANTITIES:
            spread = asdict(spread_of(own[name].dropna().to_numpy()))
            missing = {"missing": len(own) - spread["n"]}
            rows.append({"strategy": strategy, "quantity": name} | spread | missing)
    return pd.DataFrame(rows)


def mean_by_share(points: pd.DataFrame, fts: Sequence[str]) -> pd.DataFrame:
    """The mean course of the models of each strategy, seed and split, by share of the training.

    points: of `mean_courses`, with strategy. A measurement is told by its place in its course, and
    left out where not every model has it. Columns: strategy, seed, split, place, share, normalised.
    """
    own = points[points["ft"].isin(fts)].dropna(subset=["normalised"]).sort_values("step")
    courses = own.groupby(["strategy", "seed", "split", "ft"], sort=False)["step"]
    own = own.assign(share=own["step"] / courses.transform("max"), place=courses.cumcount())
    groups = own.groupby(["strategy", "seed", "split", "place"], sort=False)
    return groups[["share", "normalised"]].mean()[groups.size() == len(fts)].reset_index()


def mean_of_seeds(courses: pd.DataFrame) -> pd.DataFrame:
    """The mean over seeds of what `mean_by_share` gives; n: how many."""
    groups = courses.groupby(["strategy", "split", "place"], sort=False)
    means = groups[["share", "normalised"]].mean()
    return means.assign(n=groups.size()).reset_index()
