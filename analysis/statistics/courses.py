"""Time courses of fine-tunings as tables: their means over tasks, and when half has happened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.statistics.curves import halfway_step
from analysis.statistics.pareto import mean_over_tasks
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import spread_of
from worldrep.names import TASK_NAMES

ALL_TASKS = "mean of the seven"
SAME = ["model", "ft", "seed", "split"]  # one course of each task
SOURCE = ["measured_by", "rows", "run_id", "model_run_id"]
HALFWAY_COLUMNS = [
    *SAME, "task", "trained", "n_points", "first_step", "last_step", "raw_change",
    "normalised_change", "happened", "halfway_step", "halfway_step_raw", "halfway_share", *SOURCE,
]  # fmt: skip
SUMMARY_COLUMNS = [
    "family", "split", "task", "n_models", "n_happened", "n_early", "last_step", "mean", "std",
    "low", "high", "n", "by_seed",
]  # fmt: skip


def mean_courses(points: pd.DataFrame) -> pd.DataFrame:
    """The mean of the normalised values over the seven tasks, at the steps that all of them have.

    points: one row per model, seed, split, task and step. The result has the same columns; task is
    ALL_TASKS, and there is no raw value, as the units of the tasks differ.
    """
    keys = [*SAME, *SOURCE, "step"]
    groups = points.groupby(keys, sort=False)["task"].nunique()
    means = mean_over_tasks(points, keys, "normalised")[groups == len(TASK_NAMES)]
    rows = means.rename("normalised").reset_index()
    added = rows.assign(task=ALL_TASKS, value=math.nan, trained=False)
    return added.reindex(columns=points.columns)


def halfway_table(points: pd.DataFrame) -> pd.DataFrame:
    """When half of each course has happened, HALFWAY_COLUMNS; one row per model, seed, split, task.

    Changes are from step 0 to the last step, the normalised ones of `points["normalised"]`.
    happened: whether the task was forgotten (standard) or gained (Atlantis) at all, by the
    normalised change, else by the sign of the raw one. halfway_step is of the normalised values,
    halfway_step_raw of the raw ones; both are NaN if it did not happen. halfway_share is
    halfway_step as a share of the last step.
    """
    rows = [
        _halfway(own.sort_values("step"))
        for _, own in points.groupby([*SAME, "task"], sort=False)
        if len(own) > 1
    ]
    return pd.DataFrame(rows, columns=HALFWAY_COLUMNS)


def _halfway(course: pd.DataFrame) -> dict[str, Any]:
    first = course.iloc[0]
    steps = course["step"].to_numpy(dtype=float)
    raw, normalised = (course[name].to_numpy(dtype=float) for name in ("value", "normalised"))
    raw_change, change = float(raw[-1] - raw[0]), float(normalised[-1] - normalised[0])
    happened = _happened(first["split"], first["task"], raw_change, change)
    halfway = halfway_step(steps, normalised) if happened and math.isfinite(change) else math.nan
    return {
        **{name: first[name] for name in (*SAME, "task", "trained", *SOURCE)},
        "n_points": len(steps),
        "first_step": steps[1],
        "last_step": steps[-1],
        "raw_change": raw_change,
        "normalised_change": change,
        "happened": happened,
        "halfway_step": halfway,
        "halfway_step_raw": halfway_step(steps, raw) if happened else math.nan,
        "halfway_share": halfway / steps[-1],
    }


def _happened(split: str, task: str, raw: float, normalised: float) -> bool:
    """Whether a task got worse on standard questions, or better on Atlantis."""
    better = normalised
    if not math.isfinite(better) and task in TASKS:
        better = raw if TASKS[task].accuracy else -raw
    return bool(better < 0 if split == "standard" else better > 0)


def halfway_summary(halfway: pd.DataFrame, family: pd.Series) -> pd.DataFrame:
    """Half-way steps by family, split and task: the mean over models, then over seeds.

    family: of each row. SUMMARY_COLUMNS: n_models counts courses (of a model and a seed),
    n_happened those with a half-way step, the only ones in the mean, n_early those of them whose
    half-way step lies before the first measured one, and is no better known than that; by_seed the
    means of the seeds, of which mean, std (ddof=1) and Student's 95% interval are taken.
    """
    rows = []
    table = halfway.assign(family=family)
    for key, own in table.groupby(["family", "split", "task"], sort=False, observed=True):
        there = own.dropna(subset=["halfway_step"])
        by_seed = tuple(there.groupby("seed")["halfway_step"].mean())
        rows.append((*key, *_counts(own, there), *_spread(by_seed), by_seed))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _counts(own: pd.DataFrame, there: pd.DataFrame) -> tuple[int, int, int, float]:
    early = int((there["halfway_step"] <= there["first_step"]).sum())
    return len(own), len(there), early, own["last_step"].max()


def _spread(values: Sequence[float]) -> tuple[float, float, float, float, int]:
    spread = spread_of(values)
    return spread.mean, spread.std, spread.low, spread.high, spread.n
