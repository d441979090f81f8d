"""What an extraction is asked for: which layers, whose prompt, which places of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worldrep.errors import InputError, unknown
from worldrep.names import TASK_NAMES
from worldrep.settings import Settings

POSITIONS = {"last_digit": -2, "delimiter": -1}  # columns of the prompt `<bos>dist(c_0865,`
DEFAULT_LAYER = 5


@dataclass(frozen=True)
class Request:
    """What is taken from the hidden states: layers (0 = embeddings), prompt's task, positions."""

    layers: tuple[int, ...]
    task: str
    positions: tuple[str, ...] = tuple(POSITIONS)

    def as_dict(self) -> dict[str, Any]:
        return {"layers": self.layers, "task": self.task, "positions": self.positions}

    @staticmethod
    def parse(settings: Settings, layers: str, task: str, positions: str) -> Request:
        """A request from what the user typed; `default` is layer 5 (or the last but one of a
        shallower model), the model's first trained task, and both positions.

        Raises InputError for a layer that the model lacks, a task or a position not known.
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
