"""Linear layers on the CPU: the products of torch's default, or of oneDNN where it is faster.

The default (MKL) takes slow code on some processors. oneDNN is called for single products, because
its global switch slows down the attention of torch on CPUs about ten times.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from worldrep.digests import digest
from worldrep.disk import cached_file

DEFAULT, ONEDNN = "default", "onednn"
LEAST_GAIN = 1.15  # a smaller gain is not told from noise, and the choice should not change
TOLERANCE = 1e-5  # relative to the largest value; products in bfloat16 deviate by 1e-3 and more
FEWEST_ROWS = 256  # oneDNN compiles code for each shape, which small products do not repay
SHAPES = ((1024, 128, 512), (1024, 512, 128))  # rows, inputs, outputs of the measured layers
REPEATS = 5


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer to (T, C)."""
    plain = type(layer) is nn.Linear and x.device.type == "cpu" and x.dtype == torch.float32
    if not plain or len(x) < FEWEST_ROWS or torch.is_autocast_enabled("cpu"):
        return layer(x)
    if linear_library() == DEFAULT:
        return layer(x)
    return _OneDnnLinear.apply(x, layer.weight, layer.bias)


def padded(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Repeat the last index until products have one of few shapes, if the library compiles them.

    Fewer than FEWEST_ROWS indices stay as they are, as `linear` multiplies those by the default.
    """
    compiled = len(indices) >= FEWEST_ROWS and linear_library() == ONEDNN
    more = -len(indices) % FEWEST_ROWS if compiled else 0
    return np.pad(indices, (0, more), mode="edge")


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias in float32, by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    """`F.linear` whose forward and backward products are those of oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        gradient = gradient.contiguous()
        needed = ctx.needs_input_grad
        of_x = onednn_product(gradient, weight.t()) if needed[0] else None
        of_weight = onednn_product(gradient.t(), x.t()) if needed[1] else None
        return of_x, of_weight, gradient.sum(0) if ctx.has_bias and needed[2] else None


def linear_library() -> str:
    """Return `onednn` if its products are right and faster here, else `default`.

    It is measured once for each processor, version of torch and number of threads, and cached on
    disk, so that a training that is resumed computes as before.
    """
    return DEFAULT if torch.cuda.is_available() else _library_for(torch.get_num_threads())


@lru_cache
def _library_for(threads: int) -> str:
    machine = [torch.backends.cpu.get_cpu_capability(), torch.__config__.show(), _processor()]
    key = digest([*machine, threads, LEAST_GAIN, SHAPES])
    path = cached_file(f"linear-{key}.txt", lambda: _measured().encode())
    return path.read_text(encoding="utf-8")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        return ""


def _measured() -> str:
    """Compare the two libraries: first the results, then the speed."""
    try:
        faster = all(_is_faster(*shape) for shape in SHAPES)
    except (AttributeError, RuntimeError):  # torch was built without oneDNN
        return DEFAULT
    return ONEDNN if faster else DEFAULT


def _is_faster(rows: int, inputs: int, outputs: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (
        torch.randn(shape, generator=generator).requires_grad_(i < 2)
        for i, shape in enumerate(((rows, inputs), (outputs, inputs), (rows, outputs)))
    )

    def gradients(product: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
        x, weight, gradient = tensors
        result = product(x, weight, None)
        return [result, *torch.autograd.grad(result, (x, weight), gradient)]

    tensors = x, weight, gradient
    exact = gradients(F.linear, *(t.detach().double().requires_grad_() for t in tensors))
    for found, right in zip(gradients(_OneDnnLinear.apply, *tensors), exact, strict=True):
        if (found - right).abs().max() > TOLERANCE * right.abs().max():
            return False
    seconds: dict[Callable[..., Tensor], list[float]] = {F.linear: [], _OneDnnLinear.apply: []}
    for _ in range(REPEATS):
        for product, own in seconds.items():
            begun = time.perf_counter()
            gradients(product, *tensors)
            own.append(time.perf_counter() - begun)
    default, onednn = (min(own) for own in seconds.values())
    return default > LEAST_GAIN * onednn
