"""Which rows a training step sees, as tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worldrep.digests import random_stream
from worldrep.encoding import Tokens
from worldrep.packed import Layout
from worldrep.settings import Settings
from worldrep.tokenizer import EQUALS, PAD


@dataclass(frozen=True)
class PackedBatch:
    """Rows laid end to end: T input tokens, of which M predict a token that the loss covers."""

    tokens: torch.Tensor  # (T,)
    layout: Layout
    at: torch.Tensor  # (M,) places among the T
    targets: torch.Tensor  # (M,)


@dataclass(frozen=True)
class Schedule:
    """How many steps a training has, and at which of them something happens."""

    rows: int
    batch_size: int
    epochs: int

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
    """All rows on the device; batches are index slices of them.

    The order of rows depends on the seed and the epoch alone, and a step takes the same rows however
    many processes share it.
    """

    def __init__(self, rows: Tokens, settings: Settings, device: torch.device) -> None:
        self.schedule = Schedule(len(rows), settings.batch_size, settings.epochs)
        self._tokens = torch.from_numpy(np.array(rows)).to(device)
        self._lengths = (rows != PAD).sum(axis=1).astype(np.int64)
        starts = (rows == EQUALS).argmax(axis=1) if settings.loss == "answer" else 0
        self._first_targets = np.broadcast_to(starts, len(rows)).astype(np.int64)
        self._seed, self._epoch, self._order = settings.seed, -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the rows of step 0, 1, ..., over all processes."""
        epoch, place = divmod(step, self.schedule.steps_per_epoch)
        if epoch != self._epoch:
            rng = random_stream(self._seed, "row order", epoch)
            self._order, self._epoch = rng.permutation(self.schedule.rows), epoch
        size = self.schedule.batch_size
        return self._order[place * size : (place + 1) * size]

    def target_count(self, batch: NDArray[np.int64]) -> int:
        """Tokens that the loss of these rows covers."""
        return int((self._lengths[batch] - 1 - self._first_targets[batch]).sum())

    def token_count(self, batch: NDArray[np.int64]) -> int:
        return int(self._lengths[batch].sum())

    def tensors(self, batch: NDArray[np.int64]) -> PackedBatch:
        """Rows of the batch, packed: their tokens but the last, and what the loss asks for."""
        lengths = self._lengths[batch] - 1
        rows = np.repeat(np.arange(len(batch)), lengths)
        columns = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
        due = np.flatnonzero(columns >= self._first_targets[batch][rows])
        device = self._tokens.device
        places = batch[rows] * self._tokens.shape[1] + columns
        flat, at, place, row, column = (
            torch.from_numpy(array).to(device, non_blocking=True)
            for array in (places, due, places[due] + 1, rows, columns)
        )
        layout = Layout(row, column, (len(batch), int(lengths.max())))
        tokens = self._tokens.view(-1)
        return PackedBatch(tokens[flat].long(), layout, at, tokens[place].long())
