"""The settings and the rows that several benchmarks measure on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldrep.errors import InputError
from worldrep.names import TASK_NAMES, ModelName
from worldrep.settings import Settings


@dataclass(frozen=True)
class Sample:
    """Settings of a pt1 at some scale and width, its world's row maker and a part of its rows."""

    settings: Settings
    maker: Any
    rows: NDArray[np.uint8]


def sample(scale: str, width: str, rows: int, **overrides: Any) -> Sample:
    """Rows of all tasks as pt1 is trained on, but so many of each."""
    from worldrep.data.sets import maker_of, stack_rows, training_sets
    from worldrep.scales import resolve

    name = ModelName("pt1", width=width)
    settings = resolve(name, scale=scale, overrides={"pretrain_rows": rows, **overrides})
    maker = maker_of(settings)
    return Sample(settings, maker, stack_rows(maker, training_sets(settings, maker.world)))


def rows_per_task(steps: int, batch_size: int) -> int:
    """Rows of each task that an epoch of at least so many steps needs."""
    return -(-steps * batch_size // len(TASK_NAMES))


def whole_numbers(text: str) -> list[int]:
    """Numbers such as `1,2,4` that an option lists. Raises InputError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{text!r} is not a list of whole numbers such as 1,2,4") from None
