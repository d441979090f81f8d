"""The training loop, for pretraining and fine-tuning alike.

It runs on `accelerate` (any device, several processes, mixed precision). On the CPU, a training
that is interrupted and resumed any number of times ends with the same weights as one that is not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from accelerate import Accelerator
from transformers import Qwen2ForCausalLM

from worldrep.data.tokens import Tokens
from worldrep.disk import temporary_folder
from worldrep.progress import Meter, ProgressCallback, Recorder
from worldrep.settings import Settings
from worldrep.training.checkpoint import Checkpoint, write_checkpoint
from worldrep.training.feed import RowFeed
from worldrep.training.state import Training
from worldrep.training.steps import not_finite, steps_of

LOG_POINTS = 200  # points of the training curves

Validate = Callable[[Qwen2ForCausalLM], dict[str, float]]


@dataclass(frozen=True)
class TrainingInputs:
    """What a training works on.

    Attributes:
        model: The model at step 0: new, or the base of a fine-tuning. It is trained in place.
        rows: (n, length) token rows to train on.
        settings: Settings of the training.
        accelerator: Device, precision and processes, as `make_accelerator` returns it.
        base_rows: (m, length) rows of the base's training, for the strategies `replay` and `ewc`.
        title: Label of the progress bar.
    """

    model: Qwen2ForCausalLM
    rows: Tokens
    settings: Settings
    accelerator: Accelerator
    base_rows: Tokens | None = None
    title: str = "training"


def train(
    inputs: TrainingInputs,
    recorder: Recorder | None,
    validate: Validate | None = None,
    progress: ProgressCallback | None = None,
    checkpoint: Checkpoint | None = None,
) -> Qwen2ForCausalLM:
    """Train a model and return it in evaluation mode.

    Args:
        inputs: What to train, on which rows.
        recorder: Receives metrics and checkpoints; None on all processes but the main one.
        validate: Returns metrics of a model; called at step 0 and at the validation steps.
        progress: Called several times a second with the progress of the training, beside the
            callbacks of `worldrep.progress.reporting`.
        checkpoint: Where to continue an interrupted training.

    Raises:
        CheckpointError: The checkpoint is not one of this training; no step was taken.
        StateError: The loss or the gradient norm is not finite, and the message names the step,
            which was not taken; or weights are not finite after the last step.
    """
    settings, accelerator = inputs.settings, inputs.accelerator
    training = Training(inputs.model, settings, accelerator, inputs.base_rows)
    feed = RowFeed(inputs.rows, settings, accelerator.device, inputs.base_rows)
    schedule = feed.schedule
    if checkpoint is not None:
        training.load_checkpoint(checkpoint, schedule.steps)
        accelerator.print(f"{inputs.title}: resumed after step {training.step}")
    stepper = steps_of(training, feed)
    log_every = max(1, schedule.steps // LOG_POINTS)
    checkpoint_steps = schedule.marks(settings.n_checkpoints)
    validation_steps = schedule.marks(settings.n_validations)
    meter = Meter(schedule.steps, training.step, inputs.title, progress)
    if recorder and validate and checkpoint is None:
        _validate(training, validate, recorder, meter)
    kept = [checkpoint.step] if checkpoint else []
    with _interrupt_reported(inputs.title, kept):
        while training.step < schedule.steps:
            meter.step(stepper.take())
            saving, validating = (
                training.step in checkpoint_steps,
                training.step in validation_steps,
            )
            # Reading the loss synchronises with the device and raises before a bad model is used.
            if saving or validating or training.step % log_every == 0:
                numbers = stepper.read()
                numbers |= meter.flush(numbers["train/loss"])
                if recorder:
                    recorder.metrics(training.step, numbers)
            if recorder and validate and validating:
                _validate(training, validate, recorder, meter)
            if recorder and saving:
                _save_checkpoint(training, recorder, meter)
                kept.append(training.step)
    if not all(bool(weight.isfinite().all()) for weight in training.plain.parameters()):
        raise not_finite(f"weights are not finite after step {training.step:,}", settings)
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(training.model, keep_fp32_wrapper=False)
    if accelerator.device.type == "cuda":
        del stepper  # it holds a CUDA graph and buffers on the device
        accelerator.free_memory()  # collects garbage, which takes a quarter of a second
    return training.result().eval()


@contextmanager
def _interrupt_reported(title: str, kept: list[int]) -> Iterator[None]:
    """Say after an interrupt from where the training can go on. kept: steps with a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        last = f"the checkpoint after step {kept[-1]:,} is kept" if kept else "no checkpoint yet"
        print(f"{title}: interrupted; {last}")
        raise


def _validate(training: Training, validate: Validate, recorder: Recorder, meter: Meter) -> None:
    recorder.metrics(training.step, validate(training.result()))
    training.plain.train()
    meter.restart()


def _save_checkpoint(training: Training, recorder: Recorder, meter: Meter) -> None:
    model, state = training.result(), training.state_dict()
    tensors = *model.state_dict().values(), *state.values()
    with temporary_folder(needed=sum(tensor.nbytes for tensor in tensors)) as folder:
        recorder.checkpoint(write_checkpoint(folder, training.step, model, state))
    meter.restart()
