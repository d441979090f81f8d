"""Optimizers and their learning rates: AdamW, or Muon for hidden matrices with AdamW for the rest.

AdamW is of Loshchilov and Hutter 2019 (arXiv 1711.05101). Muon is of Jordan et al. 2024
(https://kellerjordan.github.io/posts/muon/); Liu et al. 2025 (arXiv 2502.16982) study it at scale.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from worldrep.settings import Settings

MOMENTUM = 0.95
HIDDEN = ".layers."  # in the names of the parameters of decoder layers


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the matrices of one shape orthogonalised together, in float32.

    That of torch takes one matrix after the other in bfloat16, which is 10 times slower on a CPU
    without bfloat16 arithmetic, and it cannot be captured as a CUDA graph. If `found_inf` is set to
    a tensor that holds 1, a step changes nothing.
    """

    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            shapes = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append(weight)
            for weights in shapes.values():
                self._step(weights, group)

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients, rate, gain = [w.grad for w in weights], group["lr"], 1 - group["momentum"]
        if self.found_inf is not None:
            skipped = self.found_inf > 0
            gradients = [torch.where(skipped, 0.0, g) for g in gradients]
            rate, gain = (torch.where(skipped, 0.0, x) for x in (rate, gain))
        momenta = [self._momentum(weight) for weight in weights]
        for momentum, gradient in zip(momenta, gradients, strict=True):
            momentum.lerp_(gradient, gain)
        updates = torch.stack(gradients).lerp(torch.stack(momenta), group["momentum"])  # Nesterov
        updates = orthogonalize(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        updates *= rate * math.sqrt(max(1.0, updates.shape[1] / updates.shape[2]))
        for weight, update in zip(weights, updates, strict=True):
            weight.mul_(1 - rate * group["weight_decay"]).sub_(update)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


def orthogonalize(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return matrices (N, A, B) with all singular values moved near 1, by Newton-Schulz steps."""
    a, b, c = coefficients
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are not frozen, with their names."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def build_optimizers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon if the settings want it; only matrices decay.

    Each group of parameters has its peak learning rate under the key `peak`.
    """
    named = trained_parameters(model)
    muon = settings.optimizer == "muon"
    hidden = [p for name, p in named if muon and p.ndim == 2 and HIDDEN in name]
    taken = set(map(id, hidden))
    rest = [p for _, p in named if id(p) not in taken]
    decay, peak = settings.weight_decay, settings.learning_rate
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": decay, "peak": peak},
        {"params": [p for p in rest if p.ndim != 2], "weight_decay": 0.0, "peak": peak},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-8, fused=True)
    ]
    if hidden:
        peak = settings.muon_learning_rate
        group = {"params": hidden, "weight_decay": decay, "peak": peak}
        optimizers.append(Muon([group], lr=peak, momentum=MOMENTUM))
    return optimizers


def state_keys(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Return the names of what an optimizer remembers of each parameter."""
    return (
        ("momentum_buffer",) if isinstance(optimizer, Muon) else ("step", "exp_avg", "exp_avg_sq")
    )


def learning_rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate of step 0, 1, ...: linear warm-up from 0, then linear decay to 0."""
    if step < warmup:
        return peak * step / warmup
    return peak * max(0.0, (steps - step) / max(1, steps - warmup))
