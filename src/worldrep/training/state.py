"""All of a training that changes from step to step, and how it is saved and restored."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from transformers import Qwen2ForCausalLM

from worldrep.data.encoding import Tokens
from worldrep.model.packed import PackedQwen2
from worldrep.model.plain import PlainQwen2
from worldrep.settings import Settings
from worldrep.training.checkpoint import read_checkpoint
from worldrep.training.optimizer import (
    build_optimizer,
    load_optimizer,
    optimizer_tensors,
    trained_parameters,
)
from worldrep.training.strategies.adapters import merged, with_adapters
from worldrep.training.strategies.fisher import fisher_information
from worldrep.training.strategies.frozen import freeze_all_but
from worldrep.training.strategies.pull import Pull

ADAPTER = "adapter/"
SCALER_STATE = ("scale", "_growth_tracker")  # what fp16 changes from step to step


class Training:
    """A model, its optimizer and how far they are.

    plain: the model of `transformers`; model: its forward pass, as the setting `compute` wants it,
    prepared by accelerate for its device and processes; pull: what holds it back, None for nothing.
    """

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        settings: Settings,
        accelerator: Accelerator,
        base_rows: Tokens | None = None,
    ) -> None:
        """model: as the training begins, even if it is resumed; base_rows: of the base's training,
        for a strategy that needs them."""
        self.settings, self.accelerator, self.step = settings, accelerator, 0
        self.plain = model.to(accelerator.device).train()
        self.pull = self._pull(base_rows)
        self._adapted = with_adapters(self.plain, settings) if settings.strategy == "lora" else None
        if settings.strategy == "freeze":
            freeze_all_but(settings.trained_part, self.plain)
        passes = (PlainQwen2 if settings.is_plain else PackedQwen2)(self.plain)
        optimizer = build_optimizer(self.plain, settings)
        self.model, self.optimizer = accelerator.prepare(passes, optimizer)

    def _pull(self, base_rows: Tokens | None) -> Pull | None:
        if self.settings.strategy == "l2sp":
            return Pull(self.plain, self.settings.l2sp_pull)
        if self.settings.strategy == "ewc":
            assert base_rows is not None
            information = broadcast(fisher_information(self.plain, base_rows, self.settings))
            return Pull(self.plain, self.settings.ewc_pull, information)
        return None

    def result(self) -> Qwen2ForCausalLM:
        """The model as it is now and as it is stored, whatever was added to train it."""
        return merged(self._adapted) if self._adapted else self.plain

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Position, optimizer and random state; the weights are saved as a model beside them."""
        state = {"step": torch.tensor(self.step), "rng": torch.get_rng_state()}
        if self.accelerator.scaler is not None:
            scaler = self.accelerator.scaler.state_dict()
            state |= {f"scaler/{key}": torch.tensor(scaler[key]) for key in SCALER_STATE}
        return state | self._adapters() | optimizer_tensors(self.plain, self.optimizer)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint folder. Raises StateError when it is damaged."""
        weights, state = read_checkpoint(folder)
        if self._adapted:
            weights = {key: state[f"{ADAPTER}{key}"] for key, _ in trained_parameters(self.plain)}
        self.plain.load_state_dict(weights, strict=self._adapted is None)
        load_optimizer(self.plain, self.optimizer, state)
        torch.set_rng_state(state["rng"])
        scaler = self.accelerator.scaler
        if scaler is not None:
            saved = {key: state[f"scaler/{key}"].item() for key in SCALER_STATE}
            scaler.load_state_dict(scaler.state_dict() | saved)
        self.step = int(state["step"])

    def _adapters(self) -> dict[str, torch.Tensor]:
        """Weights that are trained beside the model's own: merged, they could not be told apart."""
        if self._adapted is None:
            return {}
        return {
            f"{ADAPTER}{name}": weight.detach().cpu().contiguous()
            for name, weight in trained_parameters(self.plain)
        }

    def gradient_sync(self, last: bool) -> AbstractContextManager:
        """Processes exchange gradients in the last part of a batch only."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)
