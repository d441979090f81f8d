"""Packed tokens: rows laid end to end without padding, and the forward pass of Qwen2 on them.

A prefix that rows share is stored and computed once; only attention unpacks tokens into rows. The
logits equal those of `transformers`.

Shapes: N rows, L their greatest length, T packed tokens, M places in them, D hidden size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from worldrep.data.tokens import PAD, Tokens
from worldrep.model.linear import linear, padded

GROUP_ROWS = 32  # least number of rows of similar length that attention computes together


@dataclass(frozen=True)
class Layout:
    """Maps between packed tokens and rows, in groups of rows of similar length."""

    # For each group (n, l) the packed token in each column; arbitrary past the end of a row.
    gathers: tuple[Tensor, ...]
    places: Tensor  # (T,) index of a cell that holds the token, in the concatenated groups
    columns: Tensor  # (T,) position of each token in its row

    @classmethod
    def column(cls, rows: int, device: torch.device | str = "cpu") -> Self:
        """Return the layout of a decoding step: one new token in each row."""
        each = torch.arange(rows, device=device)
        return cls((each[:, None],), each, torch.zeros_like(each))

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """Return the rows (n, l, C) of each group from packed values (T, C)."""
        return [_take(packed, gather) for gather in self.gathers]

    def pack(self, groups: list[Tensor]) -> Tensor:
        """Return packed values (T, C) from the rows (n, l, C) of each group."""
        cells = [group.flatten(0, 1) for group in groups]
        return _take(cells[0] if len(cells) == 1 else torch.cat(cells), self.places)


def _take(source: Tensor, index: Tensor) -> Tensor:
    # The backward pass of an embedding is faster on the CPU, that of `index_select` on CUDA.
    if source.device.type == "cpu":
        return F.embedding(index, source)
    return source.index_select(0, index.flatten()).view(*index.shape, -1)


def prefix_order(rows: Tokens) -> NDArray[np.int64]:
    """Return the order (N,) that makes rows (N, L) with a common prefix neighbours."""
    return np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0].argsort(kind="stable")


@dataclass(frozen=True)
class SharedRows:
    """Sorted rows in which each prefix that neighbours share is stored once."""

    tokens: Tokens  # (T,) packed tokens; `padded` may repeat the last one
    order: NDArray[np.int64]  # (N,) the sorting of the given rows
    number: NDArray[np.int64]  # (N, L) packed token in each column; 0 past the end of a row
    cells: NDArray[np.int64]  # (T,) index of each packed token's cell in (N, L)
    lengths: NDArray[np.int64]  # (N,) lengths of the sorted rows

    @classmethod
    def of(cls, rows: Tokens) -> Self:
        """Share the prefixes of rows (N, L), each at least one token long and padded with zeros."""
        order = prefix_order(rows)
        rows = rows[order]
        present = rows != PAD
        own = present.copy()
        own[1:] &= (rows[1:] != rows[:-1]).cumsum(axis=1, dtype=bool)
        places = np.where(own, (own.cumsum() - 1).reshape(own.shape), 0)
        number = np.maximum.accumulate(places, axis=0)  # later tokens have greater numbers
        cells, lengths = padded(np.flatnonzero(own)), present.sum(axis=1)
        return cls(rows.ravel()[cells], order, np.where(present, number, 0), cells, lengths)

    def layout(self, device: torch.device | str = "cpu", groups: int = 1) -> Layout:
        """Return the layout of the rows: in sorted order, or in groups of similar length."""
        by_length = (
            self.lengths.argsort(kind="stable") if groups > 1 else np.arange(len(self.order))
        )
        gathers, start = [], 0
        places = np.zeros(self.number.shape, dtype=np.int64)
        for members in np.array_split(by_length, groups):
            longest = int(self.lengths[members].max())
            gather = self.number[members, :longest]
            places[members, :longest] = start + np.arange(gather.size).reshape(gather.shape)
            gathers.append(gather)
            start += gather.size
        arrays = [*gathers, places.ravel()[self.cells], self.cells % self.number.shape[1]]
        *moved, at, columns = (on_device(array, device) for array in arrays)
        return Layout(tuple(moved), at, columns)


def on_device(array: NDArray, device: torch.device | str) -> Tensor:
    """Copy an array to a device, without waiting for work that is queued there."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)


class KeyValueCache:
    """Keys and values of rows of one length, at most `capacity`, at every layer."""

    def __init__(self, model: Qwen2ForCausalLM, rows: int, capacity: int) -> None:
        config = model.config
        size = config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, capacity, size)
        self.length = 0
        self._layers = torch.empty(shape, dtype=model.dtype, device=model.device)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append columns (N, heads, l, head size) to a layer and return all of its columns."""
        kept = self._layers[layer, :, :, :, : self.length + keys.shape[2]]
        kept[0, :, :, self.length :], kept[1, :, :, self.length :] = keys, values
        return kept[0], kept[1]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but those at the indices (n,)."""
        self._layers = self._layers.index_select(2, rows)


class _Rows(NamedTuple):
    layout: Layout
    cache: KeyValueCache | None
    cos: Tensor  # (T, 1, head size)
    sin: Tensor  # with signs


class PackedQwen2(nn.Module):
    """The forward pass of a Qwen2ForCausalLM on packed tokens; it uses the model's own weights."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, layout: Layout, at: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:  # fmt: skip
        """Return logits (M, vocabulary) of packed tokens (T,) at the places `at` (M,), or at all.

        cache: keys and values of the rows' earlier columns, to which new ones are appended. The
        rows must have one length and one group; after the first call, one new column.
        """
        decoder = self.model.model
        if cache is not None and cache.length:
            assert layout.gathers[0].shape[1] == 1, "several columns after others need a mask"
        x, rows = self._embed(tokens, layout, cache)
        last = len(decoder.layers) - 1
        for i, layer in enumerate(decoder.layers):
            x = _layer(layer, x, rows, at if i == last else None)
        if cache is not None:
            cache.length += layout.gathers[0].shape[1]
        return linear(self.model.lm_head, _norm(x, decoder.norm))

    def states(self, tokens: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Yield the embeddings (T, D), then each layer's output, the last after the final norm."""
        decoder = self.model.model
        x, rows = self._embed(tokens, layout)
        last = len(decoder.layers) - 1
        yield x
        for i, layer in enumerate(decoder.layers):
            x = _layer(layer, x, rows)
            yield _norm(x, decoder.norm) if i == last else x

    def _embed(
        self, tokens: Tensor, layout: Layout, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, _Rows]:
        """Return embeddings (T, D), and what attention needs to know of the rows."""
        decoder = self.model.model
        x = _take(decoder.embed_tokens.weight, tokens)
        columns = layout.columns if cache is None else layout.columns + cache.length
        cos, sin = decoder.rotary_emb(x, columns[None])
        first, second = sin[0, :, None].chunk(2, dim=-1)
        return x, _Rows(layout, cache, cos[0, :, None], torch.cat((-first, second), dim=-1))


class PlainQwen2(nn.Module):
    """The same by the forward pass of `transformers`, which pads rows and shares nothing."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        rows = [tokens[gather] for gather in layout.gathers]
        logits = layout.pack([self.model(input_ids=ids, use_cache=False).logits for ids in rows])
        return logits if at is None else logits.index_select(0, at)

    def states(self, tokens: Tensor, layout: Layout) -> Iterator[Tensor]:
        rows = [tokens[gather] for gather in layout.gathers]
        found = [self.model.model(input_ids=ids, output_hidden_states=True) for ids in rows]
        for layer in zip(*(output.hidden_states for output in found), strict=True):
            yield layout.pack(list(layer))


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _layer(layer: Qwen2DecoderLayer, x: Tensor, rows: _Rows, at: Tensor | None = None) -> Tensor:
    """Apply a decoder layer: (T, D) -> (T, D), or (M, D) at the places `at`."""
    mixed = _attention(layer, x, rows)
    if at is not None:
        x, mixed = x.index_select(0, at), mixed.index_select(0, at)
    x = x + linear(layer.self_attn.o_proj, mixed)
    normed, mlp = _norm(x, layer.post_attention_layernorm), layer.mlp
    gated = F.silu(linear(mlp.gate_proj, normed)) * linear(mlp.up_proj, normed)
    return x + linear(mlp.down_proj, gated)


def _attention(layer: Qwen2DecoderLayer, x: Tensor, rows: _Rows) -> Tensor:
    """Apply causal attention within rows, without the output projection: (T, D) -> (T, D)."""
    attention = layer.self_attn
    x = _norm(x, layer.input_layernorm)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (linear(projection, x) for projection in projections)
    unpacked = (rows.layout.unpack(part) for part in (_rotate(q, rows), _rotate(k, rows), v))
    mixed = []
    for group in zip(*unpacked, strict=True):
        q, k, v = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in group)
        if rows.cache is not None:
            k, v = rows.cache.extend(attention.layer_idx, k, v)
        causal = k.shape[2] == q.shape[2]  # a single new column attends to all others
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        mixed.append(attended.transpose(1, 2).flatten(2))
    return rows.layout.pack(mixed)


def _rotate(x: Tensor, rows: _Rows) -> Tensor:
    """Apply rotary position embedding (RoPE; Su et al. 2021, arXiv 2104.09864) to (T, D)."""
    size = rows.cos.shape[-1]
    heads = x.unflatten(-1, (-1, size))
    turned = heads.roll(size // 2, dims=-1)  # swaps the halves of each head
    return torch.addcmul(heads * rows.cos, turned, rows.sin).flatten(1).to(x.dtype)
