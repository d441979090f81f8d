"""Greedy decoding of many short prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from worldrep.data.tokens import EOS, PAD, Tokens, decode_rows, encode_prompts
from worldrep.model.layout import Layout, SharedRows, on_device, prefix_order
from worldrep.model.packed import KeyValueCache, PackedQwen2
from worldrep.model.plain import decode_plainly

CPU_ROWS = 256  # rows whose keys and values fit the cache of a CPU
CACHE_BYTES = 2**31  # most bytes of keys and values on another device


def generate(model: Qwen2ForCausalLM, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Return the greedy continuation of each prompt, up to <eos> or `max_new_tokens` tokens.

    Special tokens other than <eos> appear in the text by their names.

    Raises:
        ValueError: A prompt and its continuation are longer than the model's positions.
    """
    return decode_rows(generate_tokens(model, encode_prompts(prompts), max_new_tokens))


def generate_tokens(
    model: Qwen2ForCausalLM,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    plain: bool = False,
) -> Tokens:
    """Return token rows (n, max_new_tokens) that follow each prompt: text, <eos>, then <pad>.

    Prompts of equal length are decoded together, so that nothing is padded, and in sorted order, so
    that neighbours share a prefix.

    Args:
        model: A model in evaluation mode, on any device.
        prompts: n arrays of token ids, of any lengths.
        max_new_tokens: Most tokens to generate for a prompt.
        plain: Use the forward pass of `transformers`, which gives the same text.

    Raises:
        ValueError: A prompt and its continuation are longer than the model's positions.
    """
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    limit = model.config.max_position_embeddings
    if len(prompts) and lengths.max() + max_new_tokens > limit:
        raise ValueError(f"prompt and answer take more than the model's {limit} positions")
    decode = decode_plainly if plain else decode_packed
    result = np.full((len(prompts), max_new_tokens), PAD, dtype=np.uint8)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        rows = np.stack([prompts[i] for i in members.tolist()])
        order = prefix_order(rows)
        size = _batch_rows(model, int(length) + max_new_tokens)
        for start in range(0, len(members), size):
            batch = order[start : start + size]
            result[members[batch]] = decode(model, rows[batch], max_new_tokens)
    return result


def _batch_rows(model: Qwen2ForCausalLM, columns: int) -> int:
    """Return how many rows to decode together."""
    if model.device.type == "cpu":
        return CPU_ROWS
    return max(CPU_ROWS, CACHE_BYTES // (columns * KeyValueCache.bytes_per_column(model)))


@torch.inference_mode()
def decode_packed(model: Qwen2ForCausalLM, prompts: Tokens, max_new_tokens: int) -> Tokens:
    """Return greedy continuations (n, max_new_tokens) of prompts (n, length) of one length."""
    n, length = prompts.shape
    device = model.device
    shared = SharedRows.of(prompts)
    packed, cache = PackedQwen2(model), KeyValueCache(model, n, length + max_new_tokens - 1)
    tokens = on_device(shared.tokens, device).long()
    ends = on_device(shared.number[:, -1], device)
    logits = packed(tokens, shared.layout(device), ends, cache)
    produced = torch.full((n, max_new_tokens), PAD, device=device)
    rows = torch.arange(n, device=device)  # those that have not ended
    for place in range(max_new_tokens):
        chosen = logits.argmax(dim=-1)
        produced[rows, place] = chosen
        going = (chosen != EOS).nonzero()[:, 0]
        if place == max_new_tokens - 1 or not len(going):
            break
        if len(going) < len(rows):
            rows, chosen = rows[going], chosen[going]
            cache.keep(going)
        logits = packed(chosen, Layout.column(len(rows), device), cache=cache)
    return produced.to(torch.uint8).cpu().numpy()[shared.order.argsort()]
