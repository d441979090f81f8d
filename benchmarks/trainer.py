"""The same steps by `transformers.Trainer`, which waits after every block of them."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.blocks import BLOCK, Ours
from benchmarks.rows import Sample
from benchmarks.turns import synchronize
from worldrep.data.tokens import EQUALS, PAD
from worldrep.model.qwen2 import build_model


class Theirs:
    """Trainer on our batches; between blocks it lets ours go on.

    seconds: of each block.
    """

    def __init__(self, found: Sample, ours: Ours, steps: int, folder: str) -> None:
        order = np.concatenate([b for i in range(steps // BLOCK) for b in ours.batches(i)])
        self._turns = TakeTurns(ours, steps)
        self._trainer = InOrder(
            model=build_model(found.settings),
            args=arguments(found, ours, folder),
            train_dataset=Rows(found.rows[order], found.settings.loss),
            data_collator=pad,
            callbacks=[self._turns],
        )

    def train(self) -> None:
        self._trainer.train()

    @property
    def seconds(self) -> list[float]:
        return self._turns.seconds

    @property
    def losses(self) -> list[float]:
        """Means of blocks. A batch's mean is over its own targets, and so is ours."""
        singly = torch.stack(self._trainer.losses).tolist()
        return [statistics.mean(singly[i : i + BLOCK]) for i in range(0, len(singly), BLOCK)]


def arguments(found: Sample, ours: Ours, folder: str) -> TrainingArguments:
    """The same optimizer, schedule and precision as ours."""
    settings = found.settings
    return TrainingArguments(
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


class InOrder(Trainer):
    """Takes the rows in the order in which they are given, and keeps the losses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[torch.Tensor] = []

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss


class TakeTurns(TrainerCallback):
    """Holds Trainer up after each block while ours takes the same one."""

    def __init__(self, ours: Ours, steps: int) -> None:
        self.seconds: list[float] = []
        self._ours, self._steps, self._begun = ours, steps, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % BLOCK:
            return
        synchronize()
        self.seconds.append(time.perf_counter() - self._begun)
        self._ours.take_block()
        control.should_training_stop = state.global_step >= self._steps
        self._begun = time.perf_counter()


class Rows(torch.utils.data.Dataset):
    """Token rows without their padding, and with labels as Trainer wants them."""

    def __init__(self, rows: NDArray[np.uint8], loss: str) -> None:
        self._rows = [torch.from_numpy(row[row != PAD].astype(np.int64)) for row in rows]
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
        "attention_mask": (ids != PAD).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
