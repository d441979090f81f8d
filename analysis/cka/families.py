"""CKA within a family of pretrained models: of one task (pt1-X), of two (pt2-k) or three (pt3-k).

Only world cities count, as the models have not seen Atlantis. `read_family` and `Extracted.tables`
read; `compare_family` computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cka.pairs import chance_of, pair_table
from analysis.options import ALL, Options
from analysis.statistics.matrices import Summary
from analysis.store.extractions import (
    DEFAULT,
    Extractions,
    check_depth,
    default_layer,
    layers_of,
    read_extractions,
)
from analysis.store.selection import NothingThere, Trained, used_runs
from analysis.store.source import Source
from worldrep.errors import StateError
from worldrep.names import PRETRAININGS, ModelName, parse_model
from worldrep.tracking import StoredRun

USUAL_SEEDS = (42, 1, 2, 3)

Missing = list[dict[str, Any]]  # matrix, model, seed, reason, command


@dataclass(frozen=True)
class Extracted:
    """Extractions of a family's models.

    models: all of the family, in order; seeds: those asked for; layers: those to compare; runs: by
    run id, in the order of the models.
    """

    family: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    layers: list[int]
    runs: pd.DataFrame
    found: Extractions
    trained: Trained

    def tables(self, layer: int) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
        """Return run id -> (n_cities, d) of the world cities, and run id -> why it has no CKA."""
        tables, faults = {}, {}
        for run_id in self.runs.index:
            try:
                table = self.found.table(run_id, layer)[~self.found.world.is_atlantis]
            except StateError as fault:
                faults[run_id] = str(fault)
                continue
            if not np.isfinite(table).all():
                faults[run_id] = f"extraction {run_id} holds NaN or infinity at layer {layer}"
            elif (table == table[0]).all():
                faults[run_id] = f"extraction {run_id} is the same for every city at layer {layer}"
            else:
                tables[run_id] = table
        return tables, faults

    def missing(self, layer: int, faults: dict[str, str]) -> Missing:
        """Return what the matrix of a layer lacks. faults: as `tables` returns them."""
        rows = list(self.found.absent)
        for run in self.runs.loc[list(faults)].itertuples():
            rows.append(self._row(run.model, run.seed, faults[run.Index], layer, run.Index))
        if len(self.seeds) == 1:
            other = next(seed for seed in USUAL_SEEDS if seed != self.seeds[0])
            reason = "the diagonal compares two seeds, and there is one"
            rows += [self._row(model, other, reason, layer) for model in self.models]
        return rows

    def missing_layers(self) -> Missing:
        """Return the models that lack layers which others have."""
        held = {at for layers in self.runs["layers"] for at in layers}
        lacking = {run: sorted(held - set(run.layers)) for run in self.found.runs.itertuples()}
        return [
            self._row(
                run.model, run.seed, f"no representations of layers {', '.join(map(str, at))}", ALL
            )
            for run, at in lacking.items()
            if at
        ]

    def _row(
        self, model: str, seed: int, reason: str, layers: int | str, broken: str = ""
    ) -> dict[str, Any]:
        """Return a row of the missing table. broken: extraction to delete first."""
        commands = self.trained.commands
        command = commands.extract(parse_model(model), seed, layers=layers)
        command = commands.again(broken, command) if broken else command
        return {"model": model, "seed": seed, "reason": reason, "command": command}


def read_family(
    source: Source, options: Options, trained: Trained, family: str, layer: int | str
) -> Extracted | None:
    """Read which extractions a family has at a layer, or at `all` that they have in common.

    None if the store has none of its models. Raises InputError for a layer that the models do not
    have, NothingThere when none is of the seeds and the layer.
    """
    names = [name for name in PRETRAININGS if name.startswith(f"{family}-")]
    models = tuple(ModelName(name, width=options.width) for name in names)
    by_name = tuple(map(str, models))
    runs = source.runs(stage="extract", **options.names)
    runs = [run for run in runs if run.tag("model") in by_name]
    if not runs:
        return None
    seeds = _choose_seeds(runs, options, models)
    at = ALL if layer == ALL else _choose_layer(runs, layer)
    asked = [(model, seed) for model in models for seed in seeds]
    found = read_extractions(source, trained, asked, layer=at, **options.names)
    ordered = found.runs.assign(order=found.runs["model"].map(by_name.index))
    ordered = ordered.sort_values(["order", "seed"])
    layers = [at] if isinstance(at, int) else found.layers
    return Extracted(family, by_name, seeds, layers, ordered, found, trained)


def _choose_seeds(
    runs: Sequence[StoredRun], options: Options, models: Sequence[ModelName]
) -> tuple[int, ...]:
    """Return the seeds that were asked for, else all. Raises NothingThere if none is there."""
    held = tuple(sorted({int(run.tag("seed")) for run in runs}))
    if options.seeds and not set(options.seeds) & set(held):
        raise NothingThere(
            f"the store has representations of {models[0]}, ... {models[-1]} of seeds "
            f"{', '.join(map(str, held))}, not of {', '.join(map(str, options.seeds))} "
            f"({options.in_words})"
        )
    return options.seeds or held


def _choose_layer(runs: Sequence[StoredRun], layer: int | str) -> int:
    """Return the layer that was asked for, or the default one of most models.

    Raises InputError for one that the models do not have, NothingThere if no extraction has it.
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


@dataclass(frozen=True)
class Likeness:
    """CKA of every two models of a family at one layer.

    pairs: a row for every two runs, with PAIR_COLUMNS; n_cities, n_features: of the compared
    tables; chance: CKA when the cities of one table are shuffled.
    """

    family: str
    layer: int
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    pairs: pd.DataFrame
    n_cities: int
    n_features: tuple[int, ...]
    chance: Summary

    @property
    def name(self) -> str:
        """Name of its matrix."""
        return f"cka_{self.family}_layer{self.layer}"

    @property
    def labels(self) -> pd.Index:
        """Labels of the models: the task of one pretrained on a single task, else its name."""
        names = [parse_model(model).pretrain for model in self.models]
        if self.family == "pt1":
            return pd.Index([PRETRAININGS[name][0] for name in names], name="task")
        return pd.Index(names, name="model")

    @property
    def features_in_words(self) -> str:
        """Number of features, such as `256 features`."""
        return f"{' or '.join(map(str, self.n_features))} features"


@dataclass(frozen=True)
class Family:
    """CKA of a family's models at each layer, and the runs that it rests on."""

    name: str
    layers: list[Likeness]
    runs_used: pd.DataFrame
    caveats: list[str]
    missing: Missing

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


def compare_family(
    source: Source, options: Options, trained: Trained, name: str, layer: int | str = DEFAULT
) -> Family | None:
    """Read a family and compute its CKA, as of `read_family`; NothingThere for a single model."""
    read = read_family(source, options, trained, name, layer)
    if read is None:
        return None
    layers, missing = [], []
    for at in read.layers:
        tables, faults = read.tables(at)
        layers.append(_likeness(read, at, tables))
        absent = read.missing(at, faults)
        missing += [{"matrix": layers[-1].name, "task": "", **row} for row in absent]
    if layer == ALL:
        missing += [{"matrix": f"cka_{name}", "task": "", **row} for row in read.missing_layers()]
    pairs = pd.concat([likeness.pairs for likeness in layers])
    used = {*pairs["run_id"], *pairs["other_run_id"]}
    if not used:
        raise NothingThere(
            f"{source.place} has representations of a single model of {read.models[0]}, ... "
            f"{read.models[-1]} at layer {read.layers[0]} ({options.in_words}): CKA needs two"
        )
    return Family(name, layers, used_runs(read.found.runs, used), read.found.caveats, missing)


def _likeness(read: Extracted, layer: int, tables: dict[str, NDArray[np.float32]]) -> Likeness:
    arrays = list(tables.values())
    return Likeness(
        family=read.family,
        layer=layer,
        models=read.models,
        seeds=read.seeds,
        pairs=pair_table(read.runs.loc[list(tables)], arrays, layer),
        n_cities=int((~read.found.world.is_atlantis).sum()),
        n_features=tuple(sorted({table.shape[1] for table in arrays})),
        chance=chance_of(arrays),
    )
