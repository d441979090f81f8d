"""How much each weight of a model matters for rows that it knows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding
from transformers import Qwen2ForCausalLM

from worldrep.data.encoding import Tokens
from worldrep.digests import random_stream
from worldrep.model.packed import PackedQwen2
from worldrep.settings import Settings
from worldrep.training.feed import RowFeed


def fisher_information(model: Qwen2ForCausalLM, rows: Tokens, settings: Settings) -> list[Tensor]:
    """The diagonal of the empirical Fisher information, a tensor for each parameter.

    The mean over `fisher_rows` of `rows` (n, length) of the squared gradient of a row's
    log-likelihood, divided by its mean over all weights: so a strength means the same for every
    model.
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
