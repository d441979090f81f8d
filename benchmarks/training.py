"""Training against `transformers.Trainer`: tokens per second on the same batches, alternating.

Both train the same model from the same weights, with the same optimizer, schedule and precision.
Trainer gets tokenised rows and pads each batch to its longest row. It waits after every block of
steps while worldrep takes the same ones, so that a noisy machine affects both. Padding is not
counted. The losses are compared.

    python -m benchmarks.training --scale paper --widths narrow
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.report import Results, benchmark, table
from benchmarks.timing import BLOCK, Ours, Sample, sample, synchronize
from worldrep.data.tokens import EQUALS, PAD
from worldrep.model.qwen2 import build_model

WARM_UP = 2  # blocks that are not counted
USUAL_ROWS = 128  # a step
COLUMNS = {
    "width": "width",
    "rows a step": "batch_size",
    "Trainer, tokens/s": "trainer_tokens_per_second",
    "worldrep, tokens/s": "tokens_per_second",
    "ratio": "ratio",
    "losses apart": "losses_apart",
}


@benchmark
def main(
    scale: str = "paper",
    widths: tuple[str, ...] = ("base", "narrow"),
    curve: tuple[int, ...] = (32, 512),
    loss: str = "full",
    precision: str = "auto",
    compute: str = "auto",
    blocks: int = 6,
    cities: str = "none",
) -> Results:
    """Time training both ways on the same batches.

    --curve lists further batch sizes of the first width; --blocks counts blocks of 5 steps.
    """
    options = {"loss": loss, "precision": precision, "compute": compute, "cities": cities}
    sizes = [(width, USUAL_ROWS) for width in widths] + [(widths[0], rows) for rows in curve]
    cases = [measure(scale, width, blocks, batch_size=rows, **options) for width, rows in sizes]
    return {"cases": cases}, [table(cases, COLUMNS)]


def measure(scale: str, width: str, blocks: int, **overrides: Any) -> dict[str, Any]:
    """Return median tokens per second of both over blocks, and the largest difference of losses."""
    steps = BLOCK * (WARM_UP + blocks)
    found = sample(scale, width, steps, epochs=1, **overrides)
    ours = Ours(found)
    with tempfile.TemporaryDirectory() as folder:
        theirs = train_with_trainer(found, ours, steps, folder)
    trainer, own = (
        statistics.median(ours.tokens(i) / s for i, s in enumerate(seconds) if i >= WARM_UP)
        for seconds in (theirs.seconds, ours.seconds)
    )
    apart = max(abs(a - b) for a, b in zip(theirs.block_losses, ours.losses, strict=True))
    return {
        "width": width,
        "batch_size": overrides["batch_size"],
        "trainer_tokens_per_second": trainer,
        "tokens_per_second": own,
        "ratio": own / trainer,
        "losses_apart": apart,
    }


def train_with_trainer(found: Sample, ours: Ours, steps: int, folder: str) -> InOrder:
    """Run Trainer on the batches of `ours`, with the same optimizer, schedule and precision."""
    settings = found.settings
    order = np.concatenate([b for i in range(steps // BLOCK) for b in ours.batches(i)])
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        max_steps=ours.feed.schedule.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        optim="adamw_torch_fused",
        bf16=ours.training.accelerator.mixed_precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = InOrder(
        model=build_model(settings),
        args=arguments,
        train_dataset=labelled(found.rows[order], settings.loss),
        data_collator=pad,
    )
    trainer.add_callback(TakeTurns(trainer, ours, steps))
    trainer.train()
    return trainer


class InOrder(Trainer):
    """Trainer that takes the rows in their order and keeps losses and seconds of blocks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[torch.Tensor] = []
        self.seconds: list[float] = []

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss

    @property
    def block_losses(self) -> list[float]:
        """Means over blocks. The loss of a batch is the mean over its targets."""
        return torch.stack(self.losses).reshape(-1, BLOCK).double().mean(dim=1).tolist()


class TakeTurns(TrainerCallback):
    """Makes Trainer wait after each block until worldrep has taken the same one."""

    def __init__(self, trainer: InOrder, ours: Ours, steps: int) -> None:
        self._trainer, self._ours, self._steps, self._begun = trainer, ours, steps, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % BLOCK:
            return
        synchronize()
        self._trainer.seconds.append(time.perf_counter() - self._begun)
        self._ours.take_block()
        control.should_training_stop = state.global_step >= self._steps
        self._begun = time.perf_counter()


def labelled(rows: NDArray[np.uint8], loss: str) -> list[dict[str, torch.Tensor]]:
    """Return token rows without padding, with labels as Trainer wants them."""
    firsts = (rows == EQUALS).argmax(axis=1) + 1 if loss == "answer" else np.ones(len(rows), int)
    items = []
    for row, first in zip(rows, firsts, strict=True):
        ids = torch.from_numpy(row[row != PAD].astype(np.int64))
        labels = ids.clone()
        labels[:first] = -100
        items.append({"input_ids": ids, "labels": labels})
    return items


def pad(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Make a batch, padded to its longest row."""
    ids = pad_sequence([item["input_ids"] for item in items], batch_first=True)
    labels = [item["labels"] for item in items]
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


if __name__ == "__main__":
    main()
