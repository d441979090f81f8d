"""The same computations by the forward pass of `transformers`, as a reference."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2ForCausalLM

from worldrep.data.tokens import EOS, PAD, Tokens
from worldrep.model.layout import Layout


class PlainQwen2(nn.Module):
    """A replacement for PackedQwen2 that pads rows and shares nothing; it has no cache."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        """Return logits, as `PackedQwen2.forward` does."""
        rows = [tokens[gather] for gather in layout.gathers]
        logits = layout.pack([self.model(input_ids=ids, use_cache=False).logits for ids in rows])
        return logits if at is None else logits.index_select(0, at)

    def states(self, tokens: Tensor, layout: Layout) -> Iterator[Tensor]:
        """Yield hidden states, as `PackedQwen2.states` does."""
        rows = [tokens[gather] for gather in layout.gathers]
        found = [self.model.model(input_ids=ids, output_hidden_states=True) for ids in rows]
        for layer in zip(*(output.hidden_states for output in found), strict=True):
            yield layout.pack(list(layer))


@torch.inference_mode()
def decode_plainly(model: Qwen2ForCausalLM, prompts: Tokens, max_new_tokens: int) -> Tokens:
    """Return greedy continuations (n, max_new_tokens) of prompts (n, length) of one length."""
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
