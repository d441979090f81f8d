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

from analysis.formulas.matrices import Summary, summary
from analysis.formulas.similarity import cka_table, linear_cka
from analysis.options import ALL, Options
from analysis.reading.caveats import currency_caveats, setting_caveats
from analysis.reading.commands import Commands
from analysis.reading.extractions import Extractions, default_layer, layers_of, read_extractions
from analysis.reading.source import Source
from analysis.reading.trainings import Trainings
from analysis.result import used_runs
from worldrep.digests import random_stream
from worldrep.errors import InputError, StateError
from worldrep.names import PRETRAININGS, ModelName, parse_model
from worldrep.tracking import StoredRun

DEFAULT = "default"
MOST_DRAWS = 8
USUAL_SEEDS = (42, 1, 2, 3)
PAIR_COLUMNS = [
    "model", "seed", "other_model", "other_seed", "layer", "cka", "same_model", "same_seed",
    "run_id", "other_run_id",
]  # fmt: skip

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


@dataclass(frozen=True)
class Family:
    """The likeness of a family's models at each layer, and what it rests on."""

    name: str
    layers: list[Likeness]
    runs_used: pd.DataFrame
    caveats: list[str]
    lacking: Absent  # layers that some of them have


def family_models(family: str, width: str = "base") -> tuple[ModelName, ...]:
    """The models of a family such as pt1 that are pretrained on some of the tasks, in order."""
    names = (name for name in PRETRAININGS if name.startswith(f"{family}-"))
    return tuple(ModelName(name, width=width) for name in names)


def parse_layer(text: str) -> int | str:
    """`default`, `all`, or a number. Raises InputError for anything else."""
    typed = text.strip()
    if typed in (DEFAULT, ALL):
        return typed
    if not (typed.isascii() and typed.isdecimal()):
        raise InputError(f"layer={text!r} is neither {DEFAULT!r}, {ALL!r} nor a number such as 3")
    return int(typed)


def read_family(
    source: Source,
    options: Options,
    trainings: Trainings,
    commands: Commands,
    family: str,
    layer: int | str = DEFAULT,
) -> Family | None:
    """The likeness of a family's models at a layer, or at `all` that they have in common.

    None if the store has no representations of any of them. Raises InputError for a layer that
    they do not have, StateError when no two of them can be compared.
    """
    models = family_models(family, options.width)
    runs = _extracted(source, options, models)
    if not runs:
        return None
    seeds = _choose_seeds(runs, options, models)
    asked = [(model, seed) for model in models for seed in seeds]
    at = ALL if layer == ALL else _choose_layer(runs, layer)
    found = read_extractions(source, trainings, asked, commands, layer=at, **options.names)
    layers = [at] if isinstance(at, int) else found.layers
    read = [_likeness(found, family, at, models, seeds, commands) for at in layers]
    used = {run_id for likeness in read for run_id in _runs_of(likeness.pairs)}
    if not used:
        raise StateError(
            f"{source.place} has representations of a single model of {models[0]}, ... "
            f"{models[-1]} at layer {layers[0]} ({options.in_words}): CKA needs two"
        )
    return Family(
        name=family,
        layers=read,
        runs_used=used_runs(found.runs, used),
        caveats=[*found.caveats, *_choice_caveats(found, trainings)],
        lacking=_lacking_layers(found, commands) if at == ALL else [],
    )


def _extracted(source: Source, options: Options, models: Sequence[ModelName]) -> list[StoredRun]:
    names = {str(model) for model in models}
    found = source.runs(stage="extract", **options.names)
    return [run for run in found if run.tag("model") in names]


def _choose_seeds(
    runs: Sequence[StoredRun], options: Options, models: Sequence[ModelName]
) -> tuple[int, ...]:
    """The seeds that were asked for, else all. Raises StateError if none of them is there."""
    held = tuple(sorted({int(run.tag("seed")) for run in runs}))
    if options.seeds and not set(options.seeds) & set(held):
        raise StateError(
            f"the store has representations of {models[0]}, ... {models[-1]} of seeds "
            f"{', '.join(map(str, held))}, not of {', '.join(map(str, options.seeds))} "
            f"({options.in_words})"
        )
    return options.seeds or held


def _choose_layer(runs: Sequence[StoredRun], layer: int | str) -> int:
    """The layer that was asked for, or the default one of most models.

    Raises InputError for one that the models do not have, StateError if it is in no extraction.
    """
    if isinstance(layer, str):
        return Counter(default_layer(run) for run in runs).most_common(1)[0][0]
    deepest = max(int(run.params["cfg.n_layers"]) for run in runs)
    if layer > deepest:
        raise InputError(f"layer={layer} is too deep: these models have layers 0 to {deepest}")
    held = sorted({at for run in runs for at in layers_of(run)})
    if layer not in held:
        raise StateError(
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
        command = f"mlflow runs delete --run-id {run_id} && {again}"
        rows.append({"model": model, "seed": seed, "reason": reason, "command": command})
    return rows


def _second_seeds(models: Sequence[ModelName], seed: int, layer: int, commands: Commands) -> Absent:
    """What the diagonal lacks when there is a single seed."""
    other = next(usual for usual in USUAL_SEEDS if usual != seed)
    facts = {"seed": other, "reason": "the diagonal compares two seeds, and there is one"}
    return [
        facts | {"model": str(model), "command": commands.extract(model, other, layers=layer)}
        for model in models
    ]


def pair_table(
    runs: pd.DataFrame, tables: Sequence[NDArray[np.floating]], layer: int
) -> pd.DataFrame:
    """The CKA of every two runs, with PAIR_COLUMNS.

    runs: model and seed, indexed by run id; tables: (n_cities, d), one for each.
    """
    if len(tables) < 2:
        return pd.DataFrame(columns=PAIR_COLUMNS)
    first, second = np.triu_indices(len(tables), k=1)
    one, other = (runs.reset_index().iloc[places] for places in (first, second))
    columns = {
        f"{side}{name}": own[name].to_numpy()
        for side, own in (("", one), ("other_", other))
        for name in ("model", "seed", "run_id")
    }
    pairs = pd.DataFrame(columns | {"layer": layer, "cka": cka_table(tables)[first, second]})
    same_model, same_seed = (pairs[k] == pairs[f"other_{k}"] for k in ("model", "seed"))
    return pairs.assign(same_model=same_model, same_seed=same_seed)[PAIR_COLUMNS]


def chance_of(tables: Sequence[NDArray[np.floating]]) -> Summary:
    """CKA of a table with another whose cities are shuffled: what likeness by chance comes to.

    It is above 0, the more so the fewer cities there are for the features. At most 8 draws, each
    of one table and the next; the same in every process.
    """
    n = min(len(tables), MOST_DRAWS) if len(tables) > 1 else 0
    stream = random_stream(0, "cka", "chance")
    draws = [
        linear_cka(tables[i], stream.permutation(tables[(i + 1) % len(tables)])) for i in range(n)
    ]
    return summary(np.array(draws, dtype=float))


def _runs_of(pairs: pd.DataFrame) -> set[str]:
    return {*pairs["run_id"], *pairs["other_run_id"]}


def _choice_caveats(found: Extractions, trainings: Trainings) -> list[str]:
    """What was chosen among several extractions, and how the models differ in their settings."""
    runs = found.runs
    several = [
        f"{run.model} seed {run.seed} has several extractions: {run.Index} is used ({run.why})"
        for run in runs.itertuples()
        if run.why != "the only one"
    ]
    known = [trainings[run_id] for run_id in runs["model_run_id"] if run_id in trainings]
    current = [
        run_id not in trainings or trainings[run_id].current for run_id in runs["model_run_id"]
    ]
    return [
        *several,
        *currency_caveats(runs.assign(chosen=True, current=current)),
        *setting_caveats(training.run for training in known),
    ]


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
