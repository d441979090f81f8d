"""Strategies of fine-tuning against forgetting: pull (L2-SP, EWC), adapters (LoRA), freezing.

`Training` in `state.py` chooses among them. The strategy `replay` is part of the feed.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding
from transformers import Qwen2ForCausalLM

from worldrep.data.tokens import Tokens
from worldrep.digests import random_stream
from worldrep.model.packed import PackedQwen2
from worldrep.settings import Settings
from worldrep.training.feed import RowFeed

# LoRA adapts all matrices of the decoder layers, but not the embeddings and the head.
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LARGEST = torch.finfo(torch.float32).max  # replaces infinity, because inf * 0 is NaN


class Pull:
    """Pulls weights towards their initial values w0 after every step.

    The penalty 0.5 * strength * sum(F * (w - w0)**2) is added to the loss: with F = 1 it is L2-SP
    (Li et al. 2018, arXiv 1802.01483), with the Fisher information of the base's rows it is EWC
    (Kirkpatrick et al. 2017, arXiv 1612.00796). As weight decay in AdamW, it is decoupled from the
    gradient that Adam rescales. The step is implicit, w <- w0 + (w - w0) / (1 + rate * strength *
    F), so that it is stable for any strength; an infinite one restores w0.
    """

    def __init__(
        self, model: nn.Module, strength: float, information: Sequence[Tensor] | None = None
    ) -> None:
        self._weights = list(model.parameters())
        self._initial = [weight.detach().clone() for weight in self._weights]
        self._strength = min(strength, LARGEST)
        self._information: Sequence[Tensor | float] = information or [1.0] * len(self._weights)

    @torch.no_grad()
    def apply(self, rate: float | Tensor) -> None:
        """Pull after an optimizer step with this learning rate."""
        strength = rate * self._strength
        parts = zip(self._weights, self._initial, self._information, strict=True)
        for weight, initial, f in parts:
            weight.lerp_(initial, 1 - 1 / (1 + strength * f))


def fisher_information(model: Qwen2ForCausalLM, rows: Tokens, settings: Settings) -> list[Tensor]:
    """Return the diagonal of the empirical Fisher information, a tensor for each parameter.

    It is the mean over `fisher_rows` of the rows (n, length) of the squared gradient of a row's
    log-likelihood, divided by its mean over all weights, so that one strength suits every model.
    """
    count = min(settings.fisher_rows, len(rows))
    chosen = random_stream(settings.seed, "fisher").choice(len(rows), count, replace=False)
    feed = RowFeed(rows[chosen], settings, model.device)
    passes, parameters = PackedQwen2(model), list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for i in range(count):
        packed = feed.tensors(np.array([i]))
        logits = embedding(packed.asked, passes(packed.tokens, packed.layout, packed.at).float())
        loss = cross_entropy(logits, packed.targets, reduction="sum")
        for sums, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sums.addcmul_(gradient, gradient)
    mean = torch.cat([part.flatten() for part in total]).mean()
    return [part / mean for part in total]


def with_adapters(model: Qwen2ForCausalLM, settings: Settings) -> nn.Module:
    """Add LoRA adapters (Hu et al. 2021, arXiv 2106.09685) to a model and freeze everything else.

    The adapters initially add nothing; what they add is scaled by lora_alpha / lora_rank. Their
    random half is drawn from the seed of the settings.
    """
    from peft import LoraConfig, get_peft_model  # slow to import, and only LoRA needs it

    rank, alpha = settings.lora_rank, settings.lora_alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED, lora_dropout=0.0)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated name
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)


def train_only(part: str, model: Qwen2ForCausalLM) -> None:
    """Freeze all weights of a model but those of a part.

    part: `embeddings`; `body` (all but the embeddings); `last-K` (the last K layers, the final norm
    and the head); or `first-K` (the embeddings and the first K layers).
    """
    which, _, count = part.partition("-")
    embeddings, layers = model.model.embed_tokens, model.model.layers
    k, ends = int(count or 0), [model.model.norm, model.lm_head]
    trained = {
        "embeddings": [embeddings],
        "body": [*layers, *ends],
        "last": [*layers[-k:], *ends],
        "first": [embeddings, *layers[:k]],
    }
    model.requires_grad_(False)
    for module in trained[which]:
        module.requires_grad_(True)
