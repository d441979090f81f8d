"""Representations of cities: what to take from the hidden states, and the files with the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from worldrep.errors import InputError, unknown
from worldrep.names import TASK_NAMES
from worldrep.settings import Settings

POSITIONS = {"last_digit": -2, "delimiter": -1}  # columns of the prompt `<bos>dist(c_0865,`
DEFAULT_LAYER = 5
TENSORS, MANIFEST = "representations.safetensors", "manifest.json"

Tables = dict[int, NDArray[np.float32]]  # layer -> (n_cities, positions * hidden size)


@dataclass(frozen=True)
class Request:
    """What to take from the hidden states.

    Attributes:
        layers: Indices of hidden states; 0 is the embeddings.
        task: The task whose prompt is used.
        positions: Positions in the prompt, among `POSITIONS`.
    """

    layers: tuple[int, ...]
    task: str
    positions: tuple[str, ...] = tuple(POSITIONS)

    def as_dict(self) -> dict[str, Any]:
        """Return the request as it is stored in manifests and params."""
        return {"layers": self.layers, "task": self.task, "positions": self.positions}

    @staticmethod
    def parse(
        settings: Settings,
        layers: str = "default",
        task: str = "default",
        positions: str = "default",
    ) -> Request:
        """Return the request for a model from what the user typed.

        Args:
            settings: Settings of the model.
            layers: Numbers such as `0,5`, `all`, or `default`: layer 5, or the last but one of a
                model with fewer layers.
            task: Name of a task, or `default`: the first task that the model was trained on.
            positions: Names such as `last_digit,delimiter`, or `default`: both.

        Raises:
            InputError: The model has no such layer, or a task or position is unknown.
        """
        deepest = settings.n_layers
        if layers == "default":
            chosen = [min(DEFAULT_LAYER, max(0, deepest - 1))]
        elif layers == "all":
            chosen = list(range(deepest + 1))
        else:
            chosen = [_layer(text, deepest) for text in layers.split(",")]
        task = settings.tasks[0] if task == "default" else task
        if task not in TASK_NAMES:
            raise unknown("task", task, TASK_NAMES)
        names = list(POSITIONS) if positions == "default" else positions.split(",")
        for name in names:
            if name not in POSITIONS:
                raise unknown("position", name, POSITIONS)
        return Request(tuple(dict.fromkeys(chosen)), task, tuple(dict.fromkeys(names)))


def _layer(text: str, deepest: int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > deepest:
        raise InputError(f"layer {text!r} is not one of the model's: 0 to {deepest}, or all")
    return int(text)


def save_representations(folder: Path, tables: Tables, manifest: Mapping[str, Any]) -> None:
    """Write tables to a safetensors file, under the names `layer_N`, and a manifest beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"layer_{layer}": table for layer, table in tables.items()}, folder / TENSORS)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def load_representations(folder: Path) -> tuple[Tables, dict[str, Any]]:
    """Return the tables by layer and the manifest that `save_representations` wrote."""
    tables = load_file(folder / TENSORS)
    named = {int(name.removeprefix("layer_")): table for name, table in tables.items()}
    return named, json.loads((folder / MANIFEST).read_text())
