"""Statistics of forgetting: pure functions on tables of cells, of points and of curves.

A cell is the result of a model and seed on a task. A curve is the result over steps.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.comparison import over_seeds
from analysis.statistics.curves import halfway_step
from analysis.statistics.matrices import summary
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import STRATEGIES, TASK_NAMES, parse_model

NO_LOGARITHM = "an error of 0 has no logarithm; the raw change is known"
ALL_TASKS = "mean of the seven"
CURVE = ["model", "ft", "seed", "split"]  # the curves of all tasks have these in common
ORIGIN = ["measured_by", "rows", "run_id", "model_run_id"]
QUANTITIES = ["gain", "trained", "transfer", "change", "retention", "halfway_share"]
SPREAD = ["mean", "std", "n", "low", "high", "missing"]
HALFWAY_COLUMNS = [
    *CURVE, "task", "trained", "n_points", "first_step", "last_step", "raw_change",
    "normalised_change", "happened", "halfway_step", "halfway_step_raw", "halfway_share", *ORIGIN,
]  # fmt: skip


def normalized_change(after: float, before: float, accuracy: bool) -> float:
    """Compute the change on a scale that all tasks share: negative is forgotten.

    Accuracy: (after - before) / (1 - before), or after - before for a perfect base. NaN outside
    0..1. Error: ln(before / after), or 0 if both are 0. NaN if only one is 0 or one is negative.
    before, after: values of the base and of the fine-tuned model; NaN if one is not finite.
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


def _accuracies(table: pd.DataFrame) -> list[bool]:
    return [TASKS[task].accuracy for task in table["task"]]


def add_changes(cells: pd.DataFrame) -> pd.DataFrame:
    """Add raw_change (in the task's unit) and normalised_change, or the reason NO_LOGARITHM."""
    changes = [*map(normalized_change, cells["after"], cells["before"], _accuracies(cells))]
    undefined = np.isnan(changes) & (cells["reason"] == "")
    return cells.assign(
        raw_change=cells["after"] - cells["before"],
        normalised_change=changes,
        reason=cells["reason"].mask(undefined, NO_LOGARITHM),
    )


def add_normalised(points: pd.DataFrame) -> pd.DataFrame:
    """Add the column normalised: the change on standard questions, the improvement on Atlantis.

    Both are from the values at the first step of the same model and seed; points: in order of step.
    """
    keys = ["model", "seed", "task"]
    first = points.drop_duplicates([*keys, "split"])
    first = first.pivot(index=keys, columns="split", values="value")
    start = points[keys].join(first.reindex(columns=["standard", "atlantis"]), on=keys)
    numbers = points["value"], start["atlantis"], start["standard"], _accuracies(points)
    change = [*map(normalized_change, numbers[0], *numbers[2:])]
    improvement = [*map(normalized_improvement, *numbers)]
    points, place = points.copy(), points.columns.get_loc("value") + 1
    values = np.where(points["split"] == "standard", change, improvement)
    points.insert(place, "normalised", values.astype(float))
    return points


def mean_over_tasks(cells: pd.DataFrame, keys: Sequence[str], column: str) -> pd.Series:
    """Average a column over the rows of each group; NaN where one of them is missing."""
    return cells.groupby([*keys], sort=False)[column].mean(skipna=False)


def mean_by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """Average the cells of each model and seed over the seven tasks; NaN if a task is missing.

    change: on standard questions; gain, trained, transfer: improvement on Atlantis, over all tasks
    and over those trained on or not; retention: the improvement's formula on standard values.
    """
    keys, trained = ["model", "ft", "seed"], cells["trained"].astype(bool)
    numbers = cells["after"], cells["base_atlantis"], cells["base_standard"], _accuracies(cells)
    cells = cells.assign(retention=[*map(normalized_improvement, *numbers)])
    means = {
        "change": mean_over_tasks(cells, keys, "normalised_change"),
        "gain": mean_over_tasks(cells, keys, "normalised"),
        "trained": mean_over_tasks(cells[trained], keys, "normalised"),
        "transfer": mean_over_tasks(cells[~trained], keys, "normalised"),
        "retention": mean_over_tasks(cells, keys, "retention"),
        "run_id": cells.groupby(keys, sort=False)["run_id"].first(),
    }
    return pd.DataFrame(means).reset_index()


def mean_over_seeds(points: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Average change and gain over the seeds of each model (`keys`), and mark the Pareto front.

    std: ddof=1, NaN for one seed; n: seeds with both values; missing: the others.
    """
    known = points[["change", "gain"]].notna().all(axis=1)
    both = points.assign(change=points["change"].where(known), gain=points["gain"].where(known))
    change, gain = (over_seeds(both, keys, name) for name in ("change", "gain"))
    numbers = {
        "change": change["mean"], "gain": gain["mean"], "change_std": change["std"],
        "gain_std": gain["std"], "n": change["n"], "missing": change["missing"],
    }  # fmt: skip
    return change[[*keys]].assign(**numbers, on_front=pareto_front(change["mean"], gain["mean"]))


def pareto_front(change: Sequence[float], gain: Sequence[float]) -> np.ndarray:
    """Find the points (n,) without NaN than which none is as good in both and better in one."""
    points = np.column_stack([change, gain]).astype(float)
    others, own = points[np.newaxis], points[:, np.newaxis]
    dominated = np.all(others >= own, axis=2) & np.any(others > own, axis=2)
    return np.isfinite(points).all(axis=1) & ~np.any(dominated, axis=1)


def raw_tables(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tabulate raw changes by model and seed, and averaged over seeds, with the tasks' units."""
    by_seed = cells.pivot(index=["model", "seed"], columns="task", values="raw_change")
    by_seed = by_seed.reindex(columns=list(TASK_NAMES))
    by_seed = by_seed.rename(columns=lambda task: f"{task} ({TASKS[task].unit})")
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


def mean_curves(points: pd.DataFrame) -> pd.DataFrame:
    """Average normalised values over the tasks (ALL_TASKS), at the steps that all seven have."""
    keys = [*CURVE, *ORIGIN, "step"]
    n_tasks = points.groupby(keys, sort=False)["task"].nunique()
    means = mean_over_tasks(points, keys, "normalised")[n_tasks == len(TASK_NAMES)].reset_index()
    means = means.assign(task=ALL_TASKS, value=math.nan, trained=False)  # their units differ
    return means.reindex(columns=points.columns)


def halfway_table(points: pd.DataFrame) -> pd.DataFrame:
    """Find the step at which half of the change has happened, for curves of two points or more.

    happened: whether the task was forgotten (standard) or gained (Atlantis), by the normalised
    change, else by the raw one. halfway_step is of the normalised values, halfway_step_raw of the
    raw ones; NaN if it did not happen. halfway_share: halfway_step as a share of the last step.
    """
    curves = points.groupby([*CURVE, "task"], sort=False)
    rows = [_halfway(own.sort_values("step")) for _, own in curves if len(own) > 1]
    return pd.DataFrame(rows, columns=HALFWAY_COLUMNS)


def _halfway(curve: pd.DataFrame) -> dict[str, Any]:
    first = curve.iloc[0]
    steps, raw, normalised = curve[["step", "value", "normalised"]].to_numpy(dtype=float).T
    raw_change, change = float(raw[-1] - raw[0]), float(normalised[-1] - normalised[0])
    known, better = math.isfinite(change), change
    if not known and first["task"] in TASKS:
        better = raw_change if TASKS[first["task"]].accuracy else -raw_change
    happened = better < 0 if first["split"] == "standard" else better > 0
    halfway = halfway_step(steps, normalised) if happened and known else math.nan
    return first.to_dict() | {
        "n_points": len(steps), "first_step": steps[1], "last_step": steps[-1],
        "raw_change": raw_change, "normalised_change": change, "happened": happened,
        "halfway_step": halfway, "halfway_share": halfway / steps[-1],
        "halfway_step_raw": halfway_step(steps, raw) if happened else math.nan,
    }  # fmt: skip


def halfway_summary(halfway: pd.DataFrame) -> pd.DataFrame:
    """Average half-way steps by family, split and task: over the models of a seed, then over seeds.

    n_models: curves; n_happened: those with a half-way step, which alone are averaged; n_early:
    those whose half-way step is not after the first measured one; last_step: of the longest curve.
    """
    keys = ["family", "split", "task"]
    halfway = halfway.assign(
        family=halfway["ft"].str.partition("-")[0],
        early=halfway["halfway_step"] <= halfway["first_step"],
    )
    counts = halfway.groupby(keys, sort=False).agg(
        n_models=("halfway_step", "size"),
        n_happened=("halfway_step", "count"),
        n_early=("early", "sum"),
        last_step=("last_step", "max"),
    )
    means = over_seeds(halfway, keys, "halfway_step").rename(columns={"parts": "by_seed"})
    return counts.reset_index().merge(means.drop(columns=["seeds", "rows", "missing"]), on=keys)


@dataclass(frozen=True)
class Comparison:
    """Strategies of fine-tuning compared by the fine-tunings `fts` that all of them have.

    models: QUANTITIES of each strategy, ft and seed, found or not; seeds: means over all models,
    NaN where one is missing; over_seeds: their SPREAD; curves: by `_by_share`.
    """

    fts: Sequence[str]
    models: pd.DataFrame
    seeds: pd.DataFrame
    over_seeds: pd.DataFrame
    curves: pd.DataFrame


def compare(
    strategies: Iterable[str], fts: Sequence[str], cells: pd.DataFrame, points: pd.DataFrame
) -> Comparison:
    """Compare strategies. cells, points: those of all strategies."""
    cells, curves = cells[cells["ft"].isin(fts)], mean_curves(points[points["ft"].isin(fts)])
    halfway = halfway_table(curves[curves["split"] == "standard"])
    found = mean_by_model(cells).merge(halfway[["model", "seed", "halfway_share"]], "left")
    wanted = product(strategies, fts, sorted(set(cells["seed"])))
    models = pd.DataFrame(wanted, columns=["strategy", "ft", "seed"])
    models = models.merge(found.assign(strategy=_strategies(found)), "left")
    models["label"] = models["ft"] + "+" + models["strategy"]
    models["strategy"] = pd.Categorical(models["strategy"], STRATEGIES)
    seeds = models.groupby(["strategy", "seed"], sort=False, observed=True)[QUANTITIES]
    seeds = seeds.mean(skipna=False).reset_index()
    values = seeds.melt(["strategy", "seed"], QUANTITIES, "quantity")
    spread = over_seeds(values, ["strategy", "quantity"], "value")
    spread = spread.sort_values("strategy", kind="stable")[["strategy", "quantity", *SPREAD]]
    curves = _by_share(curves.assign(strategy=_strategies(curves)), len(fts))
    return Comparison(fts, models, seeds, spread, curves)


def _strategies(table: pd.DataFrame) -> list[str]:
    return [parse_model(model).strategy for model in table["model"]]


def _by_share(curves: pd.DataFrame, n_models: int) -> pd.DataFrame:
    """Average the models' curves by place in the curve, where every model has a point."""
    own = curves.dropna(subset=["normalised"]).sort_values("step")
    steps = own.groupby(["strategy", "seed", "split", "ft"], sort=False)["step"]
    own = own.assign(share=own["step"] / steps.transform("max"), place=steps.cumcount())
    groups = own.groupby(["strategy", "seed", "split", "place"], sort=False)
    return groups[["share", "normalised"]].mean()[groups.size() == n_models].reset_index()
