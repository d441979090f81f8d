"""Strategies of fine-tuning compared, over the models that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pandas as pd

from analysis.forgetting.reading import Finetuned
from analysis.forgetting.statistics import halfway_table, mean_curves, mean_over_tasks
from analysis.store.missing import missing_cells
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement, spread_of
from worldrep.names import FINETUNINGS, STRATEGIES, parse_model

MODEL = ["strategy", "ft", "seed"]
QUANTITIES = ["gain", "trained", "transfer", "change", "retention", "halfway_share"]


@dataclass(frozen=True)
class Comparison:
    """Strategies against one another.

    Attributes:
        fts: The fine-tunings that are compared: those that every strategy has.
        models: One row per strategy, ft and seed, found or not: QUANTITIES, label, model, run_id.
        curves: Mean curves by strategy, of `mean_by_share`.
    """

    fts: tuple[str, ...]
    models: pd.DataFrame
    curves: pd.DataFrame

    @property
    def in_words(self) -> str:
        """Which models the means are over."""
        n = len(self.fts)
        return f"the model {self.fts[0]}" if n == 1 else f"the same {n} models"

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """One row per strategy and seed: means over all models, NaN where one is missing."""
        groups = self.models.groupby(["strategy", "seed"], sort=False, observed=True)[QUANTITIES]
        return groups.mean().where(groups.count().eq(groups.size(), axis=0)).reset_index()

    @cached_property
    def over_seeds(self) -> pd.DataFrame:
        """One row per strategy and quantity: mean, std (ddof=1), n, 95% interval, missing."""
        rows = []
        for strategy, own in self.seeds.groupby("strategy", sort=False, observed=True):
            for name in QUANTITIES:
                spread = spread_of(own[name].dropna().to_numpy())
                known = {"strategy": strategy, "quantity": name}
                rows.append(known | asdict(spread) | {"missing": len(own) - spread.n})
        return pd.DataFrame(rows)

    @property
    def mean_curves(self) -> pd.DataFrame:
        """The curves averaged over seeds; n: number of seeds."""
        groups = self.curves.groupby(["strategy", "split", "place"], sort=False)
        return groups[["share", "normalised"]].mean().assign(n=groups.size()).reset_index()

    @property
    def statistics(self) -> dict[str, Any]:
        """Statistics by strategy and quantity."""
        facts: dict[str, Any] = {"models": list(self.fts)}
        for row in self.over_seeds.to_dict("records"):
            facts.setdefault(row.pop("strategy"), {})[row.pop("quantity")] = row
        return facts


def compare(every: Mapping[str, Finetuned]) -> Comparison | None:
    """Compare strategies, or return None if fewer than two of them have a model in common."""
    evaluated = _evaluated(every)
    fts = tuple(ft for ft in FINETUNINGS if all(ft in own for own in evaluated.values()))
    if len(every) < 2 or not fts:
        return None
    curves = _mean_curves(every)
    cells = pd.concat([own.cells.assign(strategy=name) for name, own in every.items()])
    cells = cells[cells["ft"].isin(fts)]
    wanted = pd.DataFrame(product(every, fts, sorted(set(cells["seed"]))), columns=MODEL)
    models = wanted.merge(_by_model(cells), how="left", on=MODEL)
    models = models.merge(_halfway_shares(curves), how="left", on=MODEL)
    models["label"] = models["ft"] + "+" + models["strategy"]
    models["strategy"] = pd.Categorical(models["strategy"], STRATEGIES)
    return Comparison(fts, models, mean_by_share(curves, fts))


def _evaluated(every: Mapping[str, Finetuned]) -> dict[str, set[str]]:
    return {
        name: set(own.cells.loc[own.cells["run_id"] != "", "ft"]) for name, own in every.items()
    }


def _mean_curves(every: Mapping[str, Finetuned]) -> pd.DataFrame:
    """The mean over tasks of every curve, with its strategy."""
    points = {name: own.curves.points for name, own in every.items()}
    known = {name: own for name, own in points.items() if len(own)} or points
    parts = [mean_curves(own).assign(strategy=name) for name, own in known.items()]
    return pd.concat(parts, ignore_index=True)


def _by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """Means of each strategy, ft and seed over the seven tasks; NaN where a task is missing.

    trained and transfer are means of the normalised improvement over the tasks that were and were
    not trained on; model and run_id are kept.
    """
    cells = cells.assign(retention=[_retention(cell) for cell in cells.itertuples()])
    groups = cells.groupby(MODEL, sort=False)
    means = {
        "change": mean_over_tasks(cells, MODEL, "normalised_change"),
        "gain": mean_over_tasks(cells, MODEL, "normalised"),
        "trained": mean_over_tasks(cells[cells["trained"]], MODEL, "normalised"),
        "transfer": mean_over_tasks(cells[~cells["trained"]], MODEL, "normalised"),
        "retention": mean_over_tasks(cells, MODEL, "retention"),
        "model": groups["model"].first(),
        "run_id": groups["run_id"].first(),
    }
    return pd.DataFrame(means).reset_index()


def _retention(cell: Any) -> float:
    """The formula of the normalised improvement for a standard value: 1 is the base's own."""
    numbers = (cell.after, cell.base_atlantis, cell.base_standard)
    return normalized_improvement(*numbers, TASKS[cell.task].accuracy)


def _halfway_shares(curves: pd.DataFrame) -> pd.DataFrame:
    """halfway_share of the mean over tasks on standard questions, by MODEL."""
    halves = halfway_table(curves)
    halves["strategy"] = [parse_model(model).strategy for model in halves["model"]]
    return halves.loc[halves["split"] == "standard", [*MODEL, "halfway_share"]]


def mean_by_share(curves: pd.DataFrame, fts: Sequence[str]) -> pd.DataFrame:
    """Average the curves of the models of each strategy, seed and split, by share of the training.

    A point is identified by its place in its curve, and left out where not every model has it.

    Args:
        curves: Points of `mean_curves`, with strategy.
        fts: The models.

    Returns:
        Columns strategy, seed, split, place, share, normalised.
    """
    own = curves[curves["ft"].isin(fts)].dropna(subset=["normalised"]).sort_values("step")
    steps = own.groupby(["strategy", "seed", "split", "ft"], sort=False)["step"]
    own = own.assign(share=own["step"] / steps.transform("max"), place=steps.cumcount())
    groups = own.groupby(["strategy", "seed", "split", "place"], sort=False)
    return groups[["share", "normalised"]].mean()[groups.size() == len(fts)].reset_index()


def missing(every: Mapping[str, Finetuned], fts: Sequence[str]) -> pd.DataFrame:
    """Tabulate the cells that each strategy lacks, of the models that are compared."""
    tables = [
        missing_cells(cells, f"{kind}_{name}", fts)
        for name, own in every.items()
        for kind, cells in (("change", own.cells), ("gain", own.found.cells))
    ]
    return pd.concat(tables, ignore_index=True)


def caveats(every: Mapping[str, Finetuned], fts: Sequence[str]) -> list[str]:
    """Say which models are compared, and which are not."""
    said = [f"strategies are compared by the models that all of them have: {', '.join(fts)}"]
    others = set().union(*_evaluated(every).values()) - set(fts)
    if others:
        left_out = ", ".join(ft for ft in FINETUNINGS if ft in others)
        said.append(
            f"left out of the comparison of strategies, as one of them lacks it: {left_out}"
        )
    return said
