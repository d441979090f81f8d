"""Training against `transformers.Trainer`: real tokens per second on the same rows, alternating.

Both train the same model from the same weights on the same batches, with the same optimizer,
schedule and precision. Trainer gets rows that are tokenised already and a collator that pads each
batch to its longest row. It is held up after every few steps while ours takes the same ones, so
that a noisy machine hits both. The losses of both are compared step by step.

    python -m benchmarks.training --scale paper --width narrow
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Table, ratio, write
from benchmarks.rows import Sample, sample, synchronize

BLOCK = 5  # steps that one side takes before it is the other's turn
WARM_UP = 2  # blocks that are not counted
USUAL_ROWS = 128  # a step
CURVE = 32, 512  # besides, to show how cost grows


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of model and rows.")
@click.option("--width", "widths", multiple=True, default=["base", "narrow"], show_default=True)
@click.option("--loss", default="full", show_default=True, help="Tokens that the loss covers.")
@click.option("--precision", default="auto", show_default=True, help="auto, no, bf16.")
@click.option("--compute", default="auto", show_default=True, help="How our steps are computed.")
@click.option("--blocks", default=6, show_default=True, help=f"Blocks of {BLOCK} steps counted.")
@click.option("--cities", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(scale: str, widths: list[str], blocks: int, out: str, **overrides: str) -> None:
    """Time training both ways on the same batches."""
    sizes = [(width, USUAL_ROWS) for width in widths] + [(widths[0], rows) for rows in CURVE]
    cases = [measure(scale, width, blocks, batch_size=rows, **overrides) for width, rows in sizes]
    header = (
        "width",
        "rows a step",
        "Trainer, tokens/s",
        "worldrep, tokens/s",
        "ratio",
        "losses apart",
    )
    keys = "width", "batch_size", "trainer_tokens_per_second", "tokens_per_second"
    rows = [
        (*(case[key] for key in keys), ratio(case["ratio"]), f"{case['losses_apart']:.1e}")
        for case in cases
    ]
    facts = {"scale": scale, **overrides, "steps": BLOCK * blocks, "cases": cases}
    write("training", facts, Table(header, rows), out)


def measure(scale: str, width: str, blocks: int, **overrides: Any) -> dict[str, Any]:
    """Median real tokens per second of both over blocks, and the largest difference of losses."""
    steps = BLOCK * (WARM_UP + blocks)
    rows_per_task = -(-steps * overrides["batch_size"] // 7)
    found = sample(scale, width, rows_per_task, epochs=1, **overrides)
    ours = Ours(found)
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(found, ours, steps, folder)
        theirs.train()
    medians = {
        name: statistics.median(ours.tokens(i) / s for i, s in enumerate(seconds) if i >= WARM_UP)
        for name, seconds in (("trainer", theirs.seconds), ("ours", ours.seconds))
    }
    apart = max(abs(a - b) for a, b in zip(theirs.losses, ours.losses, strict=True))
    return {
        "width": width,
        "batch_size": overrides["batch_size"],
        "trainer_tokens_per_second": medians["trainer"],
        "tokens_per_second": medians["ours"],
        "ratio": medians["ours"] / medians["trainer"],
        "losses_apart": apart,
        "last_loss": ours.losses[-1],
    }


class Ours:
    """Our steps, a block at a time."""

    def __init__(self, found: Sample) -> None:
        from worldrep.device import make_accelerator
        from worldrep.feed import RowFeed
        from worldrep.model import build_model
        from worldrep.state import Training
        from worldrep.steps import steps_of

        accelerator = make_accelerator(found.settings)
        self.training = Training(build_model(found.settings), found.settings, accelerator)
        self.feed = RowFeed(found.rows, found.settings, accelerator.device)
        self.steps = steps_of(self.training, self.feed)
        self.losses: list[float] = []  # means of blocks
        self.seconds: list[float] = []

    def batches(self, block: int) -> list[NDArray[np.int64]]:
        return [self.feed.batch(step) for step in range(block * BLOCK, (block + 1) * BLOCK)]

    def tokens(self, block: int) -> int:
        return sum(self.feed.token_count(batch) for batch in self.batches(block))

    def take_block(self) -> None:
        synchronize()
        begun = time.perf_counter()
        for _ in range(BLOCK):
            self.steps.take()
        numbers = self.steps.read()
        synchronize()
        self.seconds.append(time.perf_counter() - begun)
        self.losses.append(numbers["train/loss"])


class Theirs:
    """Trainer on the same batches; between blocks it lets ours go on."""

    def __init__(self, found: Sample, ours: Ours, steps: int, folder: str) -> None:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        from worldrep.model import build_model

        self.seconds: list[float] = []
        self._losses: list[torch.Tensor] = []
        board, settings = self, found.settings

        class InOrder(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                board._losses.append(loss.detach())
                return loss

        class TakeTurns(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                self.begun = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step % BLOCK == 0:
                    synchronize()
                    board.seconds.append(time.perf_counter() - self.begun)
                    ours.take_block()
                    control.should_training_stop = state.global_step >= steps
                    self.begun = time.perf_counter()

        mixed = ours.training.accelerator.mixed_precision
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
            bf16=mixed == "bf16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        order = np.concatenate([b for i in range(steps // BLOCK) for b in ours.batches(i)])
        self._trainer = InOrder(
            model=build_model(settings),
            args=arguments,
            train_dataset=Rows(found.rows[order], settings.loss),
            data_collator=pad,
            callbacks=[TakeTurns()],
        )

    def train(self) -> None:
        self._trainer.train()

    @property
    def losses(self) -> list[float]:
        """Means of blocks. A batch's mean is over its own targets, and so is ours."""
        singly = torch.stack(self._losses).tolist()
        return [statistics.mean(singly[i : i + BLOCK]) for i in range(0, len(singly), BLOCK)]


class Rows(torch.utils.data.Dataset):
    """Token rows without their padding, and with labels as Trainer wants them."""

    def __init__(self, rows: NDArray[np.uint8], loss: str) -> None:
        from worldrep.tokenizer import EQUALS

        self._rows = [torch.from_numpy(row[row != 0].astype(np.int64)) for row in rows]
        firsts = (rows == EQUALS).argmax(axis=1) + 1 if loss == "answer" else np.ones(len(rows))
        self._firsts = firsts.astype(int).tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        labels = self._rows[i].clone()
        labels[: self._firsts[i]] = -100
        return {"input_ids": self._rows[i], "labels": labels}


def pad(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch, padded to its longest row."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([item["input_ids"] for item in items], batch_first=True)
    labels = [item["labels"] for item in items]
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


if __name__ == "__main__":
    main()
