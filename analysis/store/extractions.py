"""Representations: which extraction is used of a model, and its tables.

Extractions of the last checkpoint with the prompt of the model's first trained task are read.
Models with other cities than most are left out, as their rows are not comparable.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import ALL
from analysis.store.missing import names_of, run_caveats, with_reasons
from analysis.store.selection import (
    KEYS,
    LAST,
    NothingThere,
    Trained,
    choose,
    known_model,
    run_table,
)
from analysis.store.source import Source
from worldrep.data.world import World, load_world
from worldrep.errors import InputError, StateError
from worldrep.evaluation.representations import (
    DEFAULT_LAYER,
    POSITIONS,
    REPRESENTATIONS,
    Tables,
    load_representations,
)
from worldrep.names import ModelName, parse_model
from worldrep.stored import DamagedError
from worldrep.studies.commands import fewest_commands, in_order
from worldrep.text import line
from worldrep.tracking import CITIES, StoredRun

NAMES, LONGEST_NAME = ("name", "region"), 60  # texts about cities, cut for figures
DEFAULT = "default"
SHOWN_COMMANDS = 3
OTHER_CITIES = "extracted from other cities"
UNKNOWN_CITIES = "extracted from a training that is not finished or not in the store"


@dataclass(frozen=True)
class Extractions:
    """One extraction of each model and seed that has one.

    runs: table of `choose` in the order of what was asked for, with `layers` (those it has) and
    `layer` (that asked for, else its default); absent: models and seeds without one, with reason
    and command; world: the cities that all of them have.
    """

    source: Source
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]
    world: World

    def table(self, run_id: str, layer: int) -> NDArray[np.float32]:
        """Return one layer, (n_cities, positions * hidden size), rows in the order of the world.

        Raises StateError if the file is missing or damaged, or has other cities than it should, or
        if the values are not finite or do not tell the cities apart.
        """
        tables, manifest = self.source.read(run_id, REPRESENTATIONS, _load_only_step)
        if manifest["city_ids"] != self.world.cities["city_id"].tolist():
            raise StateError(f"extraction {run_id} does not have the cities of its model's run")
        if layer not in tables or len(tables[layer]) != len(self.world.cities):
            raise StateError(f"extraction {run_id} does not hold layer {layer} of all its cities")
        table = tables[layer]
        if not np.isfinite(table).all():
            raise StateError(f"extraction {run_id} holds NaN or infinity at layer {layer}")
        if (table == table[0]).all():
            raise StateError(f"extraction {run_id} is the same for every city at layer {layer}")
        return table

    @property
    def layers(self) -> list[int]:
        """The layers that all extractions have."""
        return sorted(set.intersection(*map(set, self.runs["layers"])))


def read_extractions(
    source: Source,
    trained: Trained,
    asked: Iterable[tuple[ModelName, int]],
    *,
    layer: int | str = DEFAULT,
    **names: str,
) -> Extractions:
    """Read the extractions of some models and seeds, with the tags `names`.

    layer: a number, `default` for each model's own (5, or the last but one of a shallower model),
    or `all` to prefer extractions with most layers. Raises NothingThere if there is no extraction,
    StateError if the cities of the models cannot be read.
    """
    wanted = pd.DataFrame([(str(model), seed) for model, seed in asked], columns=KEYS)
    pairs = pd.MultiIndex.from_frame(wanted)
    found = {
        run.id: run
        for run in source.runs(stage="extract", **names)
        if (run.tag("model"), int(run.tag("seed"))) in pairs and _is_usable(run, layer)
    }
    if not found:
        raise NothingThere(f"{source.place} has no representations of {_listed(wanted, trained)}")
    runs = run_table(found.values(), trained.current)
    runs["layers"] = [layers_of(run) for run in found.values()]
    runs["layer"] = [layer if isinstance(layer, int) else default_layer(r) for r in found.values()]
    digests = {run_id: run.tag("world_digest") for run_id, run in trained.runs.items()}
    runs["world_digest"] = runs["model_run_id"].map(digests).fillna("")
    runs = choose(runs, "extraction", most_layers=layer == ALL)
    chosen = runs[runs["chosen"]]
    chosen = chosen.assign(left_out=_left_out(chosen["world_digest"]))
    kept = chosen[chosen["left_out"] == ""]
    if kept.empty:
        raise NothingThere(
            f"{source.place} has no finished training of the representations of "
            f"{_listed(wanted, trained)}"
        )
    own = pd.MultiIndex.from_frame(kept[KEYS])
    of_kept = runs[pd.MultiIndex.from_frame(runs[KEYS]).isin(own)]
    others = chosen[chosen["left_out"] != ""].groupby("left_out")
    caveats = [f"{', '.join(names_of(rows))}: left out, {reason}" for reason, rows in others]
    caveats += run_caveats(of_kept, "extraction", found)
    absent = _absent(wanted, chosen, layer, trained)
    world, faults = _read_world(source, kept, names["world"])
    kept = kept.iloc[pairs.get_indexer(own).argsort()]
    return Extractions(source, kept, absent, [*caveats, *faults], world)


def _is_usable(run: StoredRun, layer: int | str) -> bool:
    """Whether an extraction has the layer, of the last checkpoint, with the default prompt."""
    model = known_model(run.tag("model"))
    if model is None or run.setting("n_layers") is None:  # not one of ours
        return False
    prompt = model.tasks[0], str(tuple(POSITIONS))
    asked = run.params.get("cfg.extract_task"), run.params.get("cfg.extract_positions")
    wanted = layer if isinstance(layer, int) else default_layer(run)
    return run.tag("checkpoints") == LAST and asked == prompt and wanted in layers_of(run)


def _left_out(digests: pd.Series) -> list[str]:
    """Return why each run is left out for its cities; empty if it has those that most have."""
    usual = next(iter(Counter(filter(None, digests)).most_common(1)), ("", 0))[0]
    return [UNKNOWN_CITIES if not d else OTHER_CITIES if d != usual else "" for d in digests]


def _absent(
    wanted: pd.DataFrame, chosen: pd.DataFrame, layer: int | str, trained: Trained
) -> list[dict[str, Any]]:
    """Return the models and seeds that have no extraction, or one that is left out."""
    none = "no representations" + (f" of layer {layer}" if isinstance(layer, int) else "")
    layers = {} if layer == DEFAULT else {"layers": layer}

    def why(row: Any) -> tuple[str, str]:
        command = trained.to_extract(parse_model(row.model), row.seed, **layers)
        return row.left_out or none, "" if row.left_out == OTHER_CITIES else command

    wanted = wanted.merge(chosen[[*KEYS, "left_out"]], how="left", on=KEYS).fillna("")
    kept = pd.MultiIndex.from_frame(chosen.loc[chosen["left_out"] == "", KEYS])
    gaps = with_reasons(wanted[~pd.MultiIndex.from_frame(wanted[KEYS]).isin(kept)], why)
    return gaps[[*KEYS, "reason", "command"]].to_dict("records")


def _read_world(source: Source, runs: pd.DataFrame, variant: str) -> tuple[World, list[str]]:
    """Read the cities that the runs share from the first training that has them; and caveats."""
    faults: list[str] = []
    for run_id, digest in dict(
        zip(runs["model_run_id"], runs["world_digest"], strict=True)
    ).items():
        try:
            read = partial(load_world, variant=variant, digest=digest)
            return _with_short_names(source.read(run_id, CITIES, read)), faults
        except StateError as fault:
            faults.append(str(fault))
    raise StateError(faults[0])


def _with_short_names(world: World) -> World:
    cities = world.cities
    shown = {key: cities[key].map(lambda text: line(text, LONGEST_NAME)) for key in NAMES}
    return World(world.variant, cities.assign(**shown))


def _load_only_step(folder: Path) -> tuple[Tables, dict[str, Any]]:
    steps = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if len(steps) != 1:
        raise DamagedError(folder, f"it has {len(steps)} steps instead of one")
    return load_representations(steps[0])


def _listed(wanted: pd.DataFrame, trained: Trained) -> str:
    models = wanted["model"].unique()
    shown = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    single = [trained.to_extract(parse_model(row.model), row.seed) for row in wanted.itertuples()]
    commands = in_order(chain.from_iterable(fewest_commands(single).values()))
    return f"{shown}; make them with: {', then '.join(commands[:SHOWN_COMMANDS])}"


def parse_layer(text: str, *further: str) -> int | str:
    """Parse a number, `default`, or one of further words. Raises InputError for anything else."""
    typed, words = text.strip(), (DEFAULT, *further)
    if typed in words:
        return typed
    if not (typed.isascii() and typed.isdecimal()):
        allowed = ", ".join(map(repr, words))
        raise InputError(f"layer={text!r} is neither {allowed} nor a number such as 3")
    return int(typed)


def check_depth(layer: int | str, runs: Iterable[StoredRun]) -> None:
    """Raise InputError for a number above the layers of all these models."""
    deepest = max((run.setting("n_layers") or 0 for run in runs), default=0)
    if isinstance(layer, int) and layer > deepest:
        raise InputError(f"layer={layer} is too deep: these models have layers 0 to {deepest}")


def default_layer(run: StoredRun) -> int:
    """Return the layer that an extraction of this model takes by default."""
    return min(DEFAULT_LAYER, max(0, (run.setting("n_layers") or 0) - 1))


def layers_of(run: StoredRun) -> tuple[int, ...]:
    """Return the layers that an extraction has, such as (0, 3); empty if it does not say."""
    text = run.params.get("cfg.extract_layers", "")
    return tuple(map(int, re.findall(r"\b[0-9]{1,4}\b", text)))
