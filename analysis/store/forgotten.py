"""How far the fine-tunings of the store changed their bases, and what they gained for that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from analysis.options import Options
from analysis.statistics.pareto import mean_over_tasks
from analysis.store.changes import change_cells
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.source import Source
from worldrep.names import FAMILIES, FINETUNINGS, finetunings


@dataclass(frozen=True)
class Changes:
    """gains: one row per cell, as `improvement_cells` gives them; cells: as `change_cells` does."""

    found: Improvements
    cells: pd.DataFrame
    gains: pd.DataFrame
    families: tuple[str, ...]


def read_changes(source: Source, options: Options) -> Changes:
    """The standard changes and the Atlantis gains of the families that the store has."""
    found = read_improvements(source, options, tuple(FINETUNINGS))
    trained = {
        model.rpartition("_")[2] for model, seed in found.trained.standing if seed in found.seeds
    }
    there = trained | set(found.evaluations.finetuned["ft"])
    families = tuple(family for family in FAMILIES if there & set(finetunings(family)))
    drawn = found.cells["ft"].isin([ft for family in families for ft in finetunings(family)])
    found = replace(found, cells=found.cells[drawn])
    return Changes(found, change_cells(found), found.cells, families)


def plane_points(changes: Changes) -> pd.DataFrame:
    """One row per model and seed that is evaluated or missing: means over the seven tasks.

    Columns: model, ft, seed, change (normalised, on standard questions), gain (normalised, on
    Atlantis), run_id.
    """
    keys = ["model", "ft", "seed"]
    change = mean_over_tasks(changes.cells, keys, "normalised_change").rename("change")
    gain = mean_over_tasks(changes.gains, keys, "normalised").rename("gain")
    runs = changes.cells.groupby(keys, sort=False)["run_id"].first()
    return pd.concat([change, gain, runs], axis=1).reset_index()
