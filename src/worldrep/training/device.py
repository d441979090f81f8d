"""The device and precision of a training, and whether its steps fit in a CUDA graph."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from worldrep.errors import InputError
from worldrep.settings import Settings


def best_device() -> torch.device:
    """Return the device for evaluating and extracting: CUDA if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_accelerator(settings: Settings) -> Accelerator:
    """Return an accelerator; precision `auto` is bf16 on a CUDA device that has it, else float32.

    Raises:
        InputError: The setting `compute` needs a CUDA graph, which is not possible here.
    """
    precision = settings.precision
    if precision == "auto":
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if bf16 else "no"
    accelerator = Accelerator(mixed_precision=precision)
    obstacle = graph_obstacle(settings, accelerator)
    if settings.compute in ("graph", "compile") and obstacle:
        raise InputError(
            f"compute={settings.compute} {obstacle}; allowed here: auto, plain, packed"
        )
    return accelerator


def graph_obstacle(settings: Settings, accelerator: Accelerator) -> str:
    """Return why a step cannot be captured as a CUDA graph, or an empty text if it can."""
    if accelerator.device.type != "cuda":
        return "needs a CUDA device"
    if accelerator.num_processes > 1:
        return "is for one process"
    if settings.accumulation > 1:
        return "cannot be used with accumulation"
    return ""
