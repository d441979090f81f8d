"""The forward pass of a Qwen2 model over many rows, each token computed once.

Everything but attention runs on distinct tokens laid end to end (packed): no padding, and a prefix
that several rows share only once. Attention alone sees rows side by side. After the last attention
only the places that are asked for go on. The logits equal those of the `transformers` model.

Shapes: N rows, L their longest length, T packed tokens, M places asked for, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer


@dataclass(frozen=True)
class Layout:
    """How packed tokens stand in rows.

    gather: (N, L) the packed token in each column of each row, any behind a row's end; several rows
    may name the same token, if all columns before it agree too. places: (T,) one of the columns
    of the rows laid flat where each token stands. columns: (T,) its position in its row.
    """

    gather: Tensor
    places: Tensor
    columns: Tensor

    @staticmethod
    def of(lengths: Tensor) -> Layout:
        """The layout of rows with these lengths (N,) that share nothing."""
        columns = torch.arange(int(lengths.max()), device=lengths.device)
        present = columns < lengths[:, None]
        gather = (present.flatten().cumsum(0) - 1).clamp(min=0).view_as(present)
        places = present.flatten().nonzero()[:, 0]
        return Layout(gather, places, places % len(columns))

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, C) -> (N, L, C)."""
        return F.embedding(self.gather, packed)  # its backward is faster than index_select's

    def pack(self, rows: Tensor) -> Tensor:
        """(N, L, C) -> (T, C)."""
        return F.embedding(self.places, rows.flatten(0, 1))


class PackedQwen2(nn.Module):
    """A Qwen2ForCausalLM's weights behind a forward pass on packed tokens."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        """Logits (M, vocabulary) of packed tokens (T,) at the places `at` (M,), or at all T."""
        decoder = self.model.model
        x = decoder.embed_tokens(tokens)
        cos, sin = decoder.rotary_emb(x, layout.columns[None])
        rotation = cos[0, :, None], sin[0, :, None]
        last = len(decoder.layers) - 1
        for i, layer in enumerate(decoder.layers):
            x = _layer(layer, x, rotation, layout, at if i == last else None)
        return self.model.lm_head(_norm(x, decoder.norm))


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of (T, heads, head size)."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _layer(
    layer: Qwen2DecoderLayer,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    layout: Layout,
    at: Tensor | None,
) -> Tensor:
    """(T, D) -> (T, D), or (M, D) at the places `at`."""
    mixed = _attention(layer, _norm(x, layer.input_layernorm), rotation, layout)
    if at is not None:
        x, mixed = x.index_select(0, at), mixed.index_select(0, at)
    x = x + layer.self_attn.o_proj(mixed)
    mlp = layer.mlp
    normed = _norm(x, layer.post_attention_layernorm)
    gate_up = F.linear(normed, torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)))
    gate, up = gate_up.chunk(2, dim=-1)
    return x + mlp.down_proj(F.silu(gate) * up)


def _attention(
    layer: Qwen2DecoderLayer, x: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout
) -> Tensor:
    """Causal attention within rows, before the output projection: (T, D) -> (T, D)."""
    attention = layer.self_attn
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    weight = torch.cat([p.weight for p in projections])
    bias = torch.cat([p.bias for p in projections])
    qkv = F.linear(x, weight, bias).unflatten(-1, (3, -1, attention.head_dim))
    rotated = _rotate(qkv[:, :2].flatten(1, 2), rotation)
    heads = torch.cat((rotated, qkv[:, 2]), dim=1)  # (T, 3 * heads, head size)
    rows = layout.unpack(heads.flatten(1)).unflatten(-1, (-1, attention.head_dim))
    q, k, v = rows.transpose(1, 2).chunk(3, dim=1)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return layout.pack(mixed.transpose(1, 2).flatten(2))
