"""Timing of calls, and the training steps that several benchmarks time."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldrep.names import TASK_NAMES, ModelName
from worldrep.settings import Settings

BLOCK = 5  # steps


def synchronize() -> None:
    """Wait for the device, if torch is imported."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, including its work on the device, and its result."""
    synchronize()
    begun = time.perf_counter()
    result = work()
    synchronize()
    return time.perf_counter() - begun, result


def in_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Call several functions in turn; return the median seconds and the last result of each."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for way, work in ways.items():
            passed, results[way] = timed(work)
            seconds[way].append(passed)
    return {way: statistics.median(found) for way, found in seconds.items()}, results


@dataclass(frozen=True)
class Sample:
    """Settings of a pt1, the row maker of its world, and some of its training rows."""

    settings: Settings
    maker: Any
    rows: NDArray[np.uint8]


def sample(scale: str, width: str, steps: int, **overrides: Any) -> Sample:
    """Make the rows for one epoch of at least `steps` steps, of all tasks."""
    from worldrep.data.sets import maker_of, stack_rows, training_sets
    from worldrep.scales import resolve

    name = ModelName("pt1", width=width)
    batch_size = overrides.get("batch_size") or resolve(name, scale=scale).batch_size
    overrides["pretrain_rows"] = -(-steps * batch_size // len(TASK_NAMES))
    settings = resolve(name, scale=scale, overrides=overrides)
    maker = maker_of(settings)
    return Sample(settings, maker, stack_rows(maker, training_sets(settings, maker.world)))


class Ours:
    """Training steps of worldrep, a block at a time.

    seconds, losses: Of each block; a loss is the mean over the block.
    """

    def __init__(self, found: Sample) -> None:
        from worldrep.model.qwen2 import build_model
        from worldrep.training.feed import RowFeed
        from worldrep.training.state import Training, make_accelerator
        from worldrep.training.steps import steps_of

        accelerator = make_accelerator(found.settings)
        self.training = Training(build_model(found.settings), found.settings, accelerator)
        self.feed = RowFeed(found.rows, found.settings, accelerator.device)
        self.steps = steps_of(self.training, self.feed)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def batches(self, block: int) -> list[NDArray[np.int64]]:
        """Return the row indices of the steps of a block."""
        return [self.feed.batch(step) for step in range(block * BLOCK, (block + 1) * BLOCK)]

    def tokens(self, block: int) -> int:
        """Count the tokens of a block without padding."""
        return sum(self.feed.token_count(batch) for batch in self.batches(block))

    def take_block(self) -> None:
        """Take the steps of the next block."""
        seconds, numbers = timed(self._block)
        self.seconds.append(seconds)
        self.losses.append(numbers["train/loss"])

    def _block(self) -> dict[str, float]:
        for _ in range(BLOCK):
            self.steps.take()
        return self.steps.read()
