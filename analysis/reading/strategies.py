"""The strategies of fine-tuning that the store has, for the models that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pandas as pd

from analysis.formulas.courses import ALL_TASKS, halfway_table, mean_courses
from analysis.formulas.strategies import by_model, by_seed, mean_by_share, over_seeds, retention
from analysis.options import Options
from analysis.reading.cells import missing_cells
from analysis.reading.changes import change_cells
from analysis.reading.checkpoint_courses import Courses, read_courses
from analysis.reading.choice import NothingThere
from analysis.reading.improvements import PRETRAIN, Improvements, read_improvements
from analysis.reading.source import Source
from analysis.reading.tables import USED_COLUMNS, missing_table
from worldrep.names import FINETUNINGS, STRATEGIES

KEYS = ["strategy", "ft", "seed"]


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

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {} if self.models.empty else {"strategies_over_seeds": over_seeds(self.seeds)}

    @property
    def statistics(self) -> Mapping[str, Any]:
        """By strategy and quantity."""
        facts: dict[str, Any] = {}
        for table in self.tables.values():
            for row in table.to_dict("records"):
                facts.setdefault(row.pop("strategy"), {})[row.pop("quantity")] = row
        return {"strategies": {"models": list(self.fts), **facts}} if facts else {}


@dataclass(frozen=True)
class _Tuned:
    """What was read of one strategy."""

    found: Improvements
    cells: pd.DataFrame
    courses: Courses

    @property
    def evaluated(self) -> set[str]:
        return set(self.cells.loc[self.cells["run_id"] != "", "ft"])


def read_compared(source: Source, options: Options) -> Compared:
    """The strategies of what is fine-tuned from pt1, of the options' scale, width, world and seeds;
    of the models that every strategy has."""
    names = options.names | {"pretrain": PRETRAIN}
    tuned: dict[str, _Tuned] = {}
    for strategy in source.strategies(stage="evaluate", **names):
        try:
            own = source.tuned_by(strategy)
            tuned[strategy] = _read(own, replace(options, strategy=strategy), names)
        except NothingThere:
            continue
    fts = tuple(ft for ft in FINETUNINGS if all(ft in one.evaluated for one in tuned.values()))
    if len(tuned) < 2 or not fts:
        nothing = pd.DataFrame()
        return Compared(nothing, nothing, nothing, (), missing_table([]), _runs([]))
    models = _models(tuned, fts)
    others = {ft for one in tuned.values() for ft in one.evaluated} - set(fts)
    caveats = [f"strategies are compared by the models that all of them have: {', '.join(fts)}"]
    if others:
        caveats.append(
            f"left out of the comparison of strategies, as one of them lacks it: "
            f"{', '.join(ft for ft in FINETUNINGS if ft in others)}"
        )
    return Compared(
        models,
        by_seed(models),
        mean_by_share(_mean_points(tuned), fts),
        fts,
        _missing(tuned, fts),
        _runs(
            [table for one in tuned.values() for table in (one.found.runs_used, one.courses.runs)]
        ),
        caveats,
    )


def _read(source: Source, options: Options, names: dict[str, str]) -> _Tuned:
    found = read_improvements(source, options, tuple(FINETUNINGS))
    kept = ["ft", "seed", "task", "normalised", "base_atlantis", "base_standard"]
    cells = change_cells(found).merge(found.cells[kept], on=["ft", "seed", "task"])
    cells["retention"] = [retention(cell) for cell in cells.itertuples()]
    cells["strategy"] = options.strategy
    there = set(cells.loc[cells["run_id"] != "", "ft"])
    drawn = replace(found, cells=found.cells[found.cells["ft"].isin(there)])
    return _Tuned(found, cells, read_courses(source, drawn, names))


def _models(tuned: Mapping[str, _Tuned], fts: tuple[str, ...]) -> pd.DataFrame:
    """Every strategy, model and seed, there or not."""
    cells = pd.concat([one.cells for one in tuned.values()], ignore_index=True)
    cells = cells[cells["ft"].isin(fts)]
    seeds = sorted(set(cells["seed"]))
    asked = pd.DataFrame(product(tuned, fts, seeds), columns=KEYS)
    runs = cells.groupby(KEYS, sort=False)[["model", "run_id"]].first().reset_index()
    halves = _halves(tuned)
    models = asked.merge(by_model(cells), how="left", on=KEYS).merge(runs, how="left", on=KEYS)
    models = models.merge(halves, how="left", on=KEYS)
    models["label"] = models["ft"] + "+" + models["strategy"]
    models["strategy"] = pd.Categorical(models["strategy"], STRATEGIES)
    return models


def _halves(tuned: Mapping[str, _Tuned]) -> pd.DataFrame:
    """halfway_share of the mean over tasks on standard questions, by KEYS."""
    halves = halfway_table(_mean_points(tuned))
    halves["strategy"] = [model.partition("+")[2] or STRATEGIES[0] for model in halves["model"]]
    return halves.loc[halves["split"] == "standard", [*KEYS, "halfway_share"]]


def _mean_points(tuned: Mapping[str, _Tuned]) -> pd.DataFrame:
    """The mean over tasks of every model's course, by step; empty if there are no courses."""
    parts = []
    for strategy, one in tuned.items():
        if not one.courses.points.empty:
            means = mean_courses(one.courses.points)
            parts.append(means.assign(strategy=strategy, task=ALL_TASKS))
    columns = [*next(iter(tuned.values())).courses.points.columns, "strategy"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _missing(tuned: Mapping[str, _Tuned], fts: tuple[str, ...]) -> pd.DataFrame:
    tables = []
    for strategy, one in tuned.items():
        for kind, cells in (("change", one.cells), ("gain", one.found.cells)):
            tables.append(missing_cells(cells, f"{kind}_{strategy}", fts))
    return pd.concat(tables, ignore_index=True)


def _runs(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame(columns=USED_COLUMNS)
