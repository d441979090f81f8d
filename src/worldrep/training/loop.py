"""The training loop, for pretraining and fine-tuning alike.

It runs on `accelerate` (any device, several processes, mixed precision) and knows nothing of
MLflow: numbers and checkpoints go to a Recorder. On the CPU the same settings end with the same
weights, however often the training was killed and resumed in between.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from transformers import Qwen2ForCausalLM

from worldrep.data.encoding import Tokens
from worldrep.settings import Settings
from worldrep.training.checkpoint import write_checkpoint
from worldrep.training.feed import RowFeed
from worldrep.training.progress import Meter, Watch
from worldrep.training.recording import Recorder
from worldrep.training.state import Training
from worldrep.training.steps import steps_of

LOG_POINTS = 200  # points of the training curves

Validate = Callable[[Qwen2ForCausalLM], dict[str, float]]


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
    base_rows: Tokens | None = None,
) -> Qwen2ForCausalLM:
    """Train a model on token rows (n, length) and return it with its final weights.

    model: as it is at step 0; recorder: where numbers and checkpoints go, None on all processes but
    the main one; validate: called with the model at the validation steps; resume: checkpoint folder
    to continue from; title, watch: what it is called to whom is told how far it is; base_rows: rows
    (m, length) of the base's training, for a strategy that goes back to them.
    Raises StateError, naming the step, when the loss is not finite.
    """
    training = Training(model, settings, accelerator, base_rows)
    if resume is not None:
        training.resume(resume)
    feed = RowFeed(rows, settings, accelerator.device, base_rows)
    stepper, steps = steps_of(training, feed), feed.schedule.steps
    log_every = max(1, steps // LOG_POINTS)
    checkpoint_steps = feed.schedule.marks(settings.n_checkpoints)
    validation_steps = {0} | feed.schedule.marks(settings.n_validations)
    read_steps = checkpoint_steps | validation_steps  # what runs behind is waited for before these
    meter = Meter(steps, training.step, title, watch)

    def look() -> None:
        """Validate where that is due, on the main process."""
        if recorder and validate and training.step in validation_steps:
            recorder.metrics(training.step, validate(training.result()))
            training.plain.train()
            meter.skip()

    if resume is None:
        look()
    while training.step < steps:
        tokens = feed.token_count(feed.batch(training.step))
        stepper.take()
        meter.add(tokens)
        if training.step % log_every == 0 or training.step in read_steps:
            numbers = stepper.read()
            numbers |= meter.flush(numbers["train/loss"])
            if recorder:
                recorder.metrics(training.step, numbers)
        look()
        if recorder and training.step in checkpoint_steps:
            _record_checkpoint(training, recorder)
            meter.skip()
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(training.model, keep_fp32_wrapper=False)
    del stepper  # and with it what it keeps on the device
    accelerator.free_memory()
    return training.result().eval()


def _record_checkpoint(training: Training, recorder: Recorder) -> None:
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        state = training.state_dict()
        recorder.checkpoint(write_checkpoint(Path(folder), training.step, training.result(), state))
