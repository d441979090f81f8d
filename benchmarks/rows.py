"""The model and the rows that several benchmarks measure on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldrep.names import ModelName
from worldrep.settings import Settings


@dataclass(frozen=True)
class Sample:
    """Settings of a pt1 at some scale and width, its world's row maker and a part of its rows."""

    settings: Settings
    maker: Any
    rows: NDArray[np.uint8]


def sample(scale: str, width: str, rows_per_task: int, **overrides: Any) -> Sample:
    """Rows of all tasks as pt1 is trained on, but fewer of them."""
    from worldrep.data import stack_rows, training_sets
    from worldrep.rows import RowMaker
    from worldrep.scales import resolve
    from worldrep.world import world_of

    name = ModelName("pt1", width=width)
    settings = resolve(name, scale=scale, overrides={"pretrain_rows": rows_per_task, **overrides})
    maker = RowMaker(world_of(settings), settings)
    return Sample(settings, maker, stack_rows(maker, training_sets(settings, maker.world)))


def synchronize() -> None:
    """Wait for the device, so that a clock read afterwards tells what it did."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
