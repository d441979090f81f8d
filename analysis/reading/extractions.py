"""Representations from the store: which extraction stands for a model, and its tables.

Only finished extractions of one scale, width and world, at the last checkpoint and with the prompt
of the model's first trained task, are read. Where there are several of one model and seed that have
the layer, one of the model as its name stands today is preferred, then the newest. Models of other
cities than most are left out, and said to be: their rows are not the same cities.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import ALL
from analysis.reading.commands import Commands
from analysis.reading.evaluations import is_current
from analysis.reading.source import Source
from analysis.reading.trainings import Trainings
from worldrep.errors import StateError
from worldrep.names import ModelName, parse_model
from worldrep.representations import load_representations
from worldrep.request import DEFAULT_LAYER, POSITIONS
from worldrep.tracking import StoredRun
from worldrep.tracking.records import CITIES
from worldrep.world import World

COLUMNS = [
    "run_id", "run_name", "model", "seed", "why", "ended", "model_run_id", "base_run_id",
    "layers", "world_digest",
]  # fmt: skip


@dataclass(frozen=True)
class Extractions:
    """One extraction for each model and seed that has one.

    runs: indexed by run_id, COLUMNS; absent: (model, seed) that were asked for and have none, with
    the reason and the command that makes it; caveats: what a reader has to know.
    """

    source: Source
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]
    world: World

    def run_of(self, model: str, seed: int) -> str | None:
        """The run id of a model's extraction."""
        found = self.runs.index[(self.runs["model"] == model) & (self.runs["seed"] == seed)]
        return found[0] if len(found) else None

    def table(self, run_id: str, layer: int) -> NDArray[np.float32]:
        """(n_cities, positions * hidden size) of one layer, rows in the order of the world.

        Raises StateError when the file is not there or is of other cities than it says.
        """
        folder = _step_folder(self.source, run_id)
        tables, manifest = load_representations(folder)
        if manifest["city_ids"] != self.world.cities["city_id"].tolist():
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
    trainings: Trainings,
    asked: Iterable[tuple[ModelName, int]],
    commands: Commands,
    *,
    layer: int | str | None = None,
    **names: str,
) -> Extractions:
    """The extractions of some models and seeds.

    layer: None for each model's default (5, or the last but one of a shallower model), `all` for
    those that have it, the ones with most layers first; names: what they have in common: scale,
    width, world. Raises StateError when there is none at all.
    """
    asked = list(asked)
    wanted = {(str(model), seed) for model, seed in asked}
    candidates: dict[tuple[str, int], list[StoredRun]] = {key: [] for key in wanted}
    for run in source.runs(stage="extract", **names):
        key = run.tag("model"), int(run.tag("seed"))
        if key in wanted and _would_do(run, layer):
            candidates[key].append(run)
    rows = [_row(runs, trainings, layer == ALL) for runs in candidates.values() if runs]
    if not rows:
        raise StateError(f"{source.place} has no representations of {_in_words(asked)}")
    table = pd.DataFrame(rows, columns=COLUMNS).set_index("run_id")
    kept, caveats = _of_one_world(table)
    world = read_world(source, kept, names["world"])
    have = set(zip(kept["model"], kept["seed"], strict=True))
    other = set(zip(table["model"], table["seed"], strict=True)) - have
    further = {} if layer is None else {"layers": layer}
    absent = [
        {
            "model": str(model),
            "seed": seed,
            "reason": "extracted from other cities" if (str(model), seed) in other
            else "no representations" + (f" of layer {layer}" if isinstance(layer, int) else ""),
            "command": commands.extract(model, seed, **further),
        }
        for model, seed in asked
        if (str(model), seed) not in have
    ]  # fmt: skip
    return Extractions(source, kept, absent, caveats, world)


def default_layer(run: StoredRun) -> int:
    """The layer that an extraction of this model takes when none is named."""
    return min(DEFAULT_LAYER, max(0, int(run.params["cfg.n_layers"]) - 1))


def layers_of(run: StoredRun) -> tuple[int, ...]:
    """The layers that an extraction holds."""
    return tuple(ast.literal_eval(run.params.get("cfg.extract_layers", "()")))


def _would_do(run: StoredRun, layer: int | str | None) -> bool:
    """Whether an extraction is of the last checkpoint, the usual prompt, and has the layer."""
    tasks = parse_model(run.tag("model")).tasks
    positions = run.params.get("cfg.extract_positions")
    usual = run.params.get("cfg.extract_task") == tasks[0] and positions == str(tuple(POSITIONS))
    wanted = layer if isinstance(layer, int) else default_layer(run)
    return run.tag("checkpoints") in ("", "last") and usual and wanted in layers_of(run)


def _row(runs: Sequence[StoredRun], trainings: Trainings, widest: bool) -> dict[str, Any]:
    """The extraction to use, of several of one model and seed, the newest first."""

    def rank(run: StoredRun) -> tuple[bool, int]:
        return not is_current(run, trainings), -len(layers_of(run)) if widest else 0

    run = min(runs, key=rank)
    training = trainings.get(run.tag("model_run_id"))
    return {
        "run_id": run.id,
        "run_name": run.name,
        "model": run.tag("model"),
        "seed": int(run.tag("seed")),
        "why": f"the newest of {len(runs)} that would do" if len(runs) > 1 else "the only one",
        "ended": pd.Timestamp(run.ended, unit="s", tz="UTC").floor("s"),
        "model_run_id": run.tag("model_run_id"),
        "base_run_id": run.tag("base_run_id"),
        "layers": layers_of(run),
        "world_digest": training.run.tag("world_digest") if training else "",
    }


def _of_one_world(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the cities that most models have, and a caveat about the others."""
    usual = Counter(table["world_digest"]).most_common(1)[0][0]
    other = table[table["world_digest"] != usual]
    if other.empty:
        return table, []
    names = ", ".join(f"{run.model} seed {run.seed}" for run in other.itertuples())
    return table[table["world_digest"] == usual], [
        f"{names}: left out, their representations are of other cities than those of the "
        f"{len(table) - len(other)} others"
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
