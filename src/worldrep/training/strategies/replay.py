"""Replay: a fixed share of every batch is rows of all the tasks that the base was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldrep.digests import random_stream
from worldrep.settings import Settings


def replayed_rows(settings: Settings) -> int:
    """How many of a batch's rows are replayed; `batch_size` counts them."""
    share = settings.replay_share if settings.strategy == "replay" else 0.0
    return round(share * settings.batch_size)


class Replay:
    """Which of `n` rows each step goes back to, `count` at a time: all of them before any twice."""

    def __init__(self, n: int, count: int, seed: int) -> None:
        self._n, self._count, self._seed = n, count, seed
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Indices (count,) of step 0, 1, ..."""
        places = np.arange(step * self._count, (step + 1) * self._count)
        passes, within = np.divmod(places, self._n)
        found = np.empty(self._count, dtype=np.int64)
        for number in np.unique(passes):
            found[passes == number] = self._order_of(number)[within[passes == number]]
        return found

    def _order_of(self, number: int) -> NDArray[np.int64]:
        if number != self._pass:
            stream = random_stream(self._seed, "replay order", number)
            self._order, self._pass = stream.permutation(self._n), number
        return self._order
