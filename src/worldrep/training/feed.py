"""Which rows each training step takes, as packed tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worldrep.data.tokens import EQUALS, PAD, Tokens, stack_padded
from worldrep.digests import random_stream
from worldrep.model.layout import GROUP_ROWS, Layout, SharedRows, on_device
from worldrep.settings import Settings


@dataclass(frozen=True)
class PackedBatch:
    """Rows laid end to end: T input tokens, M of which have targets.

    Attributes:
        tokens: (T,) input tokens.
        layout: How they stand in rows.
        at: (M,) indices of the tokens that have targets.
        asked: (K,) index into `at` for each target; rows that share a prefix can have several
            targets at one token.
        targets: (K,) tokens to predict.
    """

    tokens: torch.Tensor
    layout: Layout
    at: torch.Tensor
    asked: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """The number of steps of a training, and the steps at which something happens.

    Attributes:
        rows: Rows of an epoch, without replayed ones.
        batch_size: Rows of a batch, without replayed ones.
        epochs: Passes over the rows.
    """

    rows: int
    batch_size: int
    epochs: int

    @classmethod
    def of(cls, settings: Settings, rows: int) -> Schedule:
        """Return the schedule of a training on a number of rows."""
        return cls(rows, settings.batch_size - replayed_rows(settings), settings.epochs)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    def marks(self, count: int) -> set[int]:
        """Return `count` evenly spaced steps, the last one of the training among them."""
        return {max(1, round(self.steps * i / count)) for i in range(1, count + 1)}


def replayed_rows(settings: Settings) -> int:
    """Return how many rows of each batch are replayed from the base's training."""
    share = settings.replay_share if settings.strategy == "replay" else 0.0
    return round(share * settings.batch_size)


class Replay:
    """Chooses `count` of `n` rows for each step; no row recurs before all have been chosen."""

    def __init__(self, n: int, count: int, seed: int) -> None:
        self._n, self._count, self._seed = n, count, seed
        self._pass, self._order = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the indices (count,) of step 0, 1, ..."""
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


class RowFeed:
    """Selects and packs the batches of a training.

    The order of rows depends on the seed and the epoch alone, and a step takes the same rows
    however many processes share it. With the strategy `replay`, a batch ends with its share of
    rows of the base's training.

    Args:
        own: (n, length) rows to train on; an epoch takes each of them once.
        settings: Settings of the training.
        device: Where `tensors` puts its result.
        base_rows: (m, length) rows of the base's training, for `replay`.

    Attributes:
        schedule: The steps of the training.
        rows: All rows, own and replayed ones, stacked.
    """

    def __init__(
        self, own: Tokens, settings: Settings, device: torch.device, base_rows: Tokens | None = None
    ) -> None:
        self.schedule = Schedule.of(settings, len(own))
        self._replay, rows = None, own
        if base_rows is not None and (count := replayed_rows(settings)):
            self._replay = Replay(len(base_rows), count, settings.seed)
            rows = stack_padded([own, base_rows])
        self.rows, self._device = rows, device
        self._lengths = (rows != PAD).sum(axis=1).astype(np.int64)
        starts = (rows == EQUALS).argmax(axis=1) if settings.loss == "answer" else 0
        self._first_targets = np.broadcast_to(starts, len(rows)).astype(np.int64)
        self._seed, self._epoch, self._order = settings.seed, -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the rows of step 0, 1, ..., over all processes."""
        epoch, place = divmod(step, self.schedule.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._order_of(epoch), epoch
        size = self.schedule.batch_size
        own = self._order[place * size : (place + 1) * size]
        return np.concatenate([own, self._replayed(step)]) if self._replay else own

    def _replayed(self, step: int) -> NDArray[np.int64]:
        assert self._replay is not None
        return self.schedule.rows + self._replay.rows(step)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return random_stream(self._seed, "row order", epoch).permutation(self.schedule.rows)

    def most_tokens(self) -> int:
        """Return a bound on the input tokens of any batch; a row's last token is no input."""
        starts = np.arange(0, self.schedule.rows, self.schedule.batch_size)
        sums = (
            np.add.reduceat(self._lengths[self._order_of(epoch)] - 1, starts)
            for epoch in range(self.schedule.epochs)
        )
        most = max(int(tokens.max()) for tokens in sums)
        if self._replay is None:
            return most
        steps = range(self.schedule.steps)
        return most + max(int((self._lengths[self._replayed(i)] - 1).sum()) for i in steps)

    def target_count(self, batch: NDArray[np.int64]) -> int:
        """Return the number of tokens that the loss of these rows covers."""
        return int((self._lengths[batch] - 1 - self._first_targets[batch]).sum())

    def token_count(self, batch: NDArray[np.int64]) -> int:
        """Return the number of tokens of these rows, without padding."""
        return int(self._lengths[batch].sum())

    def tensors(self, batch: NDArray[np.int64]) -> PackedBatch:
        """Pack the rows with these indices: their tokens but the last, and their targets."""
        lengths = self._lengths[batch] - 1
        rows = self.rows[batch, : int(lengths.max()) + 1]
        columns = np.arange(rows.shape[1] - 1)
        inputs = np.where(columns < lengths[:, None], rows[:, :-1], PAD)
        shared = SharedRows.of(inputs)
        rows = rows[shared.order]
        firsts = self._first_targets[batch[shared.order]]
        due = (columns < shared.lengths[:, None]) & (columns >= firsts[:, None])
        at, asked = np.unique(shared.number[due], return_inverse=True)
        arrays = shared.tokens, at, asked, rows[:, 1:][due]
        tokens, places, whose, targets = (on_device(part, self._device) for part in arrays)
        groups = max(1, len(batch) // GROUP_ROWS)
        layout = shared.layout(self._device, groups)
        return PackedBatch(tokens.long(), layout, places, whose, targets.long())
