"""The forward pass of a Qwen2 model over rows of different lengths, with no work on padding.

Everything but attention runs on the real tokens of all rows laid end to end (packed); attention
alone sees rows side by side. The result equals that of the `transformers` model on each row.

Shapes: N rows, L their longest length, T tokens in all, D hidden size, H heads.
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
    """Where packed tokens stand in the rows: token t is column `columns[t]` of row `rows[t]`."""

    rows: Tensor  # (T,)
    columns: Tensor  # (T,)
    shape: tuple[int, int]  # N, L

    @staticmethod
    def of(lengths: Tensor) -> Layout:
        """The layout of rows with these lengths (N,)."""
        longest = int(lengths.max())
        columns = torch.arange(longest, device=lengths.device)
        rows, columns = (columns < lengths[:, None]).nonzero(as_tuple=True)
        return Layout(rows, columns, (len(lengths), longest))

    @property
    def places(self) -> Tensor:
        """(T,) index of each token in the rows laid flat, padding included."""
        return self.rows * self.shape[1] + self.columns

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, ...) -> (N, L, ...), zero where there is no token."""
        n, length = self.shape
        flat = packed.new_zeros(n * length, *packed.shape[1:])
        return flat.index_copy(0, self.places, packed).unflatten(0, (n, length))

    def pack(self, rows: Tensor) -> Tensor:
        """(N, L, ...) -> (T, ...)."""
        return rows.flatten(0, 1).index_select(0, self.places)


class PackedQwen2(nn.Module):
    """A Qwen2ForCausalLM's weights behind a forward pass on packed tokens."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        """Logits (T, vocabulary) of packed tokens (T,), or only of the places `at` among them."""
        hidden = self.hidden(tokens, layout)
        hidden = hidden if at is None else hidden.index_select(0, at)
        return self.model.lm_head(_norm(hidden, self.model.model.norm))

    def hidden(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Residual stream (T, D) after the last layer, before the final norm."""
        decoder = self.model.model
        x = decoder.embed_tokens(tokens)
        cos, sin = decoder.rotary_emb(x, layout.columns[None])
        rotation = cos[0, :, None], sin[0, :, None]
        for layer in decoder.layers:
            x = _layer(layer, x, rotation, layout)
        return x


def _norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of (T, heads, head size)."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _layer(
    layer: Qwen2DecoderLayer, x: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout
) -> Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    weight = torch.cat([p.weight for p in projections])
    bias = torch.cat([p.bias for p in projections])
    qkv = F.linear(_norm(x, layer.input_layernorm), weight, bias)
    qkv = qkv.unflatten(-1, (3, -1, attention.head_dim))
    rotated = _rotate(qkv[:, :2].flatten(1, 2), rotation)
    heads = torch.cat((rotated, qkv[:, 2]), dim=1)  # (T, 3H, head size)
    q, k, v = layout.unpack(heads).transpose(1, 2).chunk(3, dim=1)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + attention.o_proj(layout.pack(mixed.transpose(1, 2)).flatten(1))
    normed = _norm(x, layer.post_attention_layernorm)
    gate_up = F.linear(normed, torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)))
    gate, up = gate_up.chunk(2, dim=-1)
    return x + mlp.down_proj(F.silu(gate) * up)
