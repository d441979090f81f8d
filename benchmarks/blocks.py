"""Steps of our training, a block of them at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Sample
from benchmarks.turns import timed

BLOCK = 5  # steps


class Ours:
    """Our steps, a block at a time."""

    def __init__(self, found: Sample) -> None:
        from worldrep.model.qwen2 import build_model
        from worldrep.training.device import make_accelerator
        from worldrep.training.feed import RowFeed
        from worldrep.training.state import Training
        from worldrep.training.steps import steps_of

        accelerator = make_accelerator(found.settings)
        self.training = Training(build_model(found.settings), found.settings, accelerator)
        self.feed = RowFeed(found.rows, found.settings, accelerator.device)
        self.steps = steps_of(self.training, self.feed)
        self.losses: list[float] = []  # means of blocks
        self.seconds: list[float] = []

    def batches(self, block: int) -> list[NDArray[np.int64]]:
        return [self.feed.batch(step) for step in range(block * BLOCK, (block + 1) * BLOCK)]

    def tokens(self, block: int) -> int:
        return sum(self.feed.token_count(batch) for batch in self.batches(block))

    def take_block(self) -> None:
        seconds, numbers = timed(self._block)
        self.seconds.append(seconds)
        self.losses.append(numbers["train/loss"])

    def _block(self) -> dict[str, float]:
        for _ in range(BLOCK):
            self.steps.take()
        return self.steps.read()
