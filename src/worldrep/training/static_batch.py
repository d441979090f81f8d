"""A packed batch made on the device itself, of a shape that never changes.

Nothing is shared between rows and nobody waits for a count: what one CUDA graph can hold.

Shapes: N rows, L their stored length, T the capacity, of which the batch fills a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldrep.data.tokenizer import EQUALS, PAD
from worldrep.model.layout import Layout


@dataclass(frozen=True)
class StaticBatch:
    """T input tokens (T,) with their targets (T,) and the weight (T,) of each in the mean loss.

    Weights are 0 where no target is due and behind the batch's last token.
    """

    tokens: Tensor
    layout: Layout
    targets: Tensor
    weights: Tensor


def pack_static(rows: Tensor, capacity: int, answer_only: bool) -> StaticBatch:
    """Pack token rows (N, L); a row may be empty. Their input tokens, all but each row's last, must
    not be more than `capacity`.
    """
    device, longest = rows.device, rows.shape[1] - 1
    lengths = (rows != PAD).sum(dim=1, keepdim=True) - 1
    columns = torch.arange(longest, device=device)
    present = columns < lengths
    firsts = (rows == EQUALS).int().argmax(dim=1, keepdim=True) if answer_only else 0
    due = present & (columns >= firsts)
    number = present.flatten().cumsum(0) - 1
    cells = torch.arange(present.numel(), device=device)
    slots = torch.where(present.flatten(), number, capacity)  # all others end in one more slot
    places = torch.zeros(capacity + 1, dtype=torch.long, device=device)
    places = places.scatter(0, slots, cells)[:capacity]
    filled = torch.arange(capacity, device=device) <= number[-1]
    weights = (due.flatten()[places] & filled) / due.sum().clamp(min=1)
    # Cells behind a row's end name any token; all the same one would queue up in the backward.
    gather = torch.where(present.flatten(), number, cells % capacity).view_as(present)
    inputs, targets = rows[:, :-1].flatten()[places], rows[:, 1:].flatten()[places]
    return StaticBatch(inputs, Layout((gather,), places, places % longest), targets, weights)
