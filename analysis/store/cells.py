"""One row per cell (a model, a seed, a task): its normalised improvement, or why it is missing.

All later matrices are made of these rows, and every one of them names the runs behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from analysis.statistics.matrices import specialists_of
from analysis.store.commands import Commands
from analysis.store.evaluations import Evaluations
from analysis.store.tables import MISSING_COLUMNS
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import FINETUNINGS, TASK_NAMES, ModelName

DETAILS = ["seed", "value", "normalised", "normalised_unclipped", "reason", "run_id"]


def improvement_cells(
    evaluations: Evaluations,
    models: Sequence[ModelName],
    seeds: Iterable[int],
    commands: Commands,
) -> pd.DataFrame:
    """Every cell of these models and seeds, present or not.

    Columns: model, ft, seed, task, trained, value (the model's Atlantis value), base_atlantis,
    base_standard, normalised (clipped), normalised_unclipped, run_id, model_run_id, base_run_id,
    base_evaluation_id, reason (why the cell is missing; empty if it is not), command (fills it).
    """
    runs = {(run.model, run.seed): run for run in evaluations.finetuned.reset_index().itertuples()}
    reader = _Reader(evaluations, commands)
    rows = [
        {"model": str(model), "ft": model.ft, "seed": seed, "task": task}
        | reader.cell(model, seed, task, runs.get((str(model), seed)))
        for seed in seeds
        for model in models
        for task in TASK_NAMES
    ]
    return pd.DataFrame(rows)


class _Reader:
    """Looks up the numbers of a cell, and collects what is missing."""

    def __init__(self, evaluations: Evaluations, commands: Commands) -> None:
        keys = ["run_id", "split", "task"]
        self._values = evaluations.values.set_index(keys)["value"].to_dict()
        self._evaluations = evaluations
        self._based_seeds = set(evaluations.bases["seed"])
        self._commands = commands

    def cell(self, model: ModelName, seed: int, task: str, run: Any) -> dict[str, object]:
        gaps: dict[str, str] = {}  # reason -> command
        value = atlantis = standard = math.nan
        if run is None:
            if seed not in self._based_seeds:
                gaps["its base is not evaluated"] = self._commands.evaluate(model.base, seed)
            gaps["the model is not evaluated"] = self._commands.evaluate(model, seed)
        else:
            value = self._value(run.run_id, "atlantis", task, gaps)
            if run.base_fault:
                command = self._commands.evaluate_base(model, seed, run.base_run_id)
                gaps[run.base_fault] = command
            else:
                atlantis = self._value(run.base_evaluation_id, "atlantis", task, gaps)
                standard = self._value(run.base_evaluation_id, "standard", task, gaps)
        accuracy = TASKS[task].accuracy
        numbers = (value, atlantis, standard)
        return {
            "trained": task in model.tasks,
            "value": value,
            "base_atlantis": atlantis,
            "base_standard": standard,
            "normalised": normalized_improvement(*numbers, accuracy),
            "normalised_unclipped": normalized_improvement(*numbers, accuracy, clip=False),
            "run_id": run.run_id if run else "",
            "model_run_id": run.model_run_id if run else "",
            "base_run_id": self._base_run_id(run) if run else "",
            "base_evaluation_id": run.base_evaluation_id if run else "",
            "reason": "; ".join(gaps),
            "command": " && ".join(dict.fromkeys(gaps.values())),
        }

    def _value(self, run_id: str, split: str, task: str, gaps: dict[str, str]) -> float:
        value = self._values.get((run_id, split, task), math.nan)
        if not math.isfinite(value):
            name = f"{split}/{task}/mean"
            reason, command = self._evaluations.gap(run_id, [name], self._commands)
            gaps[reason] = command
        return value

    def _base_run_id(self, run: Any) -> str:
        return self._evaluations.runs["model_run_id"].get(run.base_evaluation_id, run.base_run_id)


def missing_cells(cells: pd.DataFrame, matrix: str, fts: Sequence[str]) -> pd.DataFrame:
    """The missing cells of some fine-tunings' matrix, with the columns MISSING_COLUMNS."""
    missing = cells[cells["ft"].isin(fts) & (cells["reason"] != "")]
    return missing.assign(matrix=matrix, model=missing["ft"])[MISSING_COLUMNS]


def missing_expected(
    cells: pd.DataFrame, matrix: str, fts: Sequence[str], *, actual: bool
) -> pd.DataFrame:
    """The missing cells of an expected matrix, explained by those that they are computed from.

    actual: of the difference between the actual matrix and the expected one instead.
    """
    gaps = cells[cells["reason"] != ""].set_index(["seed", "ft", "task"])[["reason", "command"]]
    reasons, commands = gaps["reason"].to_dict(), gaps["command"].to_dict()
    rows = []
    for seed in cells["seed"].unique():
        for ft in fts:
            needed = (*specialists_of(FINETUNINGS[ft], ft), *((ft,) if actual else ()))
            for task in TASK_NAMES:
                keys = [(seed, name, task) for name in needed if (seed, name, task) in reasons]
                if keys:
                    reason = "; ".join(f"{key[1]}: {reasons[key]}" for key in keys)
                    command = " && ".join(dict.fromkeys(commands[key] for key in keys))
                    rows.append((matrix, seed, ft, task, reason, command))
    return pd.DataFrame(rows, columns=MISSING_COLUMNS)
