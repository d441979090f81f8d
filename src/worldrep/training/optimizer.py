"""AdamW with linear warm-up and decay, and its state as plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from worldrep.settings import Settings

BETAS, EPSILON = (0.9, 0.999), 1e-8
_PREFIX = "optimizer/"


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Those that a training changes, with their names."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW of the weights that are trained; it decays matrices only."""
    parameters = [parameter for _, parameter in trained_parameters(model)]
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True)


def learning_rate_at(step: int, steps: int, settings: Settings) -> float:
    """Rate of step 0, 1, ...: linear from 0 over the warm-up, then linear to 0 at the last step."""
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.learning_rate * step / warmup
    return settings.learning_rate * max(0.0, (steps - step) / max(1, steps - warmup))


def optimizer_tensors(model: nn.Module, optimizer: Any) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter name, for a safetensors file."""
    return {
        f"{_PREFIX}{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in trained_parameters(model)
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(model: nn.Module, optimizer: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` saved."""
    for name, parameter in trained_parameters(model):
        prefix = f"{_PREFIX}{name}/"
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        optimizer.state[parameter] = {key: v.to(parameter.device) for key, v in found.items()}
