"""What the store has of fine-tuned models: values before and after fine-tuning, and over steps.

A curve is read from an evaluation of several checkpoints if there is one; it starts with the
evaluation of the base. Otherwise it is read from the validations during training, which start at
step 0. The two use different questions, so a curve never combines them.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from analysis.options import Options
from analysis.store import selection
from analysis.store.evaluations import PRETRAIN, Evaluations, Improvements, read_improvements
from analysis.store.missing import missing_cells, missing_table, with_reasons
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, FINETUNINGS, TASK_NAMES, finetunings, parse_model
from worldrep.tracking import StoredRun

EVALUATED, VALIDATED = "evaluated checkpoints", "validation while training"
SUITE, POINT = ["split", "task"], ["split", "task", "step", "value"]
SUITES = pd.MultiIndex.from_product([["standard", "atlantis"], TASK_NAMES], names=SUITE)
POINT_COLUMNS = [
    "model", "ft", "seed", "task", "trained", "split", "step", "value", "measured_by", "rows",
    "run_id", "model_run_id",
]  # fmt: skip


@dataclass(frozen=True)
class Finetuned:
    """What the store has of the models fine-tuned from pt1 by one strategy."""

    found: Improvements  # on Atlantis
    families: tuple[str, ...]  # those with at least one model
    cells: (
        pd.DataFrame
    )  # of `found`, with unit, before and after: standard values of base and model
    points: pd.DataFrame  # curves, POINT_COLUMNS in order of step; rows: questions per value
    runs: pd.DataFrame  # of all values
    missing: pd.DataFrame  # models and seeds without a full curve

    def lacking(self, name: str, fts: Sequence[str]) -> pd.DataFrame:
        """Return the cells of fine-tunings without a change or a gain, with MISSING_COLUMNS."""
        change = missing_cells(self.cells, f"change_{name}", fts)
        return pd.concat([change, missing_cells(self.found.cells, f"gain_{name}", fts)])


def read_strategies(source: Source, options: Options) -> dict[str, Finetuned]:
    """Read every strategy in the store, in the order of STRATEGIES.

    Raises NothingThere if the strategy of the options has nothing to draw.
    """
    every = {options.strategy: _read_finetuned(source, options)}
    names = source.strategies(stage="evaluate", **options.names, pretrain=PRETRAIN)
    for other in set(names) - {options.strategy}:
        with suppress(selection.NothingThere):
            view = source.tuned_by(other), replace(options, strategy=other)
            every[other] = _read_finetuned(*view)
    return {strategy: every[strategy] for strategy in names if strategy in every}


def _read_finetuned(source: Source, options: Options) -> Finetuned:
    found = read_improvements(source, options, tuple(FINETUNINGS))
    trained = {
        model.rpartition("_")[2]
        for model, seed in found.evaluations.trained.training_of
        if seed in found.seeds
    }
    there = trained | set(found.evaluations.finetuned["ft"])
    families = tuple(family for family in FAMILIES if there & set(finetunings(family)))
    of_families = found.cells["ft"].str.partition("-")[0].isin(families)
    found = replace(found, cells=found.cells[of_families])
    return Finetuned(found, families, _standard_cells(found), *_read_curves(source, options, found))


def _standard_cells(found: Improvements) -> pd.DataFrame:
    values = found.evaluations.values
    values = values.loc[values["split"] == "standard", ["run_id", "task", "value"]]
    cells = found.cells.assign(unit=[TASKS[task].unit for task in found.cells["task"]])
    for column, run_id in (("before", "base_evaluation_id"), ("after", "run_id")):
        cells = cells.merge(values.set_axis([run_id, "task", column], axis=1), "left")
    return with_reasons(cells, partial(_why_missing, found=found))


def _why_missing(cell: Any, found: Improvements) -> tuple[str, str]:
    """Return the reasons why a cell lacks standard values, and the commands that compute them."""
    if not cell.run_id:
        return cell.reason, cell.command
    trained, gaps = found.evaluations.trained, {}  # reason -> command
    if not cell.base_evaluation_id:
        fault = found.evaluations.runs["base_fault"][cell.run_id]
        model = parse_model(cell.model)
        gaps[fault] = trained.to_evaluate_base(model, cell.seed, cell.base_run_id)
    for run_id, value in ((cell.run_id, cell.after), (cell.base_evaluation_id, cell.before)):
        if run_id and not math.isfinite(value):
            names = [f"standard/{cell.task}/mean"]
            reason, command = found.evaluations.gap(run_id, names)
            gaps[reason] = command
    return "; ".join(gaps), " && ".join(dict.fromkeys(gaps.values()))


def _read_curves(
    source: Source, options: Options, found: Improvements
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read points, all runs used, and what is missing."""
    several = {  # evaluations of several checkpoints
        run.id: run
        for run in source.runs(stage="evaluate", **options.names, pretrain=PRETRAIN)
        if run.tag("checkpoints") not in ("", selection.LAST)
    }
    trained, evaluations = found.evaluations.trained, found.evaluations
    tables, gaps = [pd.DataFrame(columns=[*POINT_COLUMNS, "why", "base"])], []
    for cell in found.cells.drop_duplicates(["model", "seed"]).itertuples():
        # The training of the final evaluation, else the one selected for this model name.
        run_id = cell.model_run_id or trained.training_of.get((cell.model, cell.seed), "")
        training = trained.runs.get(run_id)
        if training is None:
            continue
        evaluated = [run for run in several.values() if selection.training_id(run) == training.id]
        points, missing = _curves_of(source, found, cell, training, evaluated)
        own = points["task"].isin(FINETUNINGS[cell.ft])
        facts = {"model": cell.model, "ft": cell.ft, "seed": cell.seed}
        tables.append(points.assign(**facts, trained=own, model_run_id=training.id))
        gap = {"matrix": "course", "seed": cell.seed, "model": cell.ft}
        gaps += [gap | {"reason": reason, "command": command} for reason, command in missing]
    points = pd.concat(tables, ignore_index=True)
    points = points.astype({"seed": int, "trained": bool, "step": int, "value": float})
    why, every = points.groupby("run_id", sort=False)["why"].first(), several | {**trained.runs}
    runs = selection.run_table((every[run_id] for run_id in why.index), trained.current).assign(
        why=why
    )
    bases = selection.used_runs(evaluations.runs, set(points["base"]))
    runs = pd.concat([found.runs_used, runs[selection.USED_COLUMNS], bases])
    return points[POINT_COLUMNS], runs, missing_table(gaps)


def _curves_of(
    source: Source, found: Improvements, cell: Any, training: StoredRun, evaluated: list[StoredRun]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the curves of a training, and what is missing: reason, command."""
    trained, model = found.evaluations.trained, parse_model(cell.model)
    if trained.training_of.get((cell.model, cell.seed)) == training.id:
        command = trained.to_evaluate(model, cell.seed, checkpoints="all")
    else:
        command = trained.to_evaluate_run(training.id, checkpoints="all")
    base, reason, remedy = _base_of(training, found.evaluations), "", command
    alike = [run for run in evaluated if base and _rows(run) == _rows(base)]
    if not evaluated:
        reason = "no checkpoints but the last are evaluated"
    elif not base:
        reason = "the checkpoints are evaluated, but not the base that they started from"
        remedy = trained.to_evaluate_base(model, cell.seed, training.tag("base_run_id"))
    elif not alike:
        reason = "the checkpoints are evaluated with another number of questions than the base"
    elif not cell.run_id and all(run.tag("checkpoints") != "all" for run in alike):
        reason = "the last checkpoint is not evaluated: the curve ends early"
    if base and alike:
        run, points = _evaluated(source, found.evaluations, alike, base.id, cell.run_id)
        command = trained.again(run.id, command)
    else:
        run, points = training, _logged(source, training, "val/")
        facts = {"rows": run.params.get("cfg.val_rows", "?"), "why": "curve: its validations"}
        points = points.assign(measured_by=VALIDATED, base="", **facts)
    points = points[points.groupby(SUITE)["step"].transform("min") == 0].sort_values("step")
    points = SUITES.to_frame(index=False).merge(points.assign(run_id=run.id))
    n = points.groupby(SUITE).size().reindex(SUITES, fill_value=0)
    if (n < 2).all():
        points, reason = points[:0], reason and f"{reason}; it has no validations from step 0 on"
    gaps = [(reason, remedy)] if reason else []
    if len(points) and (short := ["/".join(suite) for suite in SUITES[n < 2]]):
        gaps.append((f"run {run.id} has no curve of {', '.join(short)}", command))
    return points, gaps


def _base_of(training: StoredRun, evaluations: Evaluations) -> StoredRun | None:
    bases = evaluations.bases
    bases = bases[bases["seed"] == int(training.tag("seed"))]
    if training.tag("base_run_id"):
        bases = bases[bases["model_run_id"] == training.tag("base_run_id")]
    return evaluations.sources[bases.index[0]] if len(bases) else None


def _evaluated(
    source: Source, evaluations: Evaluations, runs: Sequence[StoredRun], base: str, last: str
) -> tuple[StoredRun, pd.DataFrame]:
    """Return the evaluation with most steps, the newest of equals, and its curves.

    base: its values are those of step 0; last: evaluation of the last checkpoint, which is appended
    if the run covers only some checkpoints.
    """
    tables = {run.id: _logged(source, run) for run in runs}
    run = max(runs, key=lambda run: tables[run.id]["step"].nunique())
    points, end = [tables[run.id]], evaluations.sources.get(last)
    if end and _rows(end) == _rows(run) and run.tag("checkpoints") != "all":
        points.append(_logged(source, end))
    values = evaluations.values[evaluations.values["run_id"] == base]
    points.append(values.assign(step=0)[POINT])
    curves = pd.concat(points).drop_duplicates([*SUITE, "step"])
    why = f"curve: checkpoints {run.tag('checkpoints')}"
    why += f", the one with most steps of {len(runs)}" if len(runs) > 1 else ""
    return run, curves.assign(measured_by=EVALUATED, rows=_rows(run), why=why, base=base)


def _logged(source: Source, run: StoredRun, prefix: str = "") -> pd.DataFrame:
    rows = [
        (split, task, step, value)
        for split, task in SUITES
        if (metric := f"{prefix}{split}/{task}/mean") in run.metrics
        for step, value in source.curve(run.id, metric)
    ]
    return pd.DataFrame(rows, columns=POINT)


def _rows(run: StoredRun) -> str:
    return run.params.get("cfg.test_rows", "?")  # evaluations with other numbers are not comparable
