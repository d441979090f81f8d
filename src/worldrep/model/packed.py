"""The forward pass of a Qwen2 model over many rows, each token computed once.

Everything but attention runs on distinct tokens laid end to end (packed): no padding, and what rows
share only once. Attention alone sees rows side by side. After the last attention only the places
that are asked for go on. The logits equal those of the `transformers` model.

Shapes: N rows, L their longest length, T packed tokens, M places asked for, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from worldrep.model.layout import Layout, take
from worldrep.model.past import Past

Rotation = tuple[Tensor, Tensor]


class PackedQwen2(nn.Module):
    """A Qwen2ForCausalLM's weights behind a forward pass on packed tokens."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, layout: Layout, at: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """Logits (M, vocabulary) of packed tokens (T,) at the places `at` (M,), or at all T.

        past: what the rows' earlier columns left behind; what these leave is added to it. Rows are
        then of one length and one group, and after the first time one new column each.
        """
        decoder = self.model.model
        if past is not None and past.length:
            assert layout.gathers[0].shape[1] == 1, "several columns after others need a mask"
        x, rotation = self._start(tokens, layout, past)
        last = len(decoder.layers) - 1
        for i, layer in enumerate(decoder.layers):
            x = _layer(layer, x, rotation, layout, past, at if i == last else None)
        if past is not None:
            past.length += layout.gathers[0].shape[1]
        return self.model.lm_head(_norm(x, decoder.norm))

    def states(self, tokens: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Hidden states (T, D) in the order of `output_hidden_states`: the embeddings first, then
        each layer's, the last one behind the final norm. Stop early to leave out later layers.
        """
        decoder = self.model.model
        x, rotation = self._start(tokens, layout, None)
        last = len(decoder.layers) - 1
        yield x
        for i, layer in enumerate(decoder.layers):
            x = _layer(layer, x, rotation, layout, None, None)
            yield _norm(x, decoder.norm) if i == last else x

    def _start(self, tokens: Tensor, layout: Layout, past: Past | None) -> tuple[Tensor, Rotation]:
        """Embeddings (T, D), and cosines and signed sines (T, 1, head size) of their columns."""
        decoder = self.model.model
        x = take(decoder.embed_tokens.weight, tokens)
        columns = layout.columns if past is None else layout.columns + past.length
        cos, sin = decoder.rotary_emb(x, columns[None])
        first, second = sin[0, :, None].chunk(2, dim=-1)
        return x, (cos[0, :, None], torch.cat((-first, second), dim=-1))


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _layer(
    layer: Qwen2DecoderLayer,
    x: Tensor,
    rotation: Rotation,
    layout: Layout,
    past: Past | None,
    at: Tensor | None,
) -> Tensor:
    """(T, D) -> (T, D), or (M, D) at the places `at`."""
    mixed = _attention(layer, x, rotation, layout, past)
    if at is not None:
        x, mixed = x.index_select(0, at), mixed.index_select(0, at)
    x = x + layer.self_attn.o_proj(mixed)
    normed = _norm(x, layer.post_attention_layernorm)
    mlp = layer.mlp
    return x + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _attention(
    layer: Qwen2DecoderLayer, x: Tensor, rotation: Rotation, layout: Layout, past: Past | None
) -> Tensor:
    """Causal attention within rows, before the output projection: (T, D) -> (T, D)."""
    attention = layer.self_attn
    x = _norm(x, layer.input_layernorm)
    packed = (
        _rotate(attention.q_proj(x), rotation),
        _rotate(attention.k_proj(x), rotation),
        attention.v_proj(x),
    )
    mixed = []
    for rows in zip(*(layout.unpack(part) for part in packed), strict=True):
        q, k, v = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in rows)
        if past is not None:
            k, v = past.extend(attention.layer_idx, k, v)
        causal = k.shape[2] == q.shape[2]  # a single new column sees all
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        mixed.append(attended.transpose(1, 2).flatten(2))
    return layout.pack(mixed)


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding of (T, D)."""
    cos, sin = rotation
    heads = x.unflatten(-1, (-1, cos.shape[-1]))
    turned = heads.roll(cos.shape[-1] // 2, dims=-1)  # the halves of each head change places
    return torch.addcmul(heads * cos, turned, sin).flatten(1).to(x.dtype)
