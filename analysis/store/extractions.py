"""Representations from the store: which extraction is used of a model, and its tables.

Only finished extractions of one scale, width and world, at the last checkpoint and with the prompt
of the model's first trained task, are read. Models with other cities than most are left out, as
their rows are not comparable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError

from analysis.options import ALL
from analysis.store.caveats import (
    OTHER_CITIES,
    UNKNOWN_CITIES,
    city_caveats,
    currency_caveats,
    duplicate_caveats,
    setting_caveats,
)
from analysis.store.missing import Commands, missing
from analysis.store.selection import (
    LAST,
    NothingThere,
    Trained,
    choose,
    run_table,
    training_id,
)
from analysis.store.source import Source
from worldrep.data.world import World
from worldrep.errors import InputError, StateError
from worldrep.evaluation.representations import DEFAULT_LAYER, POSITIONS, load_representations
from worldrep.names import ModelName, parse_model
from worldrep.tracking import CITIES, StoredRun

DEFAULT, LAYERS = "default", "cfg.extract_layers"
KEYS = ["model", "seed"]


@dataclass(frozen=True)
class Extractions:
    """One extraction of each model and seed that has one.

    runs: table of `choose` with layers and world_digest; absent: models and seeds without one, with
    reason and command; world: the cities that all of them have.
    """

    source: Source
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]
    world: World

    def table(self, run_id: str, layer: int) -> NDArray[np.float32]:
        """Return one layer, (n_cities, positions * hidden size), rows in the order of the world.

        Raises StateError if the file is missing or damaged, or has other cities than it should.
        """
        folders = sorted(self.source.path(run_id, "representations").glob("step-*"))
        if not folders:
            raise StateError(f"extraction {run_id} has no representations")
        try:
            tables, manifest = load_representations(folders[-1])
            city_ids = manifest["city_ids"]
        except (OSError, SafetensorError, ValueError, KeyError):
            raise StateError(f"the files of extraction {run_id} cannot be read") from None
        if city_ids != self.world.cities["city_id"].tolist():
            raise StateError(f"extraction {run_id} does not have the cities of its model's run")
        if layer not in tables or len(tables[layer]) != len(self.world.cities):
            raise StateError(f"extraction {run_id} does not hold layer {layer} of all its cities")
        return tables[layer]

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
    or `all` to prefer extractions with most layers.

    Raises:
        NothingThere: If there is no extraction.
        StateError: If the cities of the models cannot be read.
    """
    pairs = [(str(model), seed) for model, seed in asked]
    wanted = set(pairs)
    found = {
        run.id: run
        for run in source.runs(stage="extract", **names)
        if (run.tag("model"), int(run.tag("seed"))) in wanted and _is_usable(run, layer)
    }
    if not found:
        raise NothingThere(f"{source.place} has no representations of {_in_words(pairs)}")
    table = choose(_run_table(found.values(), trained), "extraction", most_layers=layer == ALL)
    chosen = table[table["chosen"]]
    chosen = chosen.assign(left_out=_left_out(chosen["world_digest"]))
    kept = chosen[chosen["left_out"] == ""].drop(columns="left_out")
    if kept.empty:
        raise NothingThere(
            f"{source.place} has no finished training behind the representations of "
            f"{_in_words(pairs)}"
        )
    of_kept = table.reset_index().merge(kept[KEYS], on=KEYS).set_index("run_id")
    caveats = [
        *city_caveats(chosen),
        *duplicate_caveats(of_kept, "extraction", found),
        *currency_caveats(kept),
        *setting_caveats(found[run_id] for run_id in kept.index),
    ]
    absent = _absent(pairs, chosen, layer, trained.commands)
    return Extractions(source, kept, absent, caveats, read_world(source, kept, names["world"]))


def _absent(
    pairs: Sequence[tuple[str, int]], chosen: pd.DataFrame, layer: int | str, commands: Commands
) -> list[dict[str, Any]]:
    """Return the models and seeds that have no extraction, or one that is left out."""
    none = "no representations" + (f" of layer {layer}" if isinstance(layer, int) else "")
    layers = {} if layer == DEFAULT else {"layers": layer}

    def why(row: Any) -> tuple[str, str]:
        if row.left_out == OTHER_CITIES:
            return row.left_out, ""
        command = commands.extract(parse_model(row.model), row.seed, **layers)
        return row.left_out or none, command

    wanted = pd.DataFrame(pairs, columns=KEYS)
    wanted = wanted.merge(chosen[[*KEYS, "left_out"]], how="left", on=KEYS).fillna("")
    kept = chosen[chosen["left_out"] == ""]
    return missing(wanted, kept, KEYS, why)[[*KEYS, "reason", "command"]].to_dict("records")


def _is_usable(run: StoredRun, layer: int | str) -> bool:
    """Whether an extraction has the layer, of the last checkpoint, with the default prompt."""
    if "cfg.n_layers" not in run.params:  # not one of ours
        return False
    task = parse_model(run.tag("model")).tasks[0]
    prompt = {"extract_task": task, "extract_positions": str(tuple(POSITIONS))}
    is_usual = all(run.params.get(f"cfg.{name}") == value for name, value in prompt.items())
    wanted = layer if isinstance(layer, int) else default_layer(run)
    return run.tag("checkpoints") == LAST and is_usual and wanted in layers_of(run)


def _run_table(runs: Collection[StoredRun], trained: Trained) -> pd.DataFrame:
    """Return the table of `run_table` with layers and world_digest, empty if it is not known."""
    trainings = [trained.runs.get(training_id(run)) for run in runs]
    return run_table(runs, trained.current).assign(
        layers=[layers_of(run) for run in runs],
        world_digest=[training.tag("world_digest") if training else "" for training in trainings],
    )


def _left_out(digests: pd.Series) -> list[str]:
    """Return why each run is left out for its cities; empty if it has those that most have."""
    usual = Counter(digests[digests != ""]).most_common(1)
    kept = usual[0][0] if usual else None
    return ["" if d == kept else OTHER_CITIES if d else UNKNOWN_CITIES for d in digests]


def read_world(source: Source, runs: pd.DataFrame, variant: str) -> World:
    """Read the cities of models that share them, from the training of the first.

    Raises StateError if their digest is not that of the training.
    """
    first = runs.iloc[0]
    run_id = first["model_run_id"]
    world = _world(str(source.path(run_id, CITIES)), variant)
    if world.digest != first["world_digest"]:
        raise StateError(f"run {run_id} does not hold the cities that it was trained on")
    return world


@lru_cache(maxsize=4)
def _world(path: str, variant: str) -> World:
    return World(variant, pd.read_csv(path, dtype={"city_id": str}, keep_default_na=False))


def _in_words(pairs: Sequence[tuple[str, int]]) -> str:
    models = list(dict.fromkeys(model for model, _ in pairs))
    shown = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    return f"{shown}; `-e extract` makes them"


# Layers


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
    deepest = max((int(run.params.get("cfg.n_layers", 0)) for run in runs), default=0)
    if isinstance(layer, int) and layer > deepest:
        raise InputError(f"layer={layer} is too deep: these models have layers 0 to {deepest}")


def default_layer(run: StoredRun) -> int:
    """Return the layer that an extraction of this model takes by default."""
    return min(DEFAULT_LAYER, max(0, int(run.params.get("cfg.n_layers", 0)) - 1))


def layers_of(run: StoredRun) -> tuple[int, ...]:
    """Return the layers that an extraction has, such as (0, 3); empty if it does not say."""
    return tuple(int(number) for number in re.findall(r"\d+", run.params.get(LAYERS, "")))
