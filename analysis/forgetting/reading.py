"""What the store has of fine-tuned models: values before and after fine-tuning, and over steps.

A curve is read from an evaluation of several checkpoints if there is one; it starts with the
evaluation of the base. Otherwise it is read from the validations during training, which start at
step 0. The questions of the two differ, so that one curve never joins them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.options import Options
from analysis.store.evaluations import PRETRAIN, Improvements, read_improvements
from analysis.store.missing import MISSING_COLUMNS
from analysis.store.selection import USED_COLUMNS, NothingThere, run_table, training_id, used_runs
from analysis.store.source import Curve, Source
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, FINETUNINGS, TASK_NAMES, finetunings, parse_model
from worldrep.tracking import StoredRun

EVALUATED, VALIDATED = "evaluated checkpoints", "validation while training"
SUITES = [(split, task) for split in ("standard", "atlantis") for task in TASK_NAMES]
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

    Raises:
        NothingThere: If the strategy of the options has nothing to draw.
    """
    own = read_finetuned(source, options)
    every = {}
    for strategy in source.strategies(stage="evaluate", **options.names, pretrain=PRETRAIN):
        if strategy == options.strategy:
            every[strategy] = own
            continue
        with suppress(NothingThere):
            other = source.tuned_by(strategy)
            every[strategy] = read_finetuned(other, replace(options, strategy=strategy))
    return every


def read_finetuned(source: Source, options: Options) -> Finetuned:
    """Read the models of one strategy.

    Raises:
        NothingThere: If no seed has both a base and a fine-tuned model.
    """
    found = read_improvements(source, options, tuple(FINETUNINGS))
    trained = {
        model.rpartition("_")[2] for model, seed in found.trained.standing if seed in found.seeds
    }
    there = trained | set(found.evaluations.finetuned["ft"])
    families = tuple(family for family in FAMILIES if there & set(finetunings(family)))
    of_families = found.cells["ft"].str.partition("-")[0].isin(families)
    found = replace(found, cells=found.cells[of_families])
    return Finetuned(found, families, _standard_cells(found), *_read_curves(source, options, found))


# Before and after


def _standard_cells(found: Improvements) -> pd.DataFrame:
    values = found.evaluations.values
    standard = values[values["split"] == "standard"].set_index(["run_id", "task"])["value"]

    def of(run_id: str) -> np.ndarray:
        wanted = pd.MultiIndex.from_frame(found.cells[[run_id, "task"]])
        return standard.reindex(wanted).to_numpy(dtype=float)

    cells = found.cells.assign(
        unit=[TASKS[task].unit for task in found.cells["task"]],
        before=of("base_evaluation_id"),
        after=of("run_id"),
    )
    gaps = [_gaps(cell, found) for cell in cells.itertuples()]
    return cells.assign(
        reason=["; ".join(own) for own in gaps],
        command=[" && ".join(dict.fromkeys(own.values())) for own in gaps],
    )


def _gaps(cell: Any, found: Improvements) -> dict[str, str]:
    """Why a value before or after is missing: reason -> command."""
    values = {cell.run_id: cell.after, cell.base_evaluation_id: cell.before}
    if np.isfinite(list(values.values())).all():
        return {}
    if not cell.run_id:
        return {cell.reason: cell.command}
    gaps = {}
    evaluations, commands = found.evaluations, found.trained.commands
    if not cell.base_evaluation_id:
        fault = evaluations.runs["base_fault"][cell.run_id]
        gaps[fault] = commands.evaluate_base(parse_model(cell.model), cell.seed, cell.base_run_id)
    for run_id, value in values.items():
        if run_id and not np.isfinite(value):
            name = f"standard/{cell.task}/mean"
            reason, command = evaluations.gap(run_id, [name], commands)
            gaps[reason] = command
    return gaps


# Curves


@dataclass(frozen=True)
class _ModelCurves:
    """The curves of one model and seed, (split, task) -> (step, value), and their run."""

    run: StoredRun
    measured_by: str
    rows: str
    why: str
    values: dict[tuple[str, str], Curve]

    def points(self, cell: Any) -> Iterator[tuple[Any, ...]]:
        """Rows of POINT_COLUMNS. cell: any cell of the model and seed."""
        of_model = (cell.model, cell.ft, cell.seed)
        origin = (self.measured_by, self.rows, self.run.id, training_id(self.run))
        for (split, task), curve in self.values.items():
            trained = task in FINETUNINGS[cell.ft]
            for step, value in curve:
                yield (*of_model, task, trained, split, step, value, *origin)


def _read_curves(
    source: Source, options: Options, found: Improvements
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Points, all runs used, and what is missing."""
    reader = _CurveReader(source, options, found)
    trained = found.trained
    read: list[tuple[Any, _ModelCurves]] = []
    missing: list[tuple[object, ...]] = []
    for (model, seed), own in found.cells.groupby(["model", "seed"], sort=False):
        cell = own.iloc[0]
        # The training of the final values; without such values, the one that the name stands for.
        training = trained.runs.get(cell.model_run_id or trained.standing.get((model, seed), ""))
        if training is None:
            continue
        curves, gaps = reader.read(cell, training)
        missing += [("course", seed, cell.ft, "", reason, gaps[reason]) for reason in gaps]
        if curves:
            read.append((cell, curves))
    rows = [row for cell, curves in read for row in curves.points(cell)]
    points = pd.DataFrame(rows, columns=POINT_COLUMNS)
    points = points.astype({"seed": int, "trained": bool, "step": int, "value": float})
    runs = run_table((curves.run for _, curves in read), trained.current)
    runs = runs.assign(why=[curves.why for _, curves in read])[USED_COLUMNS]
    bases = used_runs(found.evaluations.runs, reader.bases)
    runs = pd.concat([found.runs_used, runs, bases])
    return points, runs, pd.DataFrame(missing, columns=MISSING_COLUMNS)


class _CurveReader:
    """Chooses the run that a model's curves are read from, and reads them.

    bases: evaluations of bases that curves start with.
    """

    def __init__(self, source: Source, options: Options, found: Improvements) -> None:
        self._source, self._trained = source, found.trained
        self._evaluations = found.evaluations
        table = found.evaluations.values
        self._values = table.set_index(["run_id", "split", "task"])["value"].to_dict()
        self._by_training: dict[str, list[StoredRun]] = {}  # evaluations of several checkpoints
        for run in source.runs(stage="evaluate", **options.names, pretrain=PRETRAIN):
            if run.tag("checkpoints") not in ("", "last"):
                self._by_training.setdefault(run.tag("model_run_id"), []).append(run)
        self.bases: set[str] = set()

    def read(self, cell: Any, training: StoredRun) -> tuple[_ModelCurves | None, dict[str, str]]:
        """Read a training's curves, and what is missing: reason -> command."""
        gaps: dict[str, str] = {}
        commands, model = self._trained.commands, parse_model(cell.model)
        if self._trained.standing.get((cell.model, cell.seed)) == training.id:
            evaluate_all = commands.evaluate(model, cell.seed, checkpoints="all")
        else:
            evaluate_all = commands.evaluate_run(training.id, checkpoints="all")
        evaluated = self._by_training.get(training.id, [])
        base = self._base(training)
        alike = [run for run in evaluated if base and _rows(run) == _rows(base)]
        if not evaluated:
            gaps["no checkpoints but the last are evaluated"] = evaluate_all
        elif not base:
            reason = "the checkpoints are evaluated, but not the base that they started from"
            gaps[reason] = commands.evaluate_base(model, cell.seed, training.tag("base_run_id"))
        elif not alike:
            reason = "the checkpoints are evaluated with another number of questions than the base"
            gaps[reason] = evaluate_all
        elif not cell.run_id and all(run.tag("checkpoints") != "all" for run in alike):
            gaps["the last checkpoint is not evaluated: the curve ends early"] = evaluate_all
        last = self._evaluations.sources.get(cell.run_id)
        curves = self._evaluated(alike, base, last) if base and alike else self._validated(training)
        short = ["/".join(suite) for suite, curve in curves.values.items() if len(curve) < 2]
        if len(short) == len(curves.values):
            without = "it has no validations from step 0 on"
            return None, {f"{reason}; {without}": command for reason, command in gaps.items()}
        if short:
            again = commands.again(curves.run.id, evaluate_all) if alike else evaluate_all
            gaps[f"run {curves.run.id} has no curve of {', '.join(short)}"] = again
        return curves, gaps

    def _base(self, training: StoredRun) -> StoredRun | None:
        """The evaluation of the base that a training started from, as for the final values."""
        bases = self._evaluations.bases
        bases = bases[bases["seed"] == int(training.tag("seed"))]
        if training.tag("base_run_id"):
            bases = bases[bases["model_run_id"] == training.tag("base_run_id")]
        return self._evaluations.sources[bases.index[0]] if len(bases) else None

    def _evaluated(
        self, runs: list[StoredRun], base: StoredRun, last: StoredRun | None
    ) -> _ModelCurves:
        """The curves of the evaluation with most steps, the newest of equals.

        base: its values come first; last: the evaluation of the last checkpoint, with which the
        curves of an evaluation of listed steps end.
        """
        run = max(runs, key=lambda run: len(self._curve(run, f"standard/{TASK_NAMES[0]}/mean")))
        if last and (_rows(last) != _rows(run) or run.tag("checkpoints") == "all"):
            last = None
        values: dict[tuple[str, str], Curve] = {}
        for split, task in SUITES:
            metric, before = f"{split}/{task}/mean", self._values.get((base.id, split, task))
            after = dict(self._curve(last, metric) if last else []) | dict(self._curve(run, metric))
            own = [] if before is None else sorted(({0: before} | after).items())
            values[split, task] = own
        self.bases.add(base.id)
        why = f"curve: checkpoints {run.tag('checkpoints')}"
        why += f", the one with most steps of {len(runs)}" if len(runs) > 1 else ""
        return _ModelCurves(run, EVALUATED, _rows(run), why, values)

    def _validated(self, training: StoredRun) -> _ModelCurves:
        """The curves of the validations, as far as they start at step 0."""
        curves = {suite: self._curve(training, f"val/{'/'.join(suite)}/mean") for suite in SUITES}
        values = {
            suite: curve if curve and curve[0][0] == 0 else [] for suite, curve in curves.items()
        }
        rows = training.params.get("cfg.val_rows", "?")
        return _ModelCurves(training, VALIDATED, rows, "curve: its validations", values)

    def _curve(self, run: StoredRun, metric: str) -> Curve:
        return self._source.curve(run.id, metric) if metric in run.metrics else []


def _rows(run: StoredRun) -> str:
    """How many questions of each task an evaluation asks: those of another number are others."""
    return run.params.get("cfg.test_rows", "?")
