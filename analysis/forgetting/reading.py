"""What the store has of fine-tuned models: values before and after fine-tuning, and over steps.

A curve is read from an evaluation of several checkpoints if there is one; it starts with the
evaluation of the base. Otherwise it is read from the validations during training, which start at
step 0. The questions of the two differ, so that one curve never joins them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.options import Options
from analysis.store.evaluations import PRETRAIN, Evaluations, Improvements, read_improvements
from analysis.store.missing import Commands, explained, missing, missing_table
from analysis.store.selection import (
    LAST,
    USED_COLUMNS,
    NothingThere,
    run_table,
    training_id,
    used_runs,
)
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, FINETUNINGS, TASK_NAMES, finetunings, parse_model
from worldrep.tracking import StoredRun

EVALUATED, VALIDATED = "evaluated checkpoints", "validation while training"
SUITE = ["split", "task"]
SUITES = pd.MultiIndex.from_product([["standard", "atlantis"], TASK_NAMES], names=SUITE)
NUMBERS = (("after", "run_id"), ("before", "base_evaluation_id"))  # of a cell, and its evaluation
POINT_COLUMNS = [
    "model", "ft", "seed", "task", "trained", "split", "step", "value", "measured_by", "rows",
    "run_id", "model_run_id",
]  # fmt: skip


@dataclass(frozen=True)
class Finetuned:
    """What the store has of the models fine-tuned from pt1 by one strategy.

    Attributes:
        found: Their improvements on Atlantis.
        families: Families with at least one model.
        cells: The cells of `found`, one row per model, seed and task, with unit, before and after
            (standard values of the base and of the model); reason and command are of these two.
        points: Curves: one row per model, seed, split, task and step, POINT_COLUMNS, in order of
            step. rows: number of questions per value.
        runs: Runs that all values are from, by run_id: USED_COLUMNS.
        missing: Models and seeds without a full curve: MISSING_COLUMNS.
    """

    found: Improvements
    families: tuple[str, ...]
    cells: pd.DataFrame
    points: pd.DataFrame
    runs: pd.DataFrame
    missing: pd.DataFrame


def read_strategies(source: Source, options: Options) -> dict[str, Finetuned]:
    """Read every strategy in the store, in the order of STRATEGIES.

    Raises NothingThere if the strategy of the options has nothing to draw.
    """
    own = _read_finetuned(source, options)
    every = {}
    for strategy in source.strategies(stage="evaluate", **options.names, pretrain=PRETRAIN):
        if strategy == options.strategy:
            every[strategy] = own
            continue
        with suppress(NothingThere):
            other = source.tuned_by(strategy)
            every[strategy] = _read_finetuned(other, replace(options, strategy=strategy))
    return every


def _read_finetuned(source: Source, options: Options) -> Finetuned:
    found = read_improvements(source, options, tuple(FINETUNINGS))
    trained = {
        model.rpartition("_")[2] for model, seed in found.trained.standing if seed in found.seeds
    }
    there = trained | set(found.evaluations.finetuned["ft"])
    families = tuple(family for family in FAMILIES if there & set(finetunings(family)))
    of_families = found.cells["ft"].str.partition("-")[0].isin(families)
    found = replace(found, cells=found.cells[of_families])
    return Finetuned(found, families, _standard_cells(found), *_read_curves(source, options, found))


def _standard_cells(found: Improvements) -> pd.DataFrame:
    """The cells with their values on standard questions before and after fine-tuning."""
    values = found.evaluations.values
    values = values.loc[values["split"] == "standard", ["run_id", "task", "value"]]
    cells = found.cells.assign(unit=[TASKS[task].unit for task in found.cells["task"]])
    for column, run_id in reversed(NUMBERS):
        cells = cells.merge(values.set_axis([run_id, "task", column], axis=1), "left")
    gaps = _gaps(cells, found.evaluations, found.trained.commands)
    return explained(cells, gaps, ["model", "seed", "task"])


def _gaps(
    cells: pd.DataFrame, evaluations: Evaluations, commands: Commands
) -> Iterable[pd.DataFrame]:
    """Yield why values before and after are missing: models, bases, numbers of evaluations."""

    def base(cell: Any) -> tuple[str, str]:
        model = parse_model(cell.model)
        fault = evaluations.runs["base_fault"][cell.run_id]
        return fault, commands.evaluate_base(model, cell.seed, cell.base_run_id)

    def number(cell: Any) -> tuple[str, str]:
        return evaluations.gap(cell.evaluation, [f"standard/{cell.task}/mean"], commands)

    key, there = ["model", "seed", "task"], cells["run_id"] != ""
    yield cells[~there]
    yield missing(cells[there], cells[cells["base_evaluation_id"] != ""], key, base)
    for column, run_id in NUMBERS:
        needs = cells[there & (cells[run_id] != "")]
        known = cells[np.isfinite(cells[column])]
        yield missing(needs.assign(evaluation=needs[run_id]), known, key, number)


@dataclass(frozen=True)
class _Curves:
    """The curves of a model and seed. points: split, task, step, value; base: a run id."""

    run: StoredRun
    points: pd.DataFrame
    why: str
    base: str = ""


def _read_curves(
    source: Source, options: Options, found: Improvements
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Points, all runs used, and what is missing."""
    several = [  # evaluations of several checkpoints
        run
        for run in source.runs(stage="evaluate", **options.names, pretrain=PRETRAIN)
        if run.tag("checkpoints") not in ("", LAST)
    ]
    read: list[_Curves] = []
    tables, gaps = [pd.DataFrame(columns=POINT_COLUMNS)], []
    for cell in found.cells.drop_duplicates(["model", "seed"]).itertuples():
        # The training of the final values; without such values, the one that the name stands for.
        standing = found.trained.standing.get((cell.model, cell.seed), "")
        training = found.trained.runs.get(cell.model_run_id or standing)
        if training is None:
            continue
        curves, missing = _curves_of(source, found, cell, training, several)
        gap = {"matrix": "course", "seed": cell.seed, "model": cell.ft}
        gaps += [gap | {"reason": reason, "command": command} for reason, command in missing]
        if curves:
            read.append(curves)
            tables.append(_of_model(curves, cell))
    points = pd.concat(tables, ignore_index=True)
    points = points.astype({"seed": int, "trained": bool, "step": int, "value": float})
    runs = run_table((curves.run for curves in read), found.trained.current)
    runs = runs.assign(why=[curves.why for curves in read])[USED_COLUMNS]
    bases = used_runs(found.evaluations.runs, {curves.base for curves in read})
    return points, pd.concat([found.runs_used, runs, bases]), missing_table(gaps)


def _of_model(curves: _Curves, cell: Any) -> pd.DataFrame:
    """The points with POINT_COLUMNS. cell: any of the model and seed."""
    run, param = curves.run, "cfg.test_rows" if curves.base else "cfg.val_rows"
    return curves.points.assign(
        model=cell.model,
        ft=cell.ft,
        seed=cell.seed,
        trained=curves.points["task"].isin(FINETUNINGS[cell.ft]),
        measured_by=EVALUATED if curves.base else VALIDATED,
        rows=run.params.get(param, "?"),
        run_id=run.id,
        model_run_id=training_id(run),
    )[POINT_COLUMNS]


def _curves_of(
    source: Source, found: Improvements, cell: Any, training: StoredRun, several: list[StoredRun]
) -> tuple[_Curves | None, list[tuple[str, str]]]:
    """The curves of a training, None without any; and what is missing: reason, command."""
    commands, model = found.trained.commands, parse_model(cell.model)
    if found.trained.standing.get((cell.model, cell.seed)) == training.id:
        command = commands.evaluate(model, cell.seed, checkpoints="all")
    else:
        command = commands.evaluate_run(training.id, checkpoints="all")
    base = _base_of(training, found.evaluations)
    evaluated = [run for run in several if run.tag("model_run_id") == training.id]
    alike = [run for run in evaluated if base and _rows(run) == _rows(base)]
    gaps = []
    if not evaluated:
        gaps = [("no checkpoints but the last are evaluated", command)]
    elif not base:
        own = commands.evaluate_base(model, cell.seed, training.tag("base_run_id"))
        gaps = [("the checkpoints are evaluated, but not the base that they started from", own)]
    elif not alike:
        reason = "the checkpoints are evaluated with another number of questions than the base"
        gaps = [(reason, command)]
    elif not cell.run_id and all(run.tag("checkpoints") != "all" for run in alike):
        gaps = [("the last checkpoint is not evaluated: the curve ends early", command)]
    if base and alike:
        curves = _evaluated(source, found.evaluations, alike, base.id, cell.run_id)
        command = commands.again(curves.run.id, command)
    else:
        curves = _Curves(training, _points(source, training, "val/"), "curve: its validations")
    curves = replace(curves, points=_from_start(curves.points))
    n = curves.points.groupby(SUITE).size().reindex(SUITES, fill_value=0)
    if (n < 2).all():
        without = "; it has no validations from step 0 on"
        return None, [(f"{reason}{without}", command) for reason, command in gaps]
    if short := ["/".join(suite) for suite in SUITES[n < 2]]:
        gaps.append((f"run {curves.run.id} has no curve of {', '.join(short)}", command))
    return curves, gaps


def _base_of(training: StoredRun, evaluations: Evaluations) -> StoredRun | None:
    """The evaluation of the base that a training started from, as for the final values."""
    bases = evaluations.bases
    bases = bases[bases["seed"] == int(training.tag("seed"))]
    if training.tag("base_run_id"):
        bases = bases[bases["model_run_id"] == training.tag("base_run_id")]
    return evaluations.sources[bases.index[0]] if len(bases) else None


def _evaluated(
    source: Source, evaluations: Evaluations, runs: Sequence[StoredRun], base: str, last: str
) -> _Curves:
    """The curves of the evaluation with most steps, the newest of equals.

    base: its values come first; last: the evaluation of the last checkpoint (or empty), with which
    the curves of an evaluation of listed steps end.
    """
    tables = {run.id: _points(source, run) for run in runs}
    run = max(runs, key=lambda run: tables[run.id]["step"].nunique())
    points, end = [tables[run.id]], evaluations.sources.get(last)
    if end and _rows(end) == _rows(run) and run.tag("checkpoints") != "all":
        points.append(_points(source, end))
    values = evaluations.values
    points.append(values[values["run_id"] == base].assign(step=0)[[*SUITE, "step", "value"]])
    why = f"curve: checkpoints {run.tag('checkpoints')}"
    why += f", the one with most steps of {len(runs)}" if len(runs) > 1 else ""
    return _Curves(run, pd.concat(points).drop_duplicates([*SUITE, "step"]), why, base)


def _points(source: Source, run: StoredRun, prefix: str = "") -> pd.DataFrame:
    """The curves that a run logged: split, task, step, value."""
    rows = [
        (split, task, step, value)
        for split, task in SUITES
        if (metric := f"{prefix}{split}/{task}/mean") in run.metrics
        for step, value in source.curve(run.id, metric)
    ]
    return pd.DataFrame(rows, columns=[*SUITE, "step", "value"])


def _from_start(points: pd.DataFrame) -> pd.DataFrame:
    """The curves that start at step 0, in order of suite and step."""
    points = points[points.groupby(SUITE)["step"].transform("min") == 0].sort_values("step")
    return SUITES.to_frame(index=False).merge(points)


def _rows(run: StoredRun) -> str:
    """How many questions of each task an evaluation asks: those of another number are others."""
    return run.params.get("cfg.test_rows", "?")
