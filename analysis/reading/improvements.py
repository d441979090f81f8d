"""How well models of some fine-tunings take in Atlantis: what most analyses start from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.formulas.matrices import to_matrix
from analysis.options import Options
from analysis.reading.cells import improvement_cells
from analysis.reading.choice import choose_seeds
from analysis.reading.commands import Commands
from analysis.reading.evaluations import Evaluations, read_evaluations
from analysis.reading.source import Source
from analysis.reading.trainings import read_trainings
from analysis.result import used_runs
from worldrep.names import FINETUNINGS, ModelName

PRETRAIN = "pt1"


def finetunings(family: str) -> tuple[str, ...]:
    """Names of a family such as ftwb2, in order."""
    return tuple(ft for ft in FINETUNINGS if ft.startswith(f"{family}-"))


@dataclass(frozen=True)
class Improvements:
    """cells: one row per model, seed and task, as `improvement_cells` gives them."""

    cells: pd.DataFrame
    evaluations: Evaluations
    seeds: tuple[int, ...]
    caveats: list[str]
    commands: Commands

    def matrices(self, fts: Sequence[str], column: str = "normalised") -> dict[int, pd.DataFrame]:
        """Each seed's matrix of some fine-tunings."""
        return {seed: to_matrix(self.cells, fts, seed, column) for seed in self.seeds}

    @property
    def runs_used(self) -> pd.DataFrame:
        """The evaluations behind the cells, and why they were chosen."""
        used = {*self.cells["run_id"], *self.cells["base_evaluation_id"]} - {""}
        return used_runs(self.evaluations.runs, used)


def read_improvements(
    source: Source,
    options: Options,
    fts: Sequence[str],
    *,
    only: Collection[str] | None = None,
) -> Improvements:
    """Models that are fine-tuned from pt1, of the scale, width, world and seeds of the options.

    only: evaluations to which the choice is limited, by run id. Raises StateError when the store
    has no seed with both a base and a fine-tuned model.
    """
    names = options.names | {"pretrain": PRETRAIN}
    trainings = read_trainings(source, **names)
    evaluations = read_evaluations(source, trainings, fts, only, **names)
    seeds, caveats = choose_seeds(evaluations, options, source)
    evaluations = evaluations.of_seeds(seeds)
    commands = Commands.of(source, trainings, scale=options.scale, world=options.world)
    models = [ModelName(PRETRAIN, ft, options.width) for ft in fts]
    cells = improvement_cells(evaluations, models, seeds, commands)
    return Improvements(cells, evaluations, seeds, [*caveats, *evaluations.caveats], commands)
