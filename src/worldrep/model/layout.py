"""Layouts of packed tokens: rows laid end to end without padding, shared prefixes stored once.

Shapes: N rows, L their greatest length, T packed tokens, C anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from worldrep.data.tokens import PAD, Tokens

GROUP_ROWS = 32  # least number of rows of similar length that attention computes together


@dataclass(frozen=True)
class Layout:
    """Maps between packed tokens and rows, in groups of rows of similar length.

    Attributes:
        gathers: For each group (n, l) the packed token in each column of each row; arbitrary past
            the end of a row. Rows that share a prefix name the same tokens there.
        places: (T,) for each packed token the index of one of its cells, in the cells of all
            groups laid end to end.
        columns: (T,) position of each token in its row.
    """

    gathers: tuple[Tensor, ...]
    places: Tensor
    columns: Tensor

    @staticmethod
    def column(rows: int, device: torch.device | str = "cpu") -> Layout:
        """Return the layout of a decoding step: one new token in each row."""
        each = torch.arange(rows, device=device)
        return Layout((each[:, None],), each, torch.zeros_like(each))

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """Return the rows (n, l, C) of each group from packed values (T, C)."""
        return [take(packed, gather) for gather in self.gathers]

    def pack(self, groups: list[Tensor]) -> Tensor:
        """Return packed values (T, C) from the rows (n, l, C) of each group."""
        cells = [group.flatten(0, 1) for group in groups]
        return take(cells[0] if len(cells) == 1 else torch.cat(cells), self.places)


def take(source: Tensor, index: Tensor) -> Tensor:
    """Return rows (..., C) of a source (S, C) at the indices (...).

    The backward pass of an embedding is faster on the CPU, that of `index_select` on CUDA.
    """
    if source.device.type == "cpu":
        return F.embedding(index, source)
    return source.index_select(0, index.flatten()).view(*index.shape, -1)


def prefix_order(rows: Tokens) -> NDArray[np.int64]:
    """Return the order (N,) that makes rows (N, L) with a common prefix neighbours."""
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0].argsort(kind="stable")


@dataclass(frozen=True)
class SharedRows:
    """Sorted rows in which each prefix that neighbours share is stored once.

    Attributes:
        tokens: (T,) packed tokens.
        order: (N,) the sorting of the given rows.
        number: (N, L) packed token in each column; 0 past the end of a row.
        cells: (T,) index of each packed token's cell in (N, L).
        lengths: (N,) lengths of the sorted rows.
    """

    tokens: Tokens
    order: NDArray[np.int64]
    number: NDArray[np.int64]
    cells: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(rows: Tokens) -> SharedRows:
        """Share the prefixes of rows (N, L), each at least one token long and padded with zeros."""
        order = prefix_order(rows)
        rows = rows[order]
        present = rows != PAD
        own = present.copy()
        own[1:] &= (rows[1:] != rows[:-1]).cumsum(axis=1, dtype=bool)
        places = np.where(own, (own.cumsum() - 1).reshape(own.shape), 0)
        number = np.maximum.accumulate(places, axis=0)  # later tokens have greater numbers
        cells, lengths = np.flatnonzero(own), present.sum(axis=1)
        return SharedRows(rows.ravel()[cells], order, np.where(present, number, 0), cells, lengths)

    def layout(self, device: torch.device | str = "cpu", groups: int = 1) -> Layout:
        """Return the layout of the rows: in sorted order, or in groups of similar length."""
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
        arrays = [*gathers, seen.ravel()[self.cells], self.cells % self.number.shape[1]]
        *moved, places, columns = (on_device(array, device) for array in arrays)
        return Layout(tuple(moved), places, columns)


def on_device(array: NDArray, device: torch.device | str) -> Tensor:
    """Copy an array to a device, without waiting for work that is queued there."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
