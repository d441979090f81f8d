"""Greedy decoding of many short prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, Qwen2ForCausalLM

from worldrep.encoding import Tokens
from worldrep.tokenizer import EOS, PAD, decode_rows, encode_prompts

BATCH_ROWS = 512


def generate(
    model: Qwen2ForCausalLM, prompts: list[str], max_new_tokens: int, batch_rows: int = BATCH_ROWS
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
    batch_rows: int = BATCH_ROWS,
) -> Tokens:
    """Token rows (n, max_new_tokens) that follow each prompt: the answer, <eos>, then <pad>.

    Prompts of equal length are decoded together, so that nothing is padded.
    """
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    limit = model.config.max_position_embeddings
    if len(prompts) and lengths.max() + max_new_tokens > limit:
        raise ValueError(f"prompt and answer take more than the model's {limit} positions")
    result = np.full((len(prompts), max_new_tokens), PAD, dtype=np.uint8)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        for start in range(0, len(members), batch_rows):
            batch = members[start : start + batch_rows]
            rows = np.stack([prompts[i] for i in batch])
            result[batch] = _decode_batch(model, rows, max_new_tokens)
    return result


@torch.inference_mode()
def _decode_batch(
    model: Qwen2ForCausalLM, prompts: NDArray[np.uint8], max_new_tokens: int
) -> Tokens:
    """Greedy continuation of prompts (n, length) of one length; stops when all rows have ended."""
    tokens = torch.from_numpy(prompts).to(model.device, torch.long)
    cache = DynamicCache(config=model.config)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    produced = torch.full((len(prompts), max_new_tokens), PAD, device=model.device)
    for place in range(max_new_tokens):
        output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        chosen = output.logits[:, -1].argmax(dim=-1).masked_fill(ended, PAD)
        produced[:, place] = chosen
        ended |= chosen == EOS
        if bool(ended.all()):
            break
        tokens = chosen[:, None]
    return produced.to(torch.uint8).cpu().numpy()
