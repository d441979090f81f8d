"""Greedy decoding of many short prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from worldrep.data.encoding import Tokens
from worldrep.data.tokenizer import EOS, PAD, decode_rows, encode_prompts
from worldrep.model.layout import Layout, SharedRows, on_device, sorting
from worldrep.model.packed import PackedQwen2
from worldrep.model.past import Past
from worldrep.model.plain import decode_plainly

CPU_ROWS = 256  # what the cache of a CPU holds
PAST_BYTES = 2**31  # of keys and values on another device


def generate(
    model: Qwen2ForCausalLM, prompts: list[str], max_new_tokens: int, batch_rows: int | None = None
) -> list[str]:
    """The greedy continuation of each prompt, up to <eos> or `max_new_tokens` tokens.

    Special tokens other than <eos> appear in the text by their names. Raises ValueError when a
    prompt and its continuation are longer than the model's positions.
    """
    tokens = generate_tokens(model, encode_prompts(prompts), max_new_tokens, batch_rows)
    return decode_rows(tokens)


def generate_tokens(
    model: Qwen2ForCausalLM,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    batch_rows: int | None = None,
    plain: bool = False,
) -> Tokens:
    """Token rows (n, max_new_tokens) that follow each prompt: the answer, <eos>, then <pad>.

    Prompts of equal length are decoded together, so that nothing is padded, and in sorted order, so
    that neighbours share their beginning. plain: by the `transformers` forward pass instead, whose
    text is the same.
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
        order = sorting(rows)
        size = batch_rows or _usual_rows(model, int(length) + max_new_tokens)
        for start in range(0, len(members), size):
            batch = order[start : start + size]
            result[members[batch]] = decode(model, rows[batch], max_new_tokens)
    return result


def _usual_rows(model: Qwen2ForCausalLM, columns: int) -> int:
    """How many rows of so many columns are decoded together."""
    if model.device.type == "cpu":
        return CPU_ROWS
    return max(CPU_ROWS, PAST_BYTES // (columns * Past.bytes_per_column(model)))


@torch.inference_mode()
def decode_packed(model: Qwen2ForCausalLM, prompts: Tokens, max_new_tokens: int) -> Tokens:
    """Greedy continuation of prompts (n, length) of one length."""
    n, length = prompts.shape
    device = model.device
    shared = SharedRows.of(prompts)
    packed, past = PackedQwen2(model), Past(model, n, length + max_new_tokens - 1)
    tokens = on_device(shared.tokens, device).long()
    ends = on_device(shared.number[:, -1], device)
    logits = packed(tokens, shared.layout(device), ends, past)
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
            past.keep(going)
        logits = packed(chosen, Layout.column(len(rows), device), past=past)
    return produced.to(torch.uint8).cpu().numpy()[shared.order.argsort()]
