"""The forward pass of a Qwen2 model on packed tokens, and its key/value cache.

All layers but attention run on distinct tokens laid end to end: no padding, and a shared prefix is
computed once. Attention alone sees rows side by side. After the last attention only the tokens
whose logits are wanted are computed. The logits equal those of `transformers`.

Shapes: N rows, T packed tokens, M places in them, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from worldrep.model.layout import Layout, take


class KeyValueCache:
    """Keys and values of N rows of one length, at every layer.

    Args:
        model: The model that fills the cache.
        rows: N.
        capacity: The most columns that the cache can hold.

    Attributes:
        length: Columns that the cache holds.
    """

    def __init__(self, model: Qwen2ForCausalLM, rows: int, capacity: int) -> None:
        config = model.config
        size = config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, capacity, size)
        self.length = 0
        self._layers = torch.empty(shape, dtype=model.dtype, device=model.device)

    @staticmethod
    def bytes_per_column(model: Qwen2ForCausalLM) -> int:
        """Return the bytes of one column of one row; all heads together are D wide."""
        config = model.config
        return 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append columns (N, heads, l, head size) to a layer and return all of its columns."""
        end = self.length + keys.shape[2]
        self._layers[layer, 0, :, :, self.length : end] = keys
        self._layers[layer, 1, :, :, self.length : end] = values
        return self._layers[layer, 0, :, :, :end], self._layers[layer, 1, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but those at the indices (n,)."""
        self._layers = self._layers.index_select(2, rows)


class PackedQwen2(nn.Module):
    """The forward pass of a Qwen2ForCausalLM on packed tokens; it uses the model's own weights."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens: Tensor,
        layout: Layout,
        at: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return logits (M, vocabulary).

        Args:
            tokens: (T,) packed tokens.
            layout: How they stand in rows.
            at: (M,) indices of the tokens whose logits are wanted; None for all T.
            cache: Keys and values of the rows' earlier columns, to which new ones are appended.
                The rows must have one length and one group; after the first call, one new column.
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
        return self.model.lm_head(_norm(x, decoder.norm))

    def states(self, tokens: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Yield hidden states (T, D) in the order of `output_hidden_states` of `transformers`.

        These are the embeddings, then the output of each layer, the last one after the final norm.
        Layers after the last one taken are not computed.
        """
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
        x = take(decoder.embed_tokens.weight, tokens)
        columns = layout.columns if cache is None else layout.columns + cache.length
        cos, sin = decoder.rotary_emb(x, columns[None])
        first, second = sin[0, :, None].chunk(2, dim=-1)
        return x, _Rows(layout, cache, cos[0, :, None], torch.cat((-first, second), dim=-1))


class _Rows(NamedTuple):
    """How tokens stand in rows: layout, cache, cosines and signed sines (T, 1, head size)."""

    layout: Layout
    cache: KeyValueCache | None
    cos: Tensor
    sin: Tensor


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _layer(layer: Qwen2DecoderLayer, x: Tensor, rows: _Rows, at: Tensor | None = None) -> Tensor:
    """Apply a decoder layer: (T, D) -> (T, D), or (M, D) at the places `at`."""
    mixed = _attention(layer, x, rows)
    if at is not None:
        x, mixed = x.index_select(0, at), mixed.index_select(0, at)
    x = x + layer.self_attn.o_proj(mixed)
    normed = _norm(x, layer.post_attention_layernorm)
    mlp = layer.mlp
    return x + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _attention(layer: Qwen2DecoderLayer, x: Tensor, rows: _Rows) -> Tensor:
    """Apply causal attention within rows, without the output projection: (T, D) -> (T, D)."""
    attention = layer.self_attn
    x = _norm(x, layer.input_layernorm)
    q, k = _rotate(attention.q_proj(x), rows), _rotate(attention.k_proj(x), rows)
    unpacked = (rows.layout.unpack(part) for part in (q, k, attention.v_proj(x)))
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
