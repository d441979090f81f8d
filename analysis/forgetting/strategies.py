"""Strategies of fine-tuning compared, over the models that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import pandas as pd

from analysis.forgetting.reading import Finetuned
from analysis.forgetting.statistics import (
    halfway_table,
    mean_by_model,
    mean_curves,
)
from analysis.statistics.spread import over_seeds
from analysis.store.missing import missing_cells
from worldrep.names import FINETUNINGS, STRATEGIES, parse_model

MODEL = ["strategy", "ft", "seed"]
QUANTITIES = ["gain", "trained", "transfer", "change", "retention", "halfway_share"]
SPREAD = ["mean", "std", "n", "low", "high", "missing"]


@dataclass(frozen=True)
class Comparison:
    """Strategies against one another.

    Attributes:
        fts: The fine-tunings that are compared: those that every strategy has.
        left_out: Those that only some strategies have.
        models: One row per strategy, ft and seed, found or not: QUANTITIES, label, model, run_id.
        curves: One row per strategy, seed, split and place in the curve: share of the training,
            normalised value.
        missing: Cells that a strategy lacks.
    """

    fts: tuple[str, ...]
    left_out: tuple[str, ...]
    models: pd.DataFrame
    curves: pd.DataFrame
    missing: pd.DataFrame

    @property
    def models_in_words(self) -> str:
        """Which models the means are over."""
        n = len(self.fts)
        return f"the model {self.fts[0]}" if n == 1 else f"the same {n} models"

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """One row per strategy and seed: means over all models, NaN where one is missing."""
        groups = self.models.groupby(["strategy", "seed"], sort=False, observed=True)
        return groups[QUANTITIES].mean(skipna=False).reset_index()

    @cached_property
    def over_seeds(self) -> pd.DataFrame:
        """One row per strategy and quantity: SPREAD."""
        values = self.seeds.melt(["strategy", "seed"], QUANTITIES, "quantity")
        table = over_seeds(values, ["strategy", "quantity"], "value")
        return table.sort_values("strategy", kind="stable")[["strategy", "quantity", *SPREAD]]

    @property
    def caveats(self) -> list[str]:
        """Which models are compared, and which are not."""
        said = [
            f"strategies are compared by the models that all of them have: {', '.join(self.fts)}"
        ]
        left_out = ", ".join(self.left_out)
        text = f"left out of the comparison of strategies, as one of them lacks it: {left_out}"
        return [*said, text] if left_out else said


def compare(every: Mapping[str, Finetuned]) -> Comparison | None:
    """Compare strategies, or return None if fewer than two of them have a model in common."""
    evaluated = [set(own.cells.loc[own.cells["run_id"] != "", "ft"]) for own in every.values()]
    there = [ft for ft in FINETUNINGS if any(ft in own for own in evaluated)]
    fts = tuple(ft for ft in there if all(ft in own for own in evaluated))
    if len(every) < 2 or not fts:
        return None
    curves = mean_curves(pd.concat([own.points for own in every.values()]))
    curves["strategy"] = _strategies(curves)
    missing = [
        missing_cells(cells, f"{kind}_{strategy}", fts)
        for strategy, own in every.items()
        for kind, cells in (("change", own.cells), ("gain", own.found.cells))
    ]
    return Comparison(
        fts=fts,
        left_out=tuple(ft for ft in there if ft not in fts),
        models=_models(every, fts, curves),
        curves=_by_share(curves[curves["ft"].isin(fts)], len(fts)),
        missing=pd.concat(missing, ignore_index=True),
    )


def _models(
    every: Mapping[str, Finetuned], fts: tuple[str, ...], curves: pd.DataFrame
) -> pd.DataFrame:
    cells = pd.concat([own.cells[own.cells["ft"].isin(fts)] for own in every.values()])
    wanted = pd.DataFrame(product(every, fts, sorted(set(cells["seed"]))), columns=MODEL)
    halfway = halfway_table(curves[curves["split"] == "standard"])
    halfway = halfway[["model", "seed", "halfway_share"]]
    found = mean_by_model(cells).merge(halfway, "left", ["model", "seed"])
    models = wanted.merge(found.assign(strategy=_strategies(found)), "left", MODEL)
    models["label"] = models["ft"] + "+" + models["strategy"]
    models["strategy"] = pd.Categorical(models["strategy"], STRATEGIES)
    return models


def _strategies(table: pd.DataFrame) -> list[str]:
    return [parse_model(model).strategy for model in table["model"]]


def _by_share(curves: pd.DataFrame, n_models: int) -> pd.DataFrame:
    """Average the curves of the models of each strategy, seed and split, by share of the training.

    A point is identified by its place in its curve, and left out where not every model has it.
    """
    own = curves.dropna(subset=["normalised"]).sort_values("step")
    steps = own.groupby(["strategy", "seed", "split", "ft"], sort=False)["step"]
    own = own.assign(share=own["step"] / steps.transform("max"), place=steps.cumcount())
    groups = own.groupby(["strategy", "seed", "split", "place"], sort=False)
    return groups[["share", "normalised"]].mean()[groups.size() == n_models].reset_index()
