"""Evaluations and the normalised improvements that follow from them, as tidy tables.

Only finished evaluations of one scale, width, world and pretraining, at the last checkpoint, are
read. Each fine-tuned model is compared with the base that it started from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.options import Options
from analysis.statistics.matrices import to_matrix
from analysis.store.caveats import (
    base_caveats,
    currency_caveats,
    duplicate_caveats,
    seed_caveats,
    setting_caveats,
    unnamed_caveats,
    weak_base_caveats,
)
from analysis.store.missing import Commands, explained, missing
from analysis.store.selection import (
    LAST,
    NothingThere,
    Trained,
    choose,
    nothing_of,
    run_table,
    used_runs,
)
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import NO_FT, TASK_NAMES, ModelName
from worldrep.tracking import StoredRun

PRETRAIN = "pt1"
SPLITS = ("standard", "atlantis", "multi")
VALUE_COLUMNS = ["model", "ft", "seed", "split", "task", "value", "run_id"]
NUMBERS = (  # of a cell: column, the evaluation that has it, split
    ("value", "run_id", "atlantis"),
    ("base_atlantis", "base_evaluation_id", "atlantis"),
    ("base_standard", "base_evaluation_id", "standard"),
)
CELL_COLUMNS = [
    "model", "ft", "seed", "task", "trained", "value", "base_atlantis", "base_standard",
    "normalised", "normalised_unclipped", "run_id", "model_run_id", "base_run_id",
    "base_evaluation_id", "reason", "command",
]  # fmt: skip


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of some fine-tunings and their bases.

    values: one row per run, split and task, with VALUE_COLUMNS; runs: table of `choose` with
    base_evaluation_id (the evaluation of the base, or empty) and base_fault (why there is none, or
    empty); sources: run id -> run. A base may be chosen several times for one seed: once for each
    of its trainings.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    sources: Mapping[str, StoredRun]

    @property
    def bases(self) -> pd.DataFrame:
        """The chosen evaluations of bases."""
        return self.runs[self.runs["chosen"] & (self.runs["ft"] == NO_FT)]

    @property
    def finetuned(self) -> pd.DataFrame:
        """The chosen evaluations of fine-tuned models."""
        return self.runs[self.runs["chosen"] & (self.runs["ft"] != NO_FT)]

    @property
    def caveats(self) -> list[str]:
        """Sentences that a reader of the numbers has to know."""
        chosen = [self.sources[run_id] for run_id in self.runs.index[self.runs["chosen"]]]
        return [
            *duplicate_caveats(self.runs, "evaluation", self.sources),
            *currency_caveats(self.runs),
            *base_caveats(self.runs),
            *weak_base_caveats(self.sources[run_id] for run_id in self.bases.index),
            *setting_caveats(chosen),
        ]

    def of_seeds(self, seeds: Collection[int]) -> Evaluations:
        """Return the evaluations of these seeds alone."""
        values, runs = (table[table["seed"].isin(seeds)] for table in (self.values, self.runs))
        return Evaluations(values, runs, self.sources)

    def gap(self, run_id: str, names: Iterable[str], commands: Commands) -> tuple[str, str]:
        """Return why an evaluation lacks some numbers, and the command that computes them."""
        again = commands.evaluate_run(self.runs["model_run_id"][run_id])
        reason = f"evaluation {run_id} has no number {', '.join(names)}"
        return reason, commands.again(run_id, again)


def read_evaluations(
    source: Source,
    trained: Trained,
    fts: Collection[str],
    only: Collection[str] | None = None,
    **names: str,
) -> Evaluations:
    """Read the evaluations of some fine-tunings and of their bases.

    only: run ids to choose from; names: tags of the evaluations (scale, width, world, pretrain).
    Raises StateError if the store cannot be read.
    """
    found = {
        run.id: run
        for run in source.runs(stage="evaluate", **names)
        if run.tag("checkpoints") == LAST
        and run.tag("ft") in (NO_FT, *fts)
        and (only is None or run.id in only)
    }
    runs = run_table(found.values(), trained.current)
    # Of a base, one evaluation of each training is chosen: models may start from different ones.
    runs["training"] = runs["model_run_id"].where(runs["ft"] == NO_FT, "")
    runs = choose(runs, "evaluation", keys=("model", "seed", "training")).drop(columns="training")
    runs = _with_bases(runs)
    chosen = [found[run_id] for run_id in runs.index[runs["chosen"]]]
    return Evaluations(_value_table(chosen), runs, found)


def _with_bases(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the evaluation of each fine-tuned model's base, or the reason why there is none."""
    bases = runs[runs["chosen"] & (runs["ft"] == NO_FT)]
    found = [
        ("", "") if run.ft == NO_FT else _base_of(run, bases[bases["seed"] == run.seed])
        for run in runs.itertuples()
    ]
    ids, faults = zip(*found, strict=True) if found else ((), ())
    return runs.assign(base_evaluation_id=list(ids), base_fault=list(faults))


def _base_of(run: Any, bases: pd.DataFrame) -> tuple[str, str]:
    """Return the evaluation of a model's base, or why there is none. bases: of the same seed."""
    own = bases.index[bases["model_run_id"] == run.base_run_id]
    if len(own):
        return own[0], ""
    if bases.empty:
        return "", "its base is not evaluated"
    if not run.base_run_id:
        return "", "it does not say which base it started from"
    others = ", ".join(sorted(bases["model_run_id"]))
    return "", f"its base (run {run.base_run_id}) is not evaluated, only another one ({others})"


def _value_table(runs: Iterable[StoredRun]) -> pd.DataFrame:
    rows = [
        (run.tag("model"), run.tag("ft"), int(run.tag("seed")), split, task,
         run.metrics[f"{split}/{task}/mean"], run.id)
        for run, split, task in product(runs, SPLITS, TASK_NAMES)
        if f"{split}/{task}/mean" in run.metrics
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=VALUE_COLUMNS).astype({"seed": int, "value": float})


def choose_seeds(
    evaluations: Evaluations, options: Options, source: Source
) -> tuple[tuple[int, ...], list[str]]:
    """Return the seeds of the options, else all with a fine-tuned model; and caveats about them.

    Raises NothingThere if no seed has both a base and a fine-tuned model.
    """
    based, tuned = set(evaluations.bases["seed"]), set(evaluations.finetuned["seed"])
    asked = set(options.seeds) or tuned
    if evaluations.runs.empty:
        raise nothing_of("finished evaluation", "evaluate", options, source)
    if not asked & based & tuned:
        has = (("bases", based), ("fine-tuned models", tuned))
        found = "; ".join(f"{what} of seeds {_listed(seeds) or 'none'}" for what, seeds in has)
        of_seeds = f" for seeds {_listed(options.seeds)}" if options.seeds else ""
        raise NothingThere(
            f"{source.place} lacks a base and a model fine-tuned from it{of_seeds} "
            f"({options.in_words}): it has {found}"
        )
    return tuple(sorted(asked)), seed_caveats(asked, based, tuned)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


# Normalised improvement


def improvement_cells(
    evaluations: Evaluations,
    models: Sequence[ModelName],
    seeds: Iterable[int],
    commands: Commands,
) -> pd.DataFrame:
    """Return one row for each model, seed and task, present or not, with CELL_COLUMNS.

    value is the model's Atlantis value, normalised its clipped improvement; reason says why the
    cell is missing (empty if it is not), and command computes it.
    """
    wanted = [
        (str(model), model.ft, seed, task, task in model.tasks, model)
        for seed, model, task in product(seeds, models, TASK_NAMES)
    ]
    cells = pd.DataFrame(wanted, columns=[*CELL_COLUMNS[:5], "name"])
    runs = evaluations.finetuned.reset_index().drop(columns=["run_name", "ft", "ended", "why"])
    cells = cells.merge(runs, how="left", on=["model", "seed"])
    texts = ["run_id", "model_run_id", "base_run_id", "base_evaluation_id", "base_fault"]
    cells[texts] = cells[texts].fillna("")
    trainings = cells["base_evaluation_id"].map(evaluations.runs["model_run_id"])
    cells["base_run_id"] = trainings.fillna(cells["base_run_id"])
    for column, evaluation, split in NUMBERS:
        own = evaluations.values[evaluations.values["split"] == split]
        own = own[["run_id", "task", "value"]].set_axis([evaluation, "task", column], axis=1)
        cells = cells.merge(own, how="left", on=[evaluation, "task"])
    accuracies = [TASKS[task].accuracy for task in cells["task"]]
    numbers = cells["value"], cells["base_atlantis"], cells["base_standard"]
    rows = list(zip(*numbers, accuracies, strict=True))
    cells["normalised"] = [normalized_improvement(*row) for row in rows]
    cells["normalised_unclipped"] = [normalized_improvement(*row, clip=False) for row in rows]
    gaps = _gaps(cells, evaluations, commands)
    return explained(cells, gaps, ["model", "seed", "task"])[CELL_COLUMNS]


def _gaps(
    cells: pd.DataFrame, evaluations: Evaluations, commands: Commands
) -> Iterable[pd.DataFrame]:
    """Yield what the cells need and the store lacks: models, bases, and numbers of evaluations."""

    def base(cell: Any) -> tuple[str, str]:
        return "its base is not evaluated", commands.evaluate(cell.name.base, cell.seed)

    def model(cell: Any) -> tuple[str, str]:
        return "the model is not evaluated", commands.evaluate(cell.name, cell.seed)

    def own_base(cell: Any) -> tuple[str, str]:
        command = commands.evaluate_base(cell.name, cell.seed, cell.base_run_id)
        return cell.base_fault, command

    def number(need: Any) -> tuple[str, str]:
        return evaluations.gap(need.evaluation, [need.number], commands)

    there, based = cells["run_id"] != "", cells["base_evaluation_id"] != ""
    yield missing(cells[~there], evaluations.bases, ["seed"], base)
    yield missing(cells, evaluations.finetuned, ["model", "seed"], model)
    values = evaluations.values[np.isfinite(evaluations.values["value"])]
    names = values["split"] + "/" + values["task"] + "/mean"
    found = pd.DataFrame({"evaluation": values["run_id"], "number": names})
    for column, evaluation, split in NUMBERS:
        if column == "base_atlantis":
            yield missing(cells[there], cells[based], ["model", "seed"], own_base)
        names = f"{split}/" + cells["task"] + "/mean"
        needs = cells.assign(evaluation=cells[evaluation], number=names)
        yield missing(needs[needs["evaluation"] != ""], found, ["evaluation", "number"], number)


@dataclass(frozen=True)
class Improvements:
    """Normalised improvements of some fine-tunings. cells: table of `improvement_cells`."""

    cells: pd.DataFrame
    evaluations: Evaluations
    seeds: tuple[int, ...]
    caveats: list[str]
    trained: Trained

    def matrices(self, fts: Sequence[str]) -> dict[int, pd.DataFrame]:
        """Return the matrix of some fine-tunings for each seed."""
        return {seed: to_matrix(self.cells, fts, seed) for seed in self.seeds}

    @property
    def runs_used(self) -> pd.DataFrame:
        """The evaluations of the cells, and why they were chosen."""
        used = {*self.cells["run_id"], *self.cells["base_evaluation_id"]}
        return used_runs(self.evaluations.runs, used)


def read_improvements(
    source: Source,
    options: Options,
    fts: Sequence[str],
    *,
    only: Collection[str] | None = None,
) -> Improvements:
    """Read the improvements of models that are fine-tuned from pt1.

    only: run ids of the evaluations to choose from. Raises NothingThere if no seed has both a base
    and a fine-tuned model.
    """
    trained = Trained.read(source, options, pretrain=PRETRAIN)
    names = options.names | {"pretrain": PRETRAIN}
    evaluations = read_evaluations(source, trained, fts, only, **names)
    seeds, caveats = choose_seeds(evaluations, options, source)
    evaluations = evaluations.of_seeds(seeds)
    models = [ModelName(PRETRAIN, ft, options.width, options.strategy) for ft in fts]
    cells = improvement_cells(evaluations, models, seeds, trained.commands)
    caveats = [*unnamed_caveats(source.unnamed), *caveats, *evaluations.caveats]
    return Improvements(cells, evaluations, seeds, caveats, trained)
