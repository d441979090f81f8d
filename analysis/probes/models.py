"""Linear probe and principal components of the representations of pt1 and its fine-tunings.

`read_extracted` reads which extractions there are; `probe_models` loads one after the other and
computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import Options
from analysis.statistics.similarity import principal_components
from analysis.store.evaluations import PRETRAIN
from analysis.store.extractions import (
    DEFAULT,
    Extractions,
    check_depth,
    default_layer,
    layers_of,
    read_extractions,
)
from analysis.store.missing import Commands, missing_table
from analysis.store.selection import NothingThere, Trained, nothing_of, used_runs
from analysis.store.source import Source
from worldrep.data.world import World
from worldrep.errors import StateError
from worldrep.evaluation.representations import ProbeResult, probe_positions
from worldrep.names import FINETUNINGS, NO_FT, ModelName, parse_model
from worldrep.tracking import StoredRun

DISTANCE, COMPONENTS = "distance", 3
FTS = (NO_FT, *FINETUNINGS)  # in the order of tables
WITH, WITHOUT, BASE = "with distance", "without distance", "not at all (base)"
GROUPS = pd.CategoricalDtype([WITH, WITHOUT, BASE], ordered=False)


@dataclass(frozen=True)
class Extracted:
    """Extractions to probe.

    runs: by run id, with the columns ft and layer (the one to probe), in the order of the models.
    """

    place: str
    runs: pd.DataFrame
    found: Extractions
    seeds: tuple[int, ...]
    commands: Commands


def read_extracted(source: Source, options: Options, layer: int | str) -> Extracted:
    """Read which extractions pt1 and its fine-tunings have.

    layer: a number, or `default` for each model's own. Raises InputError for a layer that the
    models do not have, NothingThere when there are no extractions of it.
    """
    names = options.names | {"pretrain": PRETRAIN}
    trained = Trained.read(source, options, pretrain=PRETRAIN)
    runs = {run.id: run for run in source.runs(stage="extract", **names)}
    if runs:
        check_depth(layer, runs.values())
    held = [run for run in runs.values() if layer == DEFAULT or layer in layers_of(run)]
    seeds = options.seeds or tuple(sorted({int(run.tag("seed")) for run in held}))
    if not any(int(run.tag("seed")) in seeds for run in held):
        raise _nothing(source, options, runs.values(), layer)
    # A model that some of the seeds have is missing in the others.
    known = [*trained.runs.values(), *runs.values()]
    fts = {run.tag("ft") for run in known if int(run.tag("seed")) in seeds} | {NO_FT}
    models = [
        ModelName(PRETRAIN, ft, options.width).tuned_by(options.strategy) for ft in FTS if ft in fts
    ]
    asked = [(model, seed) for model in models for seed in seeds]
    found = read_extractions(source, trained, asked, layer=layer, **names)
    usual = [default_layer(runs[run_id]) for run_id in found.runs.index]
    table = found.runs.assign(
        layer=layer if isinstance(layer, int) else usual, place=found.runs["ft"].map(FTS.index)
    )
    ordered = table.sort_values(["place", "seed"], kind="stable")
    return Extracted(source.place, ordered, found, seeds, trained.commands)


def _nothing(
    source: Source, options: Options, runs: Iterable[StoredRun], layer: int | str
) -> NothingThere:
    """Return why no extraction can be used."""
    runs = list(runs)
    if not runs:
        return nothing_of("representations", "extract", options, source)
    seeds = sorted({int(run.tag("seed")) for run in runs})
    layers = sorted({layer for run in runs for layer in layers_of(run)})
    asked = "" if layer == DEFAULT else f" of layer {layer}"
    hint = "" if layer == DEFAULT else f"; `-e extract -P layers={layer}` makes them"
    asked += f" for seeds {', '.join(map(str, options.seeds))}" if options.seeds else ""
    return NothingThere(
        f"{source.place} has no representations{asked} ({options.in_words}): it has layers "
        f"{', '.join(map(str, layers)) or 'none'} of seeds {', '.join(map(str, seeds))}{hint}"
    )


@dataclass(frozen=True)
class Cities:
    """Probe of one model, and principal components (n, 3) of all its cities.

    explained: each component's share of the variance; features: columns of the representations.
    """

    probe: ProbeResult
    components: NDArray[np.float64]
    explained: NDArray[np.float64]
    features: int


@dataclass(frozen=True)
class Probed:
    """All models that could be probed.

    table: one row for each model and seed (`run_id`: the extraction); cities: by run id; guessed:
    errors of the mean position of the cities fitted on.
    """

    table: pd.DataFrame
    cities: Mapping[str, Cities]
    world: World
    guessed: dict[str, float]
    seeds: tuple[int, ...]
    missing: pd.DataFrame
    runs_used: pd.DataFrame
    caveats: list[str]


def probe_models(read: Extracted) -> Probed:
    """Load each extraction and probe it. Raises NothingThere if none can be used."""
    world = read.found.world
    rows, cities, faults = [], {}, []
    for run in read.runs.itertuples():
        try:
            own = probe_cities(read.found.table(run.Index, run.layer), world)
        except StateError as fault:
            again = read.commands.extract(parse_model(run.model), run.seed)
            command = read.commands.again(run.Index, again)
            row = {"model": run.model, "seed": run.seed, "reason": str(fault)}
            faults.append(row | {"command": command})
        else:
            cities[run.Index] = own
            rows.append(_row(run, own))
    if not rows:
        raise NothingThere(
            f"{read.place}: no representations that can be used; {faults[0]['reason']}"
        )
    table = pd.DataFrame(rows).astype({"fine_tuned": GROUPS})
    used = read.found.runs.loc[table["run_id"]]
    absent = [{"matrix": "probes", "task": "", **row} for row in (*read.found.absent, *faults)]
    return Probed(
        table=table,
        cities=cities,
        world=world,
        guessed=guessed_errors(world, next(iter(cities.values())).probe),
        seeds=read.seeds,
        missing=missing_table(absent),
        runs_used=used_runs(used, set(used.index)),
        caveats=[
            *read.found.caveats,
            *_base_caveats(used),
            *_seed_caveats(table, read.seeds),
            *_probe_caveats(table),
        ],
    )


def probe_cities(table: NDArray[np.float32], world: World) -> Cities:
    """Probe representations (n, d). Raises StateError if they do not tell the cities apart."""
    if not np.isfinite(table).all():
        raise StateError("its representations have NaN or infinity")
    if not np.ptp(table, axis=0).any():
        raise StateError("its representations are the same for all cities")
    components, explained = principal_components(table, COMPONENTS)
    return Cities(probe_positions(table, world), components, explained, table.shape[1])


def _row(run: Any, own: Cities) -> dict[str, Any]:
    model, probe = parse_model(run.model), own.probe
    is_base, has_distance = model.ft == NO_FT, DISTANCE in model.tasks
    return {
        "model": run.model,
        "ft": model.ft,
        "seed": run.seed,
        "tasks": ",".join(model.tasks),
        "with_distance": None if is_base else has_distance,
        "fine_tuned": BASE if is_base else WITH if has_distance else WITHOUT,
        "layer": run.layer,
        **position_errors(probe),
        "n_features": own.features,
        "n_fitted": int(probe.trained.sum()),
        "n_baseline": int(probe.baseline.sum()),
        "n_atlantis": int(probe.atlantis.sum()),
        "run_id": run.Index,
    }


def position_errors(probe: ProbeResult) -> dict[str, float]:
    """Return mean errors in 0.1 degree: cities fitted on, held-out world cities, Atlantis."""
    found = probe.summary()
    names = {"fitted": "train", "world": "world", "atlantis": "atlantis"}
    return {f"{name}_error": found[part] for name, part in names.items()}


def guessed_errors(world: World, probe: ProbeResult) -> dict[str, float]:
    """Return the same for the mean position of the cities fitted on, whatever the city."""
    middle = world.positions[probe.trained].mean(axis=0)
    errors = np.linalg.norm(world.positions - middle, axis=1)
    known = ProbeResult(probe.predicted, errors, probe.trained, probe.baseline, probe.atlantis)
    return position_errors(known)


def _base_caveats(used: pd.DataFrame) -> list[str]:
    """Name the models that did not start from the base of their seed that is shown."""
    bases = {run.seed: run.model_run_id for run in used.itertuples() if run.ft == NO_FT}
    return [
        f"{run.model} seed {run.seed} started from base {run.base_run_id}, not from the "
        f"{bases[run.seed]} that is shown"
        for run in used.itertuples()
        if run.ft != NO_FT and run.seed in bases and run.base_run_id not in ("", bases[run.seed])
    ]


def _seed_caveats(table: pd.DataFrame, seeds: tuple[int, ...]) -> list[str]:
    """Name seeds without any model, and means that rest on some of the seeds only."""
    absent = [seed for seed in seeds if seed not in set(table["seed"])]
    caveats = [f"seed {seed} has no representations" for seed in absent]
    n = table["model"].value_counts()
    partial = int((n < len(seeds)).sum())
    if len(seeds) == 1:
        caveats.append(f"one seed only ({seeds[0]}): no spread over seeds")
    elif partial:
        caveats.append(
            f"{partial} of {len(n)} models have representations of some of the {len(seeds)} seeds "
            "only: their means rest on those"
        )
    return caveats


def _probe_caveats(table: pd.DataFrame) -> list[str]:
    """Say what the numbers of features and cities mean for the probe and the test."""
    first, features = table.iloc[0], table["n_features"].max()
    caveats = []
    if features >= first["n_fitted"] - 1:
        caveats.append(
            f"the probe has {features} features and is fitted on {first['n_fitted']} cities: it "
            "goes exactly through these (least norm), so only held-out errors mean anything; "
            f"the {first['n_baseline']} held-out cities are few"
        )
    return [
        *caveats,
        "models of one seed share their base, and models share tasks: they are not independent, "
        "as the Mann-Whitney test takes them to be",
        "each model was shown the cities in the prompt of its own first task: representations "
        "differ by that as well",
    ]
