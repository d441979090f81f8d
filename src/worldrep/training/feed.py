"""Which rows each training step takes, as packed tensors on the device."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldrep.data.sets import Schedule, replayed_rows
from worldrep.data.tokens import EQUALS, PAD, Tokens, stack_padded
from worldrep.digests import random_stream
from worldrep.model.linear import padded
from worldrep.model.packed import GROUP_ROWS, Layout, SharedRows, on_device
from worldrep.settings import Settings


@dataclass(frozen=True)
class PackedBatch:
    """Rows laid end to end: T input tokens, M of which have K targets.

    Rows that share a prefix can have several targets at one token.
    """

    tokens: Tensor  # (T,) input tokens
    layout: Layout
    at: Tensor  # (M,) indices of the tokens that have targets
    asked: Tensor  # (K,) index into `at` for each target
    targets: Tensor  # (K,) tokens to predict


@lru_cache(maxsize=2)  # the orders of the current epoch and of the current pass over base rows
def _order(seed: int, label: str, number: int, n: int) -> NDArray[np.int64]:
    return random_stream(seed, label, number).permutation(n)


def replay(step: int, count: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return the `count` of `n` rows that step 0, 1, ... replays; none recurs before all were."""
    passes, within = np.divmod(np.arange(step * count, (step + 1) * count), n)
    found = np.empty(count, dtype=np.int64)
    for number in np.unique(passes).tolist():
        chosen = passes == number
        found[chosen] = _order(seed, "replay order", number, n)[within[chosen]]
    return found


class RowFeed:
    """Selects and packs the batches of a training on rows (n, length).

    The order of rows depends on the seed and the epoch alone, and a step takes the same rows
    however many processes share it. With the strategy `replay`, a batch ends with its share of
    base_rows (m, length), which are stacked below the own rows in `rows`.
    """

    def __init__(
        self, own: Tokens, settings: Settings, device: torch.device, base_rows: Tokens | None = None
    ) -> None:
        self.schedule = Schedule.of(settings, len(own))
        self.rows, self._device, self._seed, self._replays = own, device, settings.seed, 0
        if base_rows is not None and (count := replayed_rows(settings)):
            self.rows, self._replays = stack_padded([own, base_rows]), count
        self._lengths = (self.rows != PAD).sum(axis=1).astype(np.int64)
        starts = (self.rows == EQUALS).argmax(axis=1) if settings.loss == "answer" else 0
        self._first_targets = np.broadcast_to(starts, len(self.rows)).astype(np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the rows of step 0, 1, ..., over all processes."""
        epoch, place = divmod(step, self.schedule.steps_per_epoch)
        size = self.schedule.batch_size
        own = self._order_of(epoch)[place * size : (place + 1) * size]
        return np.concatenate([own, self._replayed(step)]) if self._replays else own

    def _replayed(self, step: int) -> NDArray[np.int64]:
        own = self.schedule.rows
        return own + replay(step, self._replays, len(self.rows) - own, self._seed)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return _order(self._seed, "row order", epoch, self.schedule.rows)

    def most_tokens(self) -> int:
        """Return a bound on the input tokens of any batch; a row's last token is no input."""
        inputs, schedule = self._lengths - 1, self.schedule
        starts = np.arange(0, schedule.rows, schedule.batch_size)
        orders = map(self._order_of, range(schedule.epochs))
        most = max(int(np.add.reduceat(inputs[order], starts).max()) for order in orders)
        if not self._replays:
            return most
        return most + max(int(inputs[self._replayed(i)].sum()) for i in range(schedule.steps))

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
        arrays = shared.tokens, padded(at), asked, rows[:, 1:][due]
        tokens, places, whose, targets = (on_device(part, self._device) for part in arrays)
        layout = shared.layout(self._device, max(1, len(batch) // GROUP_ROWS))
        return PackedBatch(tokens.long(), layout, places, whose, targets.long())
