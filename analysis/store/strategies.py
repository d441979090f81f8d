"""The strategies of fine-tuning that the store has, for the models that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import pandas as pd

from analysis.options import Options
from analysis.statistics.courses import halfway_table, mean_courses
from analysis.statistics.strategies import (
    MODEL,
    by_model,
    by_seed,
    mean_by_share,
    quantities_over_seeds,
    retention,
)
from analysis.store.checkpoint_courses import POINT_COLUMNS, Courses, read_courses
from analysis.store.evaluations import PRETRAIN
from analysis.store.forgotten import Changes, read_changes
from analysis.store.missing import missing_cells, missing_table
from analysis.store.selection import USED_COLUMNS, NothingThere
from analysis.store.source import Source
from worldrep.names import FINETUNINGS, STRATEGIES, parse_model


@dataclass(frozen=True)
class Compared:
    """Strategies against one another; all is empty where the store has fewer than two.

    models: one row per strategy, ft and seed, as of `by_model`, with label, model, run_id and
    halfway_share, the share of the training after which half of the forgetting had happened; seeds:
    their means over models; courses: as of `mean_by_share`; fts: the models that are compared.
    """

    models: pd.DataFrame
    seeds: pd.DataFrame
    courses: pd.DataFrame
    fts: tuple[str, ...]
    missing: pd.DataFrame
    runs: pd.DataFrame
    caveats: list[str] = field(default_factory=list)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        if self.models.empty:
            return {}
        return {"strategies_over_seeds": quantities_over_seeds(self.seeds)}

    @property
    def statistics(self) -> Mapping[str, Any]:
        """By strategy and quantity."""
        if self.models.empty:
            return {}
        facts: dict[str, Any] = {"models": list(self.fts)}
        for row in self.tables["strategies_over_seeds"].to_dict("records"):
            facts.setdefault(row.pop("strategy"), {})[row.pop("quantity")] = row
        return {"strategies": facts}


@dataclass(frozen=True)
class _Tuned:
    """What was read of one strategy. cells: of `change_cells`, with what `by_model` needs."""

    changes: Changes
    cells: pd.DataFrame
    courses: Courses

    @property
    def evaluated(self) -> set[str]:
        return set(self.cells.loc[self.cells["run_id"] != "", "ft"])


def read_compared(source: Source, options: Options, changes: Changes, courses: Courses) -> Compared:
    """The strategies of what is fine-tuned from pt1, of the options' scale, width, world and seeds;
    of the models that every strategy has. changes, courses: of the options' own strategy."""
    names = options.names | {"pretrain": PRETRAIN}
    found = source.strategies(stage="evaluate", **names)
    if len(found) < 2:
        return _nothing()
    tuned: dict[str, _Tuned] = {}
    for strategy in found:
        if strategy == options.strategy:
            tuned[strategy] = _tuned(strategy, changes, courses)
            continue
        with suppress(NothingThere):
            other = source.tuned_by(strategy)
            changes_of = read_changes(other, replace(options, strategy=strategy))
            courses_of = read_courses(other, changes_of.found, names)
            tuned[strategy] = _tuned(strategy, changes_of, courses_of)
    fts = tuple(ft for ft in FINETUNINGS if all(ft in one.evaluated for one in tuned.values()))
    if len(tuned) < 2 or not fts:
        return _nothing()
    points = _mean_points(tuned)
    models = _models(tuned, points, fts)
    used = [one.changes.found.runs_used for one in tuned.values()]
    used += [one.courses.runs for one in tuned.values()]
    return Compared(
        models=models,
        seeds=by_seed(models),
        courses=mean_by_share(points, fts),
        fts=fts,
        missing=_missing(tuned, fts),
        runs=pd.concat(used),
        caveats=_caveats(tuned, fts),
    )


def _nothing() -> Compared:
    none = pd.DataFrame()
    runs = pd.DataFrame(columns=USED_COLUMNS, index=pd.Index([], name="run_id", dtype=object))
    return Compared(none, none, none, (), missing_table([]), runs)


def _tuned(strategy: str, changes: Changes, courses: Courses) -> _Tuned:
    kept = ["ft", "seed", "task", "normalised", "base_atlantis", "base_standard"]
    cells = changes.cells.merge(changes.gains[kept], on=["ft", "seed", "task"])
    cells["retention"] = [retention(cell) for cell in cells.itertuples()]
    return _Tuned(changes, cells.assign(strategy=strategy), courses)


def _caveats(tuned: Mapping[str, _Tuned], fts: tuple[str, ...]) -> list[str]:
    caveats = [f"strategies are compared by the models that all of them have: {', '.join(fts)}"]
    others = {ft for one in tuned.values() for ft in one.evaluated} - set(fts)
    if others:
        left_out = ", ".join(ft for ft in FINETUNINGS if ft in others)
        caveats.append(
            f"left out of the comparison of strategies, as one of them lacks it: {left_out}"
        )
    return caveats


def _models(
    tuned: Mapping[str, _Tuned], points: pd.DataFrame, fts: tuple[str, ...]
) -> pd.DataFrame:
    """Every strategy, model and seed, there or not."""
    cells = pd.concat([one.cells for one in tuned.values()], ignore_index=True)
    cells = cells[cells["ft"].isin(fts)]
    seeds = sorted(set(cells["seed"]))
    asked = pd.DataFrame(product(tuned, fts, seeds), columns=MODEL)
    runs = cells.groupby(MODEL, sort=False)[["model", "run_id"]].first().reset_index()
    models = asked.merge(by_model(cells), how="left", on=MODEL).merge(runs, how="left", on=MODEL)
    models = models.merge(_halves(points), how="left", on=MODEL)
    models["label"] = models["ft"] + "+" + models["strategy"]
    models["strategy"] = pd.Categorical(models["strategy"], STRATEGIES)
    return models


def _halves(points: pd.DataFrame) -> pd.DataFrame:
    """halfway_share of the mean over tasks on standard questions, by MODEL."""
    halves = halfway_table(points)
    halves["strategy"] = [parse_model(model).strategy for model in halves["model"]]
    return halves.loc[halves["split"] == "standard", [*MODEL, "halfway_share"]]


def _mean_points(tuned: Mapping[str, _Tuned]) -> pd.DataFrame:
    """The mean over tasks of every model's course, by step; empty if there are no courses."""
    parts = [
        mean_courses(one.courses.points).assign(strategy=strategy)
        for strategy, one in tuned.items()
        if not one.courses.points.empty
    ]
    columns = [*POINT_COLUMNS, "strategy"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _missing(tuned: Mapping[str, _Tuned], fts: tuple[str, ...]) -> pd.DataFrame:
    tables = []
    for strategy, one in tuned.items():
        for kind, cells in (("change", one.cells), ("gain", one.changes.gains)):
            tables.append(missing_cells(cells, f"{kind}_{strategy}", fts))
    return pd.concat(tables, ignore_index=True)
