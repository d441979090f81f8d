"""All of a training that changes from step to step, and how it is saved and restored."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import Qwen2ForCausalLM

from worldrep.checkpoint import read_checkpoint
from worldrep.optimizer import build_optimizer, load_optimizer, optimizer_tensors
from worldrep.packed import PackedQwen2
from worldrep.plain import PlainQwen2
from worldrep.settings import Settings

SCALER_STATE = ("scale", "_growth_tracker")  # what fp16 changes from step to step


class Training:
    """A model, its optimizer and how far they are.

    plain: the model of `transformers`; model: its forward pass, as the setting `compute` wants it,
    prepared by accelerate for its device and processes.
    """

    def __init__(self, model: Qwen2ForCausalLM, settings: Settings, accelerator: Accelerator):
        self.settings, self.accelerator, self.step = settings, accelerator, 0
        self.plain = model.to(accelerator.device).train()
        passes = (PlainQwen2 if settings.is_plain else PackedQwen2)(self.plain)
        optimizer = build_optimizer(self.plain, settings)
        self.model, self.optimizer = accelerator.prepare(passes, optimizer)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Position, optimizer and random state; the weights are saved as a model beside them."""
        state = {"step": torch.tensor(self.step), "rng": torch.get_rng_state()}
        if self.accelerator.scaler is not None:
            scaler = self.accelerator.scaler.state_dict()
            state |= {f"scaler/{key}": torch.tensor(scaler[key]) for key in SCALER_STATE}
        return state | optimizer_tensors(self.plain, self.optimizer)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint folder. Raises StateError when it is damaged."""
        weights, state = read_checkpoint(folder)
        self.plain.load_state_dict(weights)
        load_optimizer(self.plain, self.optimizer, state)
        torch.set_rng_state(state["rng"])
        scaler = self.accelerator.scaler
        if scaler is not None:
            saved = {key: state[f"scaler/{key}"].item() for key in SCALER_STATE}
            scaler.load_state_dict(scaler.state_dict() | saved)
        self.step = int(state["step"])

    def gradient_sync(self, last: bool) -> AbstractContextManager:
        """Processes exchange gradients in the last part of a batch only."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)
