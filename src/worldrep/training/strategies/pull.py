"""L2-SP and EWC: after every step the weights are pulled back towards the base's.

Both minimise a penalty 0.5 * pull * sum(F * (w - w0)**2) beside the loss: L2-SP (Li et al. 2018)
with F = 1, EWC (Kirkpatrick et al. 2017) with the Fisher information of the base's rows. As in
AdamW, whose decay is L2 towards 0, the penalty is kept apart from the gradient that Adam rescales.
Its step is the implicit one, w <- w0 + (w - w0) / (1 + rate * pull * F), which no strength can make
unstable: an infinite one puts the weights back where they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LARGEST = torch.finfo(torch.float32).max  # stands for infinity, of which 0 times is not 0


class Pull:
    """Remembers a model's weights as they are, and pulls towards them.

    strength: of the pull; information: F, a tensor for each parameter, None for 1.
    """

    def __init__(
        self, model: nn.Module, strength: float, information: Sequence[Tensor] | None = None
    ) -> None:
        self._weights = list(model.parameters())
        self._home = [weight.detach().clone() for weight in self._weights]
        self._strength = min(strength, LARGEST)
        self._information: Sequence[Tensor | float] = information or [1.0] * len(self._weights)

    @torch.no_grad()
    def apply(self, rate: float | Tensor) -> None:
        """The pull of a step that had this learning rate."""
        strength = rate * self._strength
        for weight, home, f in zip(self._weights, self._home, self._information, strict=True):
            weight.lerp_(home, 1 - 1 / (1 + strength * f))
