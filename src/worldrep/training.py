"""The training loop, for pretraining and fine-tuning alike.

It runs on `accelerate` (any device, several processes, mixed precision) and knows nothing of
MLflow: numbers and checkpoints go to a Recorder. On the CPU the same settings end with the same
weights, however often the training was killed and resumed in between.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, embedding
from transformers import Qwen2ForCausalLM

from worldrep.checkpoint import read_checkpoint, write_checkpoint
from worldrep.encoding import Tokens
from worldrep.errors import InputError, StateError
from worldrep.feed import RowFeed
from worldrep.optimizer import build_optimizer, learning_rate_at, load_optimizer, optimizer_tensors
from worldrep.packed import PackedQwen2
from worldrep.progress import Meter, Watch
from worldrep.recording import Recorder
from worldrep.settings import Settings

LOG_POINTS = 200  # points of the training curves
SCALER_STATE = ("scale", "_growth_tracker")  # what fp16 changes from step to step

Validate = Callable[[Qwen2ForCausalLM], dict[str, float]]


def make_accelerator(settings: Settings) -> Accelerator:
    """The device and its arithmetic; `auto` is bf16 on a CUDA device that has it, else float32.

    Raises InputError for an arithmetic that the device lacks.
    """
    precision = settings.precision
    cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "no"
    if precision == "fp16" and not cuda:
        raise InputError("precision=fp16 needs a CUDA device; allowed here: auto, no, bf16")
    return Accelerator(mixed_precision=precision)


class Training:
    """All that changes from step to step, and how it is saved and restored."""

    def __init__(self, model: Qwen2ForCausalLM, settings: Settings, accelerator: Accelerator):
        self.settings, self.accelerator, self.step = settings, accelerator, 0
        self.plain = model.to(accelerator.device).train()
        optimizer = build_optimizer(self.plain, settings)
        self.model, self.optimizer = accelerator.prepare(PackedQwen2(self.plain), optimizer)

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


def train(
    model: Qwen2ForCausalLM,
    rows: Tokens,
    settings: Settings,
    accelerator: Accelerator,
    recorder: Recorder | None,
    validate: Validate | None = None,
    resume: Path | None = None,
    title: str = "training",
    watch: Watch | None = None,
) -> Qwen2ForCausalLM:
    """Train a model on token rows (n, length) and return it with its final weights.

    recorder: where numbers and checkpoints go, None on all processes but the main one; validate:
    called with the model at the validation steps; resume: checkpoint folder to continue from;
    title, watch: what it is called to whom is told how far it is.
    Raises StateError, naming the step, when the loss is not finite.
    """
    training = Training(model, settings, accelerator)
    if resume is not None:
        training.resume(resume)
    feed = RowFeed(rows, settings, accelerator.device)
    steps = feed.schedule.steps
    log_every = max(1, steps // LOG_POINTS)
    checkpoint_steps = feed.schedule.marks(settings.n_checkpoints)
    validation_steps = {0} | feed.schedule.marks(settings.n_validations)
    meter = Meter(steps, training.step, title, watch)

    def look() -> None:
        """Validate where that is due, on the main process."""
        if recorder and validate and training.step in validation_steps:
            recorder.metrics(training.step, validate(training.plain))
            training.plain.train()
            meter.skip()

    if resume is None:
        look()
    while training.step < steps:
        batch = feed.batch(training.step)
        loss, numbers = train_step(training, feed, batch)
        meter.add(loss, feed.token_count(batch))
        if training.step % log_every == 0 or training.step in checkpoint_steps:
            numbers |= meter.flush()
            if recorder:
                recorder.metrics(training.step, numbers)
        look()
        if recorder and training.step in checkpoint_steps:
            _record_checkpoint(training, recorder)
            meter.skip()
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(training.model, keep_fp32_wrapper=False)
    accelerator.free_memory()
    return training.plain.eval()


def train_step(
    training: Training, feed: RowFeed, batch: NDArray[np.int64]
) -> tuple[float, dict[str, float]]:
    """One optimizer step on rows of the feed; returns the loss and the other numbers of the step.

    The loss is the mean over all target tokens of the batch, over its parts and all processes.
    """
    accelerator, settings = training.accelerator, training.settings
    loss = _accumulate_gradients(training, feed, batch)
    if not np.isfinite(loss):
        raise StateError(
            f"the loss is {loss} at step {training.step + 1}; the step was not taken: "
            "try a lower learning_rate or more warmup_steps"
        )
    limit = settings.clip_norm or float("inf")
    norm = accelerator.clip_grad_norm_(training.model.parameters(), limit)
    rate = learning_rate_at(training.step, feed.schedule.steps, settings)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.step += 1
    return loss, {"train/lr": rate, "train/grad_norm": float(norm)}


def _accumulate_gradients(training: Training, feed: RowFeed, batch: NDArray[np.int64]) -> float:
    """Gradients of the batch's mean loss, part by part; returns that loss.

    Each process takes every n-th row. One without rows computes a row of weight 0, so that the
    exchange of gradients has all its partners.
    """
    accelerator, count = training.accelerator, feed.target_count(batch)
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    parts = [part for part in np.array_split(mine, training.settings.accumulation) if len(part)]
    weight = 1.0 / count if parts else 0.0
    parts = parts or [batch[:1]]
    total = torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts):
        packed = feed.tensors(part)
        with training.gradient_sync(last=i == len(parts) - 1):
            logits = training.model(packed.tokens, packed.layout, packed.at).float()
            logits = embedding(packed.asked, logits)
            loss = weight * cross_entropy(logits, packed.targets, reduction="sum")
            accelerator.backward(loss * accelerator.num_processes)  # processes average gradients
        total += loss.detach()
    return float(accelerator.reduce(total))


def _record_checkpoint(training: Training, recorder: Recorder) -> None:
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        state = training.state_dict()
        recorder.checkpoint(write_checkpoint(Path(folder), training.step, training.plain, state))
