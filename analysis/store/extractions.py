"""Representations from the store: which extraction stands for a model, and its tables.

Only finished extractions of one scale, width and world, at the last checkpoint and with the prompt
of the model's first trained task, are read. Where there are several of one model and seed that have
the layer, one of the model as its name stands today is preferred, then the newest (for all layers:
the one with most of them). Models of other cities than most are left out, and said to be: their
rows are not the same cities.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError

from analysis.options import ALL
from analysis.store.caveats import currency_caveats, duplicate_caveats, setting_caveats
from analysis.store.choice import NothingThere
from analysis.store.runs import choose, run_table, training_id
from analysis.store.source import Source
from analysis.store.trainings import Trained
from worldrep.data.world import World
from worldrep.errors import InputError, StateError
from worldrep.evaluation.representations import DEFAULT_LAYER, POSITIONS, load_representations
from worldrep.names import ModelName, parse_model
from worldrep.tracking import CITIES, StoredRun

DEFAULT, LAYERS = "default", "cfg.extract_layers"
OTHER_CITIES = "extracted from other cities"
UNKNOWN_CITIES = "extracted from a training that is not finished or not in the store"


@dataclass(frozen=True)
class Extractions:
    """One extraction for each model and seed that has one.

    runs: indexed by run_id, as of `choose`, layers and world_digest; absent: (model, seed) that
    were asked for and have none, with the reason and the command that makes it; caveats: what a
    reader has to know.
    """

    source: Source
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]
    world: World

    def table(self, run_id: str, layer: int) -> NDArray[np.float32]:
        """(n_cities, positions * hidden size) of one layer, rows in the order of the world.

        Raises StateError when the file is not there or damaged, or of other cities than it says.
        """
        folder = _step_folder(self.source, run_id)
        try:
            tables, manifest = load_representations(folder)
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
        """The layers that every one of them has."""
        common = set.intersection(*(set(layers) for layers in self.runs["layers"]))
        return sorted(common)


def _step_folder(source: Source, run_id: str) -> Path:
    folders = sorted(source.path(run_id, "representations").glob("step-*"))
    if not folders:
        raise StateError(f"extraction {run_id} has no representations")
    return folders[-1]


def read_extractions(
    source: Source,
    trained: Trained,
    asked: Iterable[tuple[ModelName, int]],
    *,
    layer: int | str = DEFAULT,
    **names: str,
) -> Extractions:
    """The extractions of some models and seeds.

    layer: a number, `default` for each model's own (5, or the last but one of a shallower model),
    `all` for the extraction with most of them; names: what they have in common: scale, width,
    world. Raises NothingThere when there is none at all, StateError when the cities of the models
    cannot be read.
    """
    asked = list(asked)
    wanted = {(str(model), seed) for model, seed in asked}
    found = {
        run.id: run
        for run in source.runs(stage="extract", **names)
        if (run.tag("model"), int(run.tag("seed"))) in wanted and _would_do(run, layer)
    }
    if not found:
        raise NothingThere(f"{source.place} has no representations of {_in_words(asked)}")
    table = choose(_run_table(found.values(), trained), "extraction", most_layers=layer == ALL)
    chosen = table[table["chosen"]]
    kept, left_out = _of_one_world(chosen)
    if kept.empty:
        raise NothingThere(
            f"{source.place} has no finished training behind the representations of "
            f"{_in_words(asked)}"
        )
    world = read_world(source, kept, names["world"])
    have = set(zip(kept["model"], kept["seed"], strict=True))
    reasons = {
        (run.model, run.seed): why for why, rows in left_out.items() for run in rows.itertuples()
    }
    none = "no representations" + (f" of layer {layer}" if isinstance(layer, int) else "")
    further = {} if layer == DEFAULT else {"layers": layer}
    absent = [
        {
            "model": str(model),
            "seed": seed,
            "reason": reasons.get((str(model), seed), none),
            "command": ""
            if reasons.get((str(model), seed)) == OTHER_CITIES
            else trained.commands.extract(model, seed, **further),
        }
        for model, seed in asked
        if (str(model), seed) not in have
    ]
    of_kept = [key in have for key in zip(table["model"], table["seed"], strict=True)]
    caveats = [
        *_left_out_caveats(left_out, len(kept)),
        *duplicate_caveats(table[of_kept], "extraction", found),
        *currency_caveats(kept),
        *setting_caveats(found[run_id] for run_id in kept.index),
    ]
    return Extractions(source, kept, absent, caveats, world)


def parse_layer(text: str, *further: str) -> int | str:
    """A number, `default`, or one of further words. Raises InputError for anything else."""
    typed, words = text.strip(), (DEFAULT, *further)
    if typed in words:
        return typed
    if not (typed.isascii() and typed.isdecimal()):
        allowed = ", ".join(map(repr, words))
        raise InputError(f"layer={text!r} is neither {allowed} nor a number such as 3")
    return int(typed)


def check_depth(layer: int | str, runs: Iterable[StoredRun]) -> None:
    """Raise InputError for a number that is beyond the layers of all these models."""
    deepest = max((int(run.params.get("cfg.n_layers", 0)) for run in runs), default=0)
    if isinstance(layer, int) and layer > deepest:
        raise InputError(f"layer={layer} is too deep: these models have layers 0 to {deepest}")


def default_layer(run: StoredRun) -> int:
    """The layer that an extraction of this model takes when none is named."""
    return min(DEFAULT_LAYER, max(0, int(run.params.get("cfg.n_layers", 0)) - 1))


def layers_of(run: StoredRun) -> tuple[int, ...]:
    """The layers that an extraction holds, such as `(0, 3)`; none if it does not say."""
    return tuple(int(number) for number in re.findall(r"\d+", run.params.get(LAYERS, "")))


def _would_do(run: StoredRun, layer: int | str) -> bool:
    """Whether an extraction is of the last checkpoint, the usual prompt, and has the layer."""
    tasks = parse_model(run.tag("model")).tasks
    positions = run.params.get("cfg.extract_positions")
    usual = run.params.get("cfg.extract_task") == tasks[0] and positions == str(tuple(POSITIONS))
    if "cfg.n_layers" not in run.params:  # not of ours
        return False
    wanted = layer if isinstance(layer, int) else default_layer(run)
    return run.tag("checkpoints") in ("", "last") and usual and wanted in layers_of(run)


def _run_table(runs: Collection[StoredRun], trained: Trained) -> pd.DataFrame:
    """As `run_table`, with the layers and the cities of each; no cities if they are not known."""
    trainings = [trained.runs.get(training_id(run)) for run in runs]
    return run_table(runs, trained.current).assign(
        layers=[layers_of(run) for run in runs],
        world_digest=[training.tag("world_digest") if training else "" for training in trainings],
    )


def _of_one_world(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The rows of the cities that most models have; the others, by why they are left out."""
    is_known = table["world_digest"] != ""
    usual = Counter(table["world_digest"][is_known]).most_common(1)
    kept = table[table["world_digest"] == (usual[0][0] if usual else None)]
    is_other = is_known & ~table.index.isin(kept.index)
    return kept, {OTHER_CITIES: table[is_other], UNKNOWN_CITIES: table[~is_known]}


def _left_out_caveats(left_out: Mapping[str, pd.DataFrame], n_kept: int) -> list[str]:
    why = {
        OTHER_CITIES: "their representations are of other cities than those of the "
        f"{n_kept} others",
        UNKNOWN_CITIES: "their trainings are not finished or not in the store, so that nothing "
        "says which cities they are of",
    }
    return [
        ", ".join(f"{run.model} seed {run.seed}" for run in rows.itertuples())
        + f": left out, {why[reason]}"
        for reason, rows in left_out.items()
        if len(rows)
    ]


def read_world(source: Source, runs: pd.DataFrame, variant: str) -> World:
    """The cities of models that share them, from the training run of the first.

    Raises StateError when they are not the ones that the training says.
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


def _in_words(asked: Sequence[tuple[ModelName, int]]) -> str:
    models = list(dict.fromkeys(str(model) for model, _ in asked))
    shown = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    return f"{shown}; `-e extract` makes them"
