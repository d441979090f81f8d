"""How alike pretrained models represent the cities: linear CKA of every two of them, by layer.

The models of a family are pretrained on one task (pt1-X), on pairs (pt2-k) or on triples (pt3-k).
Only world cities count: what a model makes of Atlantis, which it has not seen, is another matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import ALL, Options
from analysis.statistics.matrices import Summary
from analysis.statistics.pairs import chance_of, pair_table
from analysis.store.extractions import (
    DEFAULT,
    Extractions,
    check_depth,
    default_layer,
    layers_of,
    read_extractions,
)
from analysis.store.missing import Commands
from analysis.store.selection import NothingThere, Trained, used_runs
from analysis.store.source import Source
from worldrep.errors import StateError
from worldrep.names import PRETRAININGS, ModelName, parse_model
from worldrep.tracking import StoredRun

LABEL = "linear CKA (no unit)"
USUAL_SEEDS = (42, 1, 2, 3)

Absent = list[dict[str, Any]]  # model, seed, reason, command


@dataclass(frozen=True)
class Likeness:
    """The CKA of every two models of a family at one layer.

    pairs: a row for every two runs, with PAIR_COLUMNS; models: all of the family, in order; seeds:
    those that were asked for; n_cities, n_features: of the tables that were compared; chance: CKA
    when the cities of one table are shuffled; absent: what lacks, and the command that makes it.
    """

    family: str
    layer: int
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    pairs: pd.DataFrame
    n_cities: int
    n_features: tuple[int, ...]
    chance: Summary
    absent: Absent

    @property
    def name(self) -> str:
        """Of its matrix."""
        return f"cka_{self.family}_layer{self.layer}"

    @property
    def labels(self) -> pd.Index:
        """What the models are called: the task of one pretrained on a single one, else its name."""
        names = [parse_model(model).pretrain for model in self.models]
        if self.family == "pt1":
            return pd.Index([PRETRAININGS[name][0] for name in names], name="task")
        return pd.Index(names, name="model")

    @property
    def features_in_words(self) -> str:
        return f"{' or '.join(map(str, self.n_features))} features"


@dataclass(frozen=True)
class Family:
    """The likeness of a family's models at each layer, and what it rests on."""

    name: str
    layers: list[Likeness]
    runs_used: pd.DataFrame
    caveats: list[str]
    lacking: Absent  # layers that some of them have

    @property
    def missing(self) -> list[dict[str, Any]]:
        """What each matrix lacks, and the layers that only some models have; for a table."""
        named = [(likeness.name, row) for likeness in self.layers for row in likeness.absent]
        named += [(f"cka_{self.name}", row) for row in self.lacking]
        return [{"matrix": name, "task": "", **row} for name, row in named]

    @property
    def bias_caveats(self) -> list[str]:
        """A caveat about tables with fewer cities than features."""
        first = self.layers[0]
        if not first.n_features or first.n_cities > max(first.n_features):
            return []
        return [
            f"{self.name}: {first.n_cities} cities are fewer than {first.features_in_words}, so "
            "CKA is biased upwards: compare it with that of shuffled cities, not with 0"
        ]


def family_models(family: str, width: str = "base") -> tuple[ModelName, ...]:
    """The models of a family such as pt1 that are pretrained on some of the tasks, in order."""
    names = (name for name in PRETRAININGS if name.startswith(f"{family}-"))
    return tuple(ModelName(name, width=width) for name in names)


def read_family(
    source: Source,
    options: Options,
    trained: Trained,
    family: str,
    layer: int | str = DEFAULT,
) -> Family | None:
    """The likeness of a family's models at a layer, or at `all` that they have in common.

    None if the store has no representations of any of them. Raises InputError for a layer that
    they do not have, NothingThere when no two of them can be compared.
    """
    models = family_models(family, options.width)
    runs = _extracted(source, options, models)
    if not runs:
        return None
    seeds = _choose_seeds(runs, options, models)
    asked = [(model, seed) for model in models for seed in seeds]
    at = ALL if layer == ALL else _choose_layer(runs, layer)
    found = read_extractions(source, trained, asked, layer=at, **options.names)
    layers = [at] if isinstance(at, int) else found.layers
    read = [_likeness(found, family, at, models, seeds, trained.commands) for at in layers]
    used = {run_id for likeness in read for run_id in _runs_of(likeness.pairs)}
    if not used:
        raise NothingThere(
            f"{source.place} has representations of a single model of {models[0]}, ... "
            f"{models[-1]} at layer {layers[0]} ({options.in_words}): CKA needs two"
        )
    return Family(
        name=family,
        layers=read,
        runs_used=used_runs(found.runs, used),
        caveats=found.caveats,
        lacking=_lacking_layers(found, trained.commands) if at == ALL else [],
    )


def _extracted(source: Source, options: Options, models: Sequence[ModelName]) -> list[StoredRun]:
    names = {str(model) for model in models}
    found = source.runs(stage="extract", **options.names)
    return [run for run in found if run.tag("model") in names]


def _choose_seeds(
    runs: Sequence[StoredRun], options: Options, models: Sequence[ModelName]
) -> tuple[int, ...]:
    """The seeds that were asked for, else all. Raises NothingThere if none of them is."""
    held = tuple(sorted({int(run.tag("seed")) for run in runs}))
    if options.seeds and not set(options.seeds) & set(held):
        raise NothingThere(
            f"the store has representations of {models[0]}, ... {models[-1]} of seeds "
            f"{', '.join(map(str, held))}, not of {', '.join(map(str, options.seeds))} "
            f"({options.in_words})"
        )
    return options.seeds or held


def _choose_layer(runs: Sequence[StoredRun], layer: int | str) -> int:
    """The layer that was asked for, or the default one of most models.

    Raises InputError for one that the models do not have, NothingThere if it is in no extraction.
    """
    if isinstance(layer, str):
        return Counter(default_layer(run) for run in runs).most_common(1)[0][0]
    check_depth(layer, runs)
    held = sorted({at for run in runs for at in layers_of(run)})
    if layer not in held:
        raise NothingThere(
            f"the store has no representations of layer {layer}, only of "
            f"{', '.join(map(str, held))}; `-e extract -P layers={layer}` makes them"
        )
    return layer


def _likeness(
    found: Extractions,
    family: str,
    layer: int,
    models: Sequence[ModelName],
    seeds: tuple[int, ...],
    commands: Commands,
) -> Likeness:
    names = tuple(str(model) for model in models)
    order = found.runs["model"].map(names.index)
    runs = found.runs.assign(order=order).sort_values(["order", "seed"])
    tables: dict[str, NDArray[np.float32]] = {}
    faults: dict[str, str] = {}
    for run_id in runs.index:
        try:
            tables[run_id] = _comparable(found, run_id, layer)
        except StateError as fault:
            faults[run_id] = str(fault)
    absent = [*found.absent, *_faulty(runs, faults, layer, commands)]
    if len(seeds) == 1:
        absent += _second_seeds(models, seeds[0], layer, commands)
    return Likeness(
        family=family,
        layer=layer,
        models=names,
        seeds=seeds,
        pairs=pair_table(runs.loc[list(tables)], list(tables.values()), layer),
        n_cities=int((~found.world.is_atlantis).sum()),
        n_features=tuple(sorted({table.shape[1] for table in tables.values()})),
        chance=chance_of(list(tables.values())),
        absent=absent,
    )


def _comparable(found: Extractions, run_id: str, layer: int) -> NDArray[np.float32]:
    """The rows of the world cities. Raises StateError if they have no CKA."""
    table = found.table(run_id, layer)[~found.world.is_atlantis]
    if not np.isfinite(table).all():
        raise StateError(f"extraction {run_id} holds NaN or infinity at layer {layer}")
    if (table == table[0]).all():
        raise StateError(f"extraction {run_id} is the same for every city at layer {layer}")
    return table


def _faulty(runs: pd.DataFrame, faults: dict[str, str], layer: int, commands: Commands) -> Absent:
    rows = []
    for run_id, reason in faults.items():
        model, seed = runs["model"][run_id], int(runs["seed"][run_id])
        again = commands.extract(parse_model(model), seed, layers=layer)
        row = {"model": model, "seed": seed, "reason": reason}
        rows.append(row | {"command": commands.again(run_id, again)})
    return rows


def _second_seeds(models: Sequence[ModelName], seed: int, layer: int, commands: Commands) -> Absent:
    """What the diagonal lacks when there is a single seed."""
    other = next(usual for usual in USUAL_SEEDS if usual != seed)
    facts = {"seed": other, "reason": "the diagonal compares two seeds, and there is one"}
    return [
        facts | {"model": str(model), "command": commands.extract(model, other, layers=layer)}
        for model in models
    ]


def _runs_of(pairs: pd.DataFrame) -> set[str]:
    return {*pairs["run_id"], *pairs["other_run_id"]}


def _lacking_layers(found: Extractions, commands: Commands) -> Absent:
    """The models that lack layers which others have."""
    every = {at for layers in found.runs["layers"] for at in layers}
    rows: Absent = []
    for run in found.runs.itertuples():
        lacks = sorted(every - set(run.layers))
        if lacks:
            reason = f"no representations of layers {', '.join(map(str, lacks))}"
            command = commands.extract(parse_model(run.model), run.seed, layers="all")
            row = {"model": run.model, "seed": run.seed, "reason": reason, "command": command}
            rows.append(row)
    return rows
