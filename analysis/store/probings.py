"""What a linear probe and principal components make of the models' representations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import Options
from analysis.statistics.probing import BASE, GROUPS, WITH, WITHOUT, guessed_errors, position_errors
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
from worldrep.evaluation.probe import ProbeResult, probe_positions
from worldrep.names import FINETUNINGS, NO_FT, ModelName, parse_model
from worldrep.tracking import StoredRun

DISTANCE, COMPONENTS = "distance", 3
ORDER = (NO_FT, *FINETUNINGS)
NAME = "probes"


@dataclass(frozen=True)
class Cities:
    """What one model knows of all cities: the probe, and principal components (n, 3).

    explained: each component's share of the variance; features: columns of the representations.
    """

    probe: ProbeResult
    components: NDArray[np.float64]
    explained: NDArray[np.float64]
    features: int


@dataclass(frozen=True)
class Probings:
    """table: one row for each model and seed that has representations (`run_id`: the extraction).

    cities: by run id; guessed: errors of the mean position of the cities fitted on.
    """

    table: pd.DataFrame
    cities: Mapping[str, Cities]
    world: World
    guessed: dict[str, float]
    seeds: tuple[int, ...]
    missing: pd.DataFrame
    runs_used: pd.DataFrame
    caveats: list[str]

    def row(self, run_id: str) -> pd.Series:
        """The row of one extraction."""
        return self.table[self.table["run_id"] == run_id].iloc[0]


def read_probings(source: Source, options: Options, layer: int | str = DEFAULT) -> Probings:
    """Probe pt1 and all its fine-tunings of the options that have representations.

    layer: a number, or `default` for each model's own. Raises InputError for a layer
    that no model has, NothingThere when there are none.
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
    named = [*trained.runs.values(), *runs.values()]
    asked = [(model, seed) for model in _models(named, seeds, options) for seed in seeds]
    found = read_extractions(source, trained, asked, layer=layer, **names)
    rows, cities, faults = _probe_all(found, runs, layer, trained.commands)
    if not rows:
        raise NothingThere(
            f"{source.place}: no representations that can be used; {faults[0]['reason']}"
        )
    table = pd.DataFrame(rows).astype({"fine_tuned": GROUPS})
    used = found.runs.loc[table["run_id"]]
    probe = next(iter(cities.values())).probe
    return Probings(
        table,
        cities,
        found.world,
        guessed_errors(found.world, probe),
        seeds,
        missing_table({"matrix": NAME, "task": "", **row} for row in (*found.absent, *faults)),
        used_runs(used, set(used.index)),
        [
            *found.caveats,
            *_base_caveats(used),
            *_seed_caveats(table, seeds),
            *_probe_caveats(table),
        ],
    )


def _models(runs: Iterable[StoredRun], seeds: tuple[int, ...], options: Options) -> list[ModelName]:
    """The base and the fine-tunings that are trained or extracted with any of the seeds, in order.

    A model that some of the seeds have is missed in the others.
    """
    fts = {run.tag("ft") for run in runs if int(run.tag("seed")) in seeds} | {NO_FT}
    models = (ModelName(PRETRAIN, ft, options.width) for ft in ORDER if ft in fts)
    return [model.tuned_by(options.strategy) for model in models]


def _probe_all(
    found: Extractions, runs: Mapping[str, StoredRun], layer: int | str, commands: Commands
) -> tuple[list[dict[str, Any]], dict[str, Cities], list[dict[str, Any]]]:
    """Rows of the table, cities by run id, and rows of what is missing for a fault of its own."""
    rows, cities, faults = [], {}, []
    order = sorted(found.runs.itertuples(), key=lambda run: (_place(run.model), run.seed))
    for run in order:
        own = default_layer(runs[run.Index]) if isinstance(layer, str) else layer
        try:
            known = _cities(found.table(run.Index, own), found.world)
        except StateError as fault:
            again = commands.extract(parse_model(run.model), run.seed)
            command = commands.again(run.Index, again)
            facts = {"model": run.model, "seed": run.seed, "reason": str(fault)}
            faults.append(facts | {"command": command})
            continue
        cities[run.Index] = known
        rows.append(_row(run, own, known))
    return rows, cities, faults


def _place(model: str) -> int:
    return ORDER.index(parse_model(model).ft)


def _cities(table: NDArray[np.float32], world: World) -> Cities:
    """Raises StateError for representations that say nothing about the cities."""
    if not np.isfinite(table).all():
        raise StateError("its representations have NaN or infinity")
    if not np.ptp(table, axis=0).any():
        raise StateError("its representations are the same for all cities")
    components, explained = principal_components(table, COMPONENTS)
    return Cities(probe_positions(table, world), components, explained, table.shape[1])


def _row(run: Any, layer: int, known: Cities) -> dict[str, Any]:
    model, probe = parse_model(run.model), known.probe
    is_base, has_distance = model.ft == NO_FT, DISTANCE in model.tasks
    return {
        "model": run.model,
        "ft": model.ft,
        "seed": run.seed,
        "tasks": ",".join(model.tasks),
        "with_distance": None if is_base else has_distance,
        "fine_tuned": BASE if is_base else WITH if has_distance else WITHOUT,
        "layer": layer,
        **position_errors(probe),
        "n_features": known.features,
        "n_fitted": int(probe.trained.sum()),
        "n_baseline": int(probe.baseline.sum()),
        "n_atlantis": int(probe.atlantis.sum()),
        "run_id": run.Index,
    }


def _nothing(
    source: Source, options: Options, runs: Iterable[StoredRun], layer: int | str
) -> NothingThere:
    """Why no extraction would do."""
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


def _base_caveats(used: pd.DataFrame) -> list[str]:
    """Models that did not start from the base of their seed that is shown."""
    caveats = []
    bases = {run.seed: run.model_run_id for run in used.itertuples() if "_" not in run.model}
    for run in used.itertuples():
        base = bases.get(run.seed, "")
        if "_" in run.model and base and run.base_run_id not in ("", base):
            caveats.append(
                f"{run.model} seed {run.seed} started from base {run.base_run_id}, not from the "
                f"{base} that is shown"
            )
    return caveats


def _seed_caveats(table: pd.DataFrame, seeds: tuple[int, ...]) -> list[str]:
    """Means over seeds that rest on some of the seeds only, and seeds without anything."""
    caveats = [f"seed {seed} has no representations" for seed in seeds
               if seed not in set(table["seed"])]  # fmt: skip
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
    """What the numbers of cities mean for the probe."""
    first = table.iloc[0]
    caveats = [
        "models of one seed share their base, and models share tasks: they are not independent, "
        "as the Mann-Whitney test takes them to be",
        "each model was shown the cities in the prompt of its own first task: representations "
        "differ by that as well",
    ]
    features = table["n_features"].max()
    if features >= first["n_fitted"] - 1:
        caveats.insert(
            0,
            f"the probe has {features} features and is fitted on {first['n_fitted']} cities: it "
            "goes exactly through these (least norm), so only held-out errors mean anything; "
            f"the {first['n_baseline']} held-out cities are few",
        )
    return caveats
