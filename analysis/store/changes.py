"""One row per cell (a model, a seed, a standard task): how far it changed from its own base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.statistics.forgetting import normalized_change, raw_change
from analysis.store.evaluations import Improvements
from worldrep.data.tasks import TASKS
from worldrep.names import parse_model

NO_LOGARITHM = "an error of 0 has no logarithm; the raw change is known"

Values = Mapping[tuple[str, str, str], float]  # (run id, split, task) -> mean


def change_cells(found: Improvements) -> pd.DataFrame:
    """The standard values of the models of some improvement cells, and of their bases.

    Columns: model, ft, seed, task, unit, trained, before (the base), after, raw_change,
    normalised_change (negative is forgotten), run_id, model_run_id, base_run_id,
    base_evaluation_id, reason (why the normalised change is missing; empty if it is not), command.
    """
    values = standard_values(found)
    rows = [_row(cell, found, values) for cell in found.cells.itertuples()]
    return pd.DataFrame(rows)


def standard_values(found: Improvements) -> Values:
    """Means of all suites of the evaluations that are used."""
    table = found.evaluations.values
    return table.set_index(["run_id", "split", "task"])["value"].to_dict()


def _row(cell: Any, found: Improvements, values: Values) -> dict[str, object]:
    before = values.get((cell.base_evaluation_id, "standard", cell.task), math.nan)
    after = values.get((cell.run_id, "standard", cell.task), math.nan)
    change = normalized_change(after, before, TASKS[cell.task].accuracy)
    gaps = {} if math.isfinite(change) else _gaps(cell, found, before, after)
    kept = ("model", "ft", "seed", "task", "trained")
    runs = ("run_id", "model_run_id", "base_run_id", "base_evaluation_id")
    return {
        **{name: getattr(cell, name) for name in kept},
        "unit": TASKS[cell.task].unit,
        "before": before,
        "after": after,
        "raw_change": raw_change(after, before),
        "normalised_change": change,
        **{name: getattr(cell, name) for name in runs},
        "reason": "; ".join(gaps),
        "command": " && ".join(dict.fromkeys(filter(None, gaps.values()))),
    }


def _gaps(cell: Any, found: Improvements, before: float, after: float) -> dict[str, str]:
    """Why a cell has no change: reason -> command."""
    if not cell.run_id:
        return {cell.reason: cell.command}
    gaps = {}
    evaluations, commands = found.evaluations, found.trained.commands
    if not cell.base_evaluation_id:
        fault = evaluations.runs["base_fault"][cell.run_id]
        model = parse_model(cell.model)
        gaps[fault] = commands.evaluate_base(model, cell.seed, cell.base_run_id)
    for run_id, value in ((cell.run_id, after), (cell.base_evaluation_id, before)):
        if run_id and not math.isfinite(value):
            name = f"standard/{cell.task}/mean"
            reason, command = evaluations.gap(run_id, [name], commands)
            gaps[reason] = command
    return gaps or {NO_LOGARITHM: ""}
