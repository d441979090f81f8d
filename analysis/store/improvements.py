"""How well models of some fine-tunings take in Atlantis: what most analyses start from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.options import Options
from analysis.statistics.matrices import to_matrix
from analysis.store.cells import improvement_cells
from analysis.store.choice import choose_seeds
from analysis.store.evaluations import Evaluations, read_evaluations
from analysis.store.source import Source
from analysis.store.tables import used_runs
from analysis.store.trainings import Trained
from worldrep.names import ModelName

PRETRAIN = "pt1"


@dataclass(frozen=True)
class Improvements:
    """cells: one row per model, seed and task, as `improvement_cells` gives them."""

    cells: pd.DataFrame
    evaluations: Evaluations
    seeds: tuple[int, ...]
    caveats: list[str]
    trained: Trained

    def matrices(self, fts: Sequence[str]) -> dict[int, pd.DataFrame]:
        """Each seed's matrix of some fine-tunings."""
        return {seed: to_matrix(self.cells, fts, seed) for seed in self.seeds}

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

    only: evaluations to which the choice is limited, by run id. Raises NothingThere when the store
    has no seed with both a base and a fine-tuned model.
    """
    names = options.names | {"pretrain": PRETRAIN}
    trained = Trained.read(source, options, pretrain=PRETRAIN)
    evaluations = read_evaluations(source, trained, fts, only, **names)
    seeds, caveats = choose_seeds(evaluations, options, source)
    evaluations = evaluations.of_seeds(seeds)
    models = [ModelName(PRETRAIN, ft, options.width, options.strategy) for ft in fts]
    cells = improvement_cells(evaluations, models, seeds, trained.commands)
    caveats = [*source.caveats, *caveats, *evaluations.caveats]
    return Improvements(cells, evaluations, seeds, caveats, trained)
