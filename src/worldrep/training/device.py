"""Where a training computes, in which arithmetic, and whether its steps can be captured."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from worldrep.errors import InputError
from worldrep.settings import Settings


def best_device() -> torch.device:
    """Where a model that is not trained computes."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_accelerator(settings: Settings) -> Accelerator:
    """The device and its arithmetic; `auto` is bf16 on a CUDA device that has it, else float32.

    Raises InputError for an arithmetic or a computation that the device lacks.
    """
    precision = settings.precision
    cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "no"
    if precision == "fp16" and not cuda:
        raise InputError("precision=fp16 needs a CUDA device; allowed here: auto, no, bf16")
    accelerator = Accelerator(mixed_precision=precision)
    obstacle = graph_obstacle(settings, accelerator)
    if settings.compute in ("graph", "compile") and obstacle:
        raise InputError(
            f"compute={settings.compute} {obstacle}; allowed here: auto, plain, packed"
        )
    return accelerator


def graph_obstacle(settings: Settings, accelerator: Accelerator) -> str:
    """Why a step cannot be captured, or nothing."""
    if accelerator.device.type != "cuda":
        return "needs a CUDA device"
    if accelerator.num_processes > 1:
        return "is for one process"
    if accelerator.scaler is not None:
        return "cannot be used with precision=fp16"
    if settings.accumulation > 1:
        return "cannot be used with accumulation"
    return ""
