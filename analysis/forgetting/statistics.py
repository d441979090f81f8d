"""Statistics of forgetting: pure functions on tables of cells, of points and of curves.

A cell is the result of a model and seed on a task. A curve is the result over steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.statistics.curves import halfway_step
from analysis.statistics.matrices import summary
from analysis.statistics.spread import over_seeds
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import TASK_NAMES

NO_LOGARITHM = "an error of 0 has no logarithm; the raw change is known"
ALL_TASKS = "mean of the seven"
QUANTITIES = ["change", "gain"]
CURVE = ["model", "ft", "seed", "split"]  # the curves of all tasks have these in common
ORIGIN = ["measured_by", "rows", "run_id", "model_run_id"]
HALFWAY_COLUMNS = [
    *CURVE, "task", "trained", "n_points", "first_step", "last_step", "raw_change",
    "normalised_change", "happened", "halfway_step", "halfway_step_raw", "halfway_share", *ORIGIN,
]  # fmt: skip


def normalized_change(after: float, before: float, accuracy: bool) -> float:
    """Compute the change on a scale that all tasks share: negative is forgotten.

    Accuracy: (after - before) / (1 - before), or after - before for a perfect base. NaN outside
    0..1. Error: ln(before / after), or 0 if both are 0. NaN if only one is 0 or one is negative.

    Args:
        after: Value of the fine-tuned model.
        before: Value of its base. NaN results if one of the two is not finite.
        accuracy: Whether the values are accuracies; otherwise they are errors.
    """
    if not (math.isfinite(after) and math.isfinite(before)):
        return math.nan
    if accuracy:
        if not (0 <= after <= 1 and 0 <= before <= 1):
            return math.nan
        return (after - before) / (1 - before) if before < 1 else after - before
    if after == before == 0:
        return 0.0
    return math.log(before) - math.log(after) if min(after, before) > 0 else math.nan


def add_changes(cells: pd.DataFrame) -> pd.DataFrame:
    """Add raw_change (in the task's unit) and normalised_change to cells with before and after.

    A cell with both values but without a normalised change gets the reason NO_LOGARITHM.
    """
    changes = [normalized_change(c.after, c.before, TASKS[c.task].accuracy) for c in _rows(cells)]
    undefined = np.isnan(changes) & (cells["reason"] == "")
    return cells.assign(
        raw_change=cells["after"] - cells["before"],
        normalised_change=changes,
        reason=cells["reason"].mask(undefined, NO_LOGARITHM),
    )


def add_normalised(points: pd.DataFrame) -> pd.DataFrame:
    """Add the column normalised to the points of curves, ordered by step within each curve.

    It is the normalised change on standard questions and the normalised improvement on questions
    about Atlantis, both from the values at the first step of the same model and seed.
    """
    keys = ["model", "seed", "task", "split"]
    first = points.drop_duplicates(keys).set_index(keys)["value"].to_dict()

    def normalised(point: Any) -> float:
        accuracy, of_task = TASKS[point.task].accuracy, (point.model, point.seed, point.task)
        start = first[*of_task, point.split]
        if point.split == "standard":
            return normalized_change(point.value, start, accuracy)
        standard = first.get((*of_task, "standard"), math.nan)
        return normalized_improvement(point.value, start, standard, accuracy)

    points = points.copy()
    values = np.array([normalised(point) for point in _rows(points)], dtype=float)
    points.insert(points.columns.get_loc("value") + 1, "normalised", values)
    return points


def _rows(table: pd.DataFrame) -> Any:
    return table.itertuples(index=False)


# Means


def mean_over_tasks(cells: pd.DataFrame, keys: Sequence[str], column: str) -> pd.Series:
    """Average a column over the rows of each group; NaN where one of them is missing."""
    groups = cells.groupby(list(keys), sort=False)[column]
    return groups.mean().where(groups.count() == groups.size())


def mean_by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """Average the cells of each model and seed over the seven tasks.

    Returns:
        Columns model, ft, seed; change (normalised, standard questions); gain, trained, transfer
        (normalised improvement on Atlantis, over all tasks and over those trained on or not);
        retention (the formula of the improvement for standard values: 1 is the base's own);
        run_id. A mean is NaN if a task is missing.
    """
    keys, trained = ["model", "ft", "seed"], cells["trained"].astype(bool)
    retention = [
        normalized_improvement(
            cell.after, cell.base_atlantis, cell.base_standard, TASKS[cell.task].accuracy
        )
        for cell in _rows(cells)
    ]
    means = {
        "change": mean_over_tasks(cells, keys, "normalised_change"),
        "gain": mean_over_tasks(cells, keys, "normalised"),
        "trained": mean_over_tasks(cells[trained], keys, "normalised"),
        "transfer": mean_over_tasks(cells[~trained], keys, "normalised"),
        "retention": mean_over_tasks(cells.assign(retention=retention), keys, "retention"),
        "run_id": cells.groupby(keys, sort=False)["run_id"].first(),
    }
    return pd.DataFrame(means).reset_index()


def mean_over_seeds(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Average points over seeds and mark the Pareto front.

    Args:
        points: One row per model and seed, with `keys`, change and gain.
        keys: Columns that the seeds of a model have in common.

    Returns:
        Columns keys, change, gain, change_std, gain_std (ddof=1, NaN for one seed), n (seeds with
        both values), missing (the other seeds), on_front.
    """
    both = points[QUANTITIES].where(points[QUANTITIES].notna().all(axis=1))
    change, gain = (over_seeds(points.assign(**both), keys, name) for name in QUANTITIES)
    table = change[[*keys]].assign(
        change=change["mean"],
        gain=gain["mean"],
        change_std=change["std"],
        gain_std=gain["std"],
        n=change["n"],
        missing=change["missing"],
    )
    return table.assign(on_front=pareto_front(table["change"], table["gain"]))


def pareto_front(change: Sequence[float], gain: Sequence[float]) -> NDArray[np.bool_]:
    """Find the points (n,) that no other point dominates.

    A point is dominated by one that is at least as good in both quantities and better in one. A
    point with a NaN is not on the front and dominates none.
    """
    points = np.column_stack([np.asarray(change, dtype=float), np.asarray(gain, dtype=float)])
    others, own = points[np.newaxis], points[:, np.newaxis]
    dominated = np.all(others >= own, axis=2) & np.any(others > own, axis=2)
    return np.isfinite(points).all(axis=1) & ~np.any(dominated, axis=1)


def raw_tables(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tabulate raw changes by model and seed, and averaged over seeds, with the tasks' units."""
    columns = {task: f"{task} ({TASKS[task].unit})" for task in TASK_NAMES}
    by_seed = cells.pivot(index=["model", "seed"], columns="task", values="raw_change")
    by_seed = by_seed.reindex(columns=list(columns)).rename(columns=columns)
    means = over_seeds(cells, ["model", "task", "unit"], "raw_change")
    return {
        "raw_change": by_seed.sort_index(level="seed", sort_remaining=False).reset_index(),
        "raw_change_over_seeds": means.drop(columns=["parts", "seeds", "rows"]),
    }


def raw_statistics(cells: pd.DataFrame) -> dict[str, Any]:
    """Summarise raw changes by family and task, for models trained on the task and the others."""
    facts: dict[str, Any] = {}
    kinds = cells["trained"].map({True: "trained", False: "transfer"})
    groups = cells.groupby([cells["ft"].str.partition("-")[0], "task", kinds], sort=False)
    for (family, task, kind), own in groups["raw_change"]:
        by_task = facts.setdefault(family, {}).setdefault(task, {"unit": TASKS[task].unit})
        by_task[kind] = summary(own.to_numpy(dtype=float))
    return facts


# Curves


def mean_curves(points: pd.DataFrame) -> pd.DataFrame:
    """Average normalised values over the seven tasks, at the steps that all of them have.

    Returns:
        The columns of `points`. task is ALL_TASKS; value is NaN, as the tasks' units differ.
    """
    keys = [*CURVE, *ORIGIN, "step"]
    n_tasks = points.groupby(keys, sort=False)["task"].nunique()
    means = mean_over_tasks(points, keys, "normalised")[n_tasks == len(TASK_NAMES)]
    rows = means.rename("normalised").reset_index()
    added = rows.assign(task=ALL_TASKS, value=math.nan, trained=False)
    return added.reindex(columns=points.columns)


def halfway_table(points: pd.DataFrame) -> pd.DataFrame:
    """Find the step at which half of each curve's change has happened.

    Returns:
        HALFWAY_COLUMNS, one row per curve with at least two points. happened: whether the task was
        forgotten (standard) or gained (Atlantis), by the normalised change, or by the sign of the
        raw change if there is no normalised one. halfway_step is of the normalised values,
        halfway_step_raw of the raw ones; NaN if it did not happen. halfway_share: halfway_step as
        a share of the last step.
    """
    curves = points.groupby([*CURVE, "task"], sort=False)
    rows = [_halfway(own.sort_values("step")) for _, own in curves if len(own) > 1]
    return pd.DataFrame(rows, columns=HALFWAY_COLUMNS)


def _halfway(curve: pd.DataFrame) -> dict[str, Any]:
    first = curve.iloc[0]
    steps = curve["step"].to_numpy(dtype=float)
    raw, normalised = (curve[name].to_numpy(dtype=float) for name in ("value", "normalised"))
    raw_change, change = float(raw[-1] - raw[0]), float(normalised[-1] - normalised[0])
    happened = _happened(first["split"], first["task"], raw_change, change)
    halfway = halfway_step(steps, normalised) if happened and math.isfinite(change) else math.nan
    return first.to_dict() | {
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


def _happened(split: str, task: str, raw_change: float, change: float) -> bool:
    better = change
    if not math.isfinite(better) and task in TASKS:
        better = raw_change if TASKS[task].accuracy else -raw_change
    return bool(better < 0 if split == "standard" else better > 0)


def halfway_summary(halfway: pd.DataFrame) -> pd.DataFrame:
    """Average half-way steps by family, split and task: over the models of a seed, then over seeds.

    Returns:
        Columns of `over_seeds`, without seeds. n_models: number of curves (of a model and a seed).
        n_happened: curves with a half-way step; only they are averaged. n_early: those whose
        half-way step is not after the first measured one. last_step: of the longest curve.
    """
    keys = ["family", "split", "task"]
    halfway = halfway.assign(
        family=halfway["ft"].str.partition("-")[0],
        early=halfway["halfway_step"] <= halfway["first_step"],
    )
    groups = halfway.groupby(keys, sort=False)
    means = over_seeds(halfway, keys, "halfway_step")
    table = means[keys].assign(
        n_models=means["rows"],
        n_happened=means["rows"] - means["missing"],
        n_early=groups["early"].sum().to_numpy(),
        last_step=groups["last_step"].max().to_numpy(),
    )
    numbers = means[["mean", "std", "low", "high", "n", "parts"]].rename(
        columns={"parts": "by_seed"}
    )
    return table.join(numbers)


def halfway_statistics(overview: pd.DataFrame) -> dict[str, Any]:
    """Nest the rows of `halfway_summary` by family, split and task."""
    facts: dict[str, Any] = {}
    kept = ["mean", "std", "low", "high", "n", "n_happened", "n_models", "n_early"]
    for row in overview.to_dict("records"):
        by_split = facts.setdefault(str(row["family"]), {}).setdefault(row["split"], {})
        by_split[row["task"]] = {name: row[name] for name in kept}
    return facts
