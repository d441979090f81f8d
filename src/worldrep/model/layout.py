"""Which token stands where: rows laid end to end without padding, what they share held only once.

Shapes: N rows, L their longest length, T packed tokens, C anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from worldrep.data.encoding import Tokens
from worldrep.data.tokenizer import PAD

GROUP_ROWS = 32  # rows of similar length that attention sees together, at least


@dataclass(frozen=True)
class Layout:
    """How packed tokens stand in rows, and rows in groups of similar length.

    gathers: for each group (n, l) the packed token in each column of each row, any behind a row's
    end; several rows may name the same token, if all columns before it agree too. places: (T,) one
    of the cells of all groups, laid end to end, where each token stands. columns: (T,) its position
    in its row.
    """

    gathers: tuple[Tensor, ...]
    places: Tensor
    columns: Tensor

    @staticmethod
    def column(rows: int, device: torch.device | str = "cpu") -> Layout:
        """One token in each of so many rows."""
        each = torch.arange(rows, device=device)
        return Layout((each[:, None],), each, torch.zeros_like(each))

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """(T, C) -> (n, l, C) for each group."""
        return [take(packed, gather) for gather in self.gathers]

    def pack(self, groups: list[Tensor]) -> Tensor:
        """(n, l, C) of each group -> (T, C)."""
        cells = [group.flatten(0, 1) for group in groups]
        return take(cells[0] if len(cells) == 1 else torch.cat(cells), self.places)


def take(source: Tensor, index: Tensor) -> Tensor:
    """Rows of a (S, C) source: index (...) -> (..., C).

    On the CPU the backward of an embedding is the faster one, on CUDA it sorts and the other adds.
    """
    if source.device.type == "cpu":
        return F.embedding(index, source)
    return source.index_select(0, index.flatten()).view(*index.shape, -1)


def sorting(rows: Tokens) -> NDArray[np.int64]:
    """(N,) the order in which rows (N, L) with a common beginning are neighbours."""
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0].argsort(kind="stable")


@dataclass(frozen=True)
class SharedRows:
    """Sorted rows in which a prefix that neighbours have in common is held by the first of them.

    tokens: (T,) of all rows; order: (N,) the sorting of the rows that were given; number: (N, L)
    the packed token in each column, 0 behind a row's end; cells: (T,) where in (N, L) each token
    stands; lengths: (N,).
    """

    tokens: Tokens
    order: NDArray[np.int64]
    number: NDArray[np.int64]
    cells: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(rows: Tokens) -> SharedRows:
        """Token rows (N, L), each with at least one token that is not 0, and then only zeros."""
        order = sorting(rows)
        rows = rows[order]
        present = rows != PAD
        own = present.copy()
        own[1:] &= (rows[1:] != rows[:-1]).cumsum(axis=1, dtype=bool)
        places = np.where(own, (own.cumsum() - 1).reshape(own.shape), 0)
        number = np.maximum.accumulate(places, axis=0)  # a later token's number is higher
        cells, lengths = np.flatnonzero(own), present.sum(axis=1)
        return SharedRows(rows.ravel()[cells], order, np.where(present, number, 0), cells, lengths)

    def layout(self, device: torch.device | str = "cpu", groups: int = 1) -> Layout:
        """The rows in their sorted order, or in so many groups of similar length."""
        by_length = (
            self.lengths.argsort(kind="stable") if groups > 1 else np.arange(len(self.order))
        )
        gathers, seen, start = [], np.zeros(self.number.shape, dtype=np.int64), 0
        for members in np.array_split(by_length, groups):
            longest = int(self.lengths[members].max())
            gathers.append(self.number[members, :longest])
            size = gathers[-1].size
            cells = np.arange(start, start + size).reshape(gathers[-1].shape)
            seen[members, :longest] = cells
            start += size
        to = [*gathers, seen.ravel()[self.cells], self.cells % self.number.shape[1]]
        *moved, places, columns = (on_device(array, device) for array in to)
        return Layout(tuple(moved), places, columns)


def on_device(array: NDArray, device: torch.device | str) -> Tensor:
    """A tensor of the array on the device; nobody waits for work that the device still has."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
