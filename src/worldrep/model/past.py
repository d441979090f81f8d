"""What the earlier columns of rows of one length leave behind for later ones."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM


class Past:
    """Keys and values of N rows at each layer, with room for columns to come.

    length: columns that all layers hold.
    """

    def __init__(self, model: Qwen2ForCausalLM, rows: int, room: int) -> None:
        config = model.config
        size = config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, room, size)
        self.length = 0
        self._layers = torch.empty(shape, dtype=model.dtype, device=model.device)

    @staticmethod
    def bytes_per_column(model: Qwen2ForCausalLM) -> int:
        """What one column of one row takes; all heads together are as wide as the model."""
        config = model.config
        return 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new columns (N, heads, l, head size) at one layer; returns those of all columns."""
        end = self.length + keys.shape[2]
        self._layers[layer, 0, :, :, self.length : end] = keys
        self._layers[layer, 1, :, :, self.length : end] = values
        return self._layers[layer, 0, :, :, :end], self._layers[layer, 1, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but those of these indices (n,)."""
        self._layers = self._layers.index_select(2, rows)
