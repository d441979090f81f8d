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
from worldrep.tokenizer import EQUALS, PAD, VOCABULARY

BRACKET = VOCABULARY.index("(")
CITY_MARK = "c_"  # stands before the digits of every city


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

    The order of rows depends on the seed and the epoch alone, and a step takes the same rows
    however many processes share it.
    """

    def __init__(self, rows: Tokens, settings: Settings, device: torch.device) -> None:
        self.schedule = Schedule(len(rows), settings.batch_size, settings.epochs)
        self._tokens = torch.from_numpy(np.array(rows)).to(device)
        self._lengths = (rows != PAD).sum(axis=1).astype(np.int64)
        starts = (rows == EQUALS).argmax(axis=1) if settings.loss == "answer" else 0
        self._prefix_lengths = (rows == BRACKET).argmax(axis=1) + 1 + len(CITY_MARK)
        self._prefixes = _prefix_keys(rows, self._prefix_lengths)
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
        """Rows of the batch, packed: their tokens but the last, and what the loss asks for.

        Rows of one task begin alike, up to the digits of the first city: the first of them holds
        that prefix for all.
        """
        lengths = self._lengths[batch] - 1
        n, longest = len(batch), int(lengths.max())
        columns = np.broadcast_to(np.arange(longest), (n, longest))
        present = columns < lengths[:, None]
        _, first, group = np.unique(self._prefixes[batch], return_index=True, return_inverse=True)
        owner = np.where(
            columns < self._prefix_lengths[batch][:, None],
            first[group][:, None],
            np.arange(n)[:, None],
        )
        own = present & (owner == np.arange(n)[:, None])
        number = own.cumsum().reshape(n, longest) - 1  # of each packed token
        gather = np.where(present, number[owner, columns], 0)
        places = np.flatnonzero(own)
        due = present & (columns >= self._first_targets[batch][:, None])
        at, asked = np.unique(gather[due], return_inverse=True)
        cells = batch[:, None] * self._tokens.shape[1] + columns
        arrays = gather, places, places % longest, at, asked, cells.ravel()[places], cells[due] + 1
        to = self._tokens.device
        tensors = [
            torch.from_numpy(np.ascontiguousarray(array)).to(to, non_blocking=True)
            for array in arrays
        ]
        inputs, targets = (self._tokens.view(-1)[cell].long() for cell in tensors[5:])
        return PackedBatch(inputs, Layout(*tensors[:3]), tensors[3], tensors[4], targets)


def _prefix_keys(rows: Tokens, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) a number for the first tokens of each row; equal prefixes, equal numbers.

    A polynomial hash modulo 2**64; a task's prefix is one of seven.
    """
    keys = np.zeros(len(rows), dtype=np.int64)
    for column in range(int(lengths.max())):
        keys = keys * 131 + np.where(column < lengths, rows[:, column], 0)
    return keys
