"""Which rows a training step sees, as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worldrep.data.encoding import Tokens, pad_together
from worldrep.data.tokenizer import EQUALS, PAD
from worldrep.digests import random_stream
from worldrep.model.layout import GROUP_ROWS, Layout, SharedRows, on_device
from worldrep.settings import Settings
from worldrep.training.strategies.replay import Replay, replayed_rows


@dataclass(frozen=True)
class PackedBatch:
    """Rows laid end to end: T input tokens, at M of which the loss asks for what follows.

    tokens: (T,); at: (M,) places among the T; asked: (K,) which of the M each target belongs to,
    for rows that share a prefix but go on differently; targets: (K,).
    """

    tokens: torch.Tensor
    layout: Layout
    at: torch.Tensor
    asked: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """How many steps a training has, and at which of them something happens.

    rows, batch_size: of those that an epoch passes over, without replayed ones.
    """

    rows: int
    batch_size: int
    epochs: int

    @classmethod
    def of(cls, settings: Settings, rows: int) -> Schedule:
        """The schedule of a training on so many rows."""
        return cls(rows, settings.batch_size - replayed_rows(settings), settings.epochs)

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be smaller."""
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def marks(self, count: int) -> set[int]:
        """`count` evenly spaced steps, the last one of the training among them."""
        return {max(1, round(self.steps * i / count)) for i in range(1, count + 1)}


class RowFeed:
    """Batches of rows, packed on the host and sent to the device.

    The order of rows depends on the seed and the epoch alone, and a step takes the same rows
    however many processes share it. An epoch passes over `own` (n, length) once; beside those each
    batch holds its share of replayed ones from `base_rows` (m, length). rows: both, stacked.
    """

    def __init__(
        self, own: Tokens, settings: Settings, device: torch.device, base_rows: Tokens | None = None
    ) -> None:
        self.schedule = Schedule.of(settings, len(own))
        self._replay, rows = None, own
        if base_rows is not None and (count := replayed_rows(settings)):
            self._replay = Replay(len(base_rows), count, settings.seed)
            rows = pad_together([own, base_rows])
        self.rows, self._device = rows, device
        self._lengths = (rows != PAD).sum(axis=1).astype(np.int64)
        starts = (rows == EQUALS).argmax(axis=1) if settings.loss == "answer" else 0
        self._first_targets = np.broadcast_to(starts, len(rows)).astype(np.int64)
        self._seed, self._epoch, self._order = settings.seed, -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the rows of step 0, 1, ..., over all processes."""
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
        """Input tokens, all but each row's last, that no batch of the training exceeds."""
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
        """Tokens that the loss of these rows covers."""
        return int((self._lengths[batch] - 1 - self._first_targets[batch]).sum())

    def token_count(self, batch: NDArray[np.int64]) -> int:
        """Tokens of these rows, their last ones included."""
        return int(self._lengths[batch].sum())

    def tensors(self, batch: NDArray[np.int64]) -> PackedBatch:
        """Rows of the batch, packed: their tokens but the last, and what the loss asks for."""
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
