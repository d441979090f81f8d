"""Strategies of fine-tuning compared, over the models that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import pandas as pd

from analysis.forgetting.reading import Finetuned
from analysis.forgetting.statistics import (
    halfway_table,
    mean_by_model,
    mean_curves,
)
from analysis.statistics.spread import over_seeds
from worldrep.names import FINETUNINGS, STRATEGIES, parse_model

MODEL = ["strategy", "ft", "seed"]
QUANTITIES = ["gain", "trained", "transfer", "change", "retention", "halfway_share"]
SPREAD = ["mean", "std", "n", "low", "high", "missing"]


@dataclass(frozen=True)
class Comparison:
    """Strategies against one another, by the fine-tunings `fts` that all of them have.

    models: one row per strategy, ft and seed, found or not: QUANTITIES, label, model, run_id;
    seeds: means over all models, NaN where one is missing; over_seeds: SPREAD of each strategy and
    quantity; curves: one row per strategy, seed, split and place in the curve: share of the
    training, normalised value; missing: cells that a strategy lacks.
    """

    fts: tuple[str, ...]
    models: pd.DataFrame
    seeds: pd.DataFrame
    over_seeds: pd.DataFrame
    curves: pd.DataFrame
    missing: pd.DataFrame
    caveats: list[str]


def compare(every: Mapping[str, Finetuned]) -> Comparison | None:
    """Compare strategies, or return None if fewer than two of them have a model in common."""
    evaluated = [set(own.cells.loc[own.cells["run_id"] != "", "ft"]) for own in every.values()]
    there = [ft for ft in FINETUNINGS if any(ft in own for own in evaluated)]
    fts = tuple(ft for ft in there if all(ft in own for own in evaluated))
    if len(every) < 2 or not fts:
        return None
    curves = mean_curves(pd.concat([own.points for own in every.values()]))
    curves["strategy"] = _strategies(curves)
    missing = pd.concat([own.lacking(strategy, fts) for strategy, own in every.items()])
    models = _models(every, fts, curves)
    groups = models.groupby(["strategy", "seed"], sort=False, observed=True)[QUANTITIES]
    seeds = groups.mean(skipna=False).reset_index()
    values = seeds.melt(["strategy", "seed"], QUANTITIES, "quantity")
    table = over_seeds(values, ["strategy", "quantity"], "value")
    table = table.sort_values("strategy", kind="stable")[["strategy", "quantity", *SPREAD]]
    by_share = _by_share(curves[curves["ft"].isin(fts)], len(fts))
    caveats = [f"strategies are compared by the models that all of them have: {', '.join(fts)}"]
    if left_out := ", ".join(ft for ft in there if ft not in fts):
        text = "left out of the comparison of strategies, as one of them lacks it"
        caveats.append(f"{text}: {left_out}")
    return Comparison(fts, models, seeds, table, by_share, missing, caveats)


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
