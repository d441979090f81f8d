"""Freezing: only a part of the weights is trained."""

from __future__ import annotations

from torch import nn
from transformers import Qwen2ForCausalLM


def freeze_all_but(part: str, model: Qwen2ForCausalLM) -> None:
    """Leave all weights of a model as they are but those of a part.

    `embeddings`; `body`, all but the embeddings; `last-K`, the last K layers, the norm behind them
    and the head; `first-K`, the embeddings and the first K layers.
    """
    model.requires_grad_(False)
    for module in _modules_of(part, model):
        module.requires_grad_(True)


def _modules_of(part: str, model: Qwen2ForCausalLM) -> list[nn.Module]:
    decoder = model.model
    behind = [decoder.norm, model.lm_head]
    if part == "embeddings":
        return [decoder.embed_tokens]
    if part == "body":
        return [*decoder.layers, *behind]
    which, count = part.split("-")
    if which == "last":
        return [*decoder.layers[-int(count) :], *behind]
    return [decoder.embed_tokens, *decoder.layers[: int(count)]]
