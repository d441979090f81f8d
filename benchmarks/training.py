"""Training against `transformers.Trainer`, against the device's limits, and several at once.

Both take the same steps from the same weights, a block at a time in turn. Tokens are counted
without padding. The floor of a step is the longer of two times: its operations at the rate of a
large matrix product, and its bytes at the rate of a large copy, for tokens that rows do not share.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.report import Tables, benchmark, in_turns, synchronize, timed
from worldrep.data.sets import maker_of, stack_rows, training_sets
from worldrep.data.tokens import EQUALS, PAD, VOCABULARY_SIZE, Tokens
from worldrep.model.linear import onednn_product
from worldrep.model.qwen2 import build_model
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings
from worldrep.training.feed import RowFeed
from worldrep.training.state import Training, best_device, make_accelerator
from worldrep.training.steps import steps_of

BLOCK = 5  # steps
WARM_UP = 2  # blocks that are not counted
ROWS = 128  # a step
ADAMW_NUMBERS = 8  # read: weight, gradient, two moments; written: these again, gradient as zero
LAYER_NUMBERS = 14  # of the hidden size, that the backward pass of a layer needs per token
GATE_NUMBERS = 3  # of the intermediate size
COPIED = 2**28  # bytes
REPEATS = 12  # of a product or copy
START_SECONDS = 240  # until all models have warmed up


@benchmark
def main(
    scale: str = "paper",
    widths: tuple[str, ...] = ("base", "narrow", "wide"),
    curve: tuple[int, ...] = (32, 512),
    processes: tuple[int, ...] = (1, 2),
    blocks: int = 6,
    seconds: float = 15.0,
    loss: str = "full",
    precision: str = "auto",
    compute: str = "auto",
    cities: str = "none",
) -> Tables:
    """Train both ways on the same batches, and several models at once.

    --curve lists further batch sizes of the first width, --processes numbers of models of the first
    width that train for --seconds; --blocks counts blocks of 5 steps.
    """
    options = {"loss": loss, "precision": precision, "compute": compute, "cities": cities}
    compared, floors = [], []
    for width, rows in [(w, ROWS) for w in widths] + [(widths[0], rows) for rows in curve]:
        ours = Ours(scale, width, WARM_UP + blocks, batch_size=rows, **options)
        compared.append(compare(ours))
        if rows == ROWS:
            floors.append(floor(ours))
    found = {n: together(n, scale, widths[0], seconds, options) for n in processes}
    several = [{"models": n, "tokens/s of all": rate} for n, rate in found.items()]
    return {"Beside Trainer:": compared, "The floor:": floors, "Several models at once:": several}


class Ours:
    """Training steps of worldrep, a block at a time, on rows for an epoch of `blocks` blocks.

    seconds, losses: of each block; a loss is the mean over the block.
    """

    def __init__(self, scale: str, width: str, blocks: int, **overrides: Any) -> None:
        rows = -(-blocks * BLOCK * overrides["batch_size"] // len(TASK_NAMES))
        overrides = {"epochs": 1, "pretrain_rows": rows} | overrides
        self.blocks = blocks
        self.settings = resolve(ModelName("pt1", width=width), scale=scale, overrides=overrides)
        self.maker = maker_of(self.settings)
        self.rows = stack_rows(self.maker, training_sets(self.settings, self.maker.world))
        accelerator = make_accelerator(self.settings)
        self.training = Training(build_model(self.settings), self.settings, accelerator)
        self.feed = RowFeed(self.rows, self.settings, accelerator.device)
        self.steps = steps_of(self.training, self.feed)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def batches(self, block: int) -> list[NDArray[np.int64]]:
        """Return the row indices of the steps of a block."""
        return [self.feed.batch(step) for step in range(block * BLOCK, (block + 1) * BLOCK)]

    def tokens(self, block: int) -> int:
        """Count the tokens of a block without padding."""
        return sum(self.feed.token_count(batch) for batch in self.batches(block))

    def take_block(self) -> None:
        """Take the steps of the next block."""
        seconds, _ = timed(lambda: [self.steps.take() for _ in range(BLOCK)])
        self.seconds.append(seconds)
        self.losses.append(self.steps.read()["train/loss"])


def compare(ours: Ours) -> dict[str, Any]:
    """Return median tokens per second of both over blocks, and the largest difference of losses."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, losses = train_with_trainer(ours, folder)
    trainer, own = (
        statistics.median(ours.tokens(i) / s for i, s in enumerate(found) if i >= WARM_UP)
        for found in (seconds, ours.seconds)
    )
    return {
        "width": ours.settings.width,
        "rows a step": ours.settings.batch_size,
        "Trainer, tokens/s": trainer,
        "worldrep, tokens/s": own,
        "ratio": own / trainer,
        "losses apart": float(np.abs(np.subtract(losses, ours.losses)).max()),
    }


def train_with_trainer(ours: Ours, folder: str) -> tuple[list[float], list[float]]:
    """Run Trainer on the batches of `ours`; return the seconds and mean losses of blocks."""
    settings, turns = ours.settings, TakeTurns(ours)
    order = np.concatenate([batch for i in range(ours.blocks) for batch in ours.batches(i)])
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch_size,
        train_sampling_strategy="sequential",
        max_steps=ours.feed.schedule.steps,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        optim="adamw_torch_fused",
        bf16=ours.training.accelerator.mixed_precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=BLOCK,
        save_strategy="no",
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=build_model(settings),
        args=arguments,
        train_dataset=list(ours.rows[order]),
        data_collator=partial(collate, loss=settings.loss),
        callbacks=[turns],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return turns.seconds, [log["loss"] for log in trainer.state.log_history if "loss" in log]


class TakeTurns(TrainerCallback):
    """Makes Trainer wait after each block until worldrep has taken the same one."""

    def __init__(self, ours: Ours) -> None:
        self._ours, self._begun = ours, 0.0
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % BLOCK:
            return
        synchronize()
        self.seconds.append(time.perf_counter() - self._begun)
        self._ours.take_block()
        control.should_training_stop = len(self.seconds) == self._ours.blocks
        self._begun = time.perf_counter()


def collate(rows: list[Tokens], loss: str) -> dict[str, torch.Tensor]:
    """Make a batch, padded to its longest row, with labels as Trainer wants them."""
    ids = torch.from_numpy(np.stack(rows)).long()
    ids = ids[:, (ids != PAD).any(dim=0)]
    labels = ids.masked_fill(ids == PAD, -100)
    if loss == "answer":
        equals = (ids == EQUALS).int().argmax(dim=1, keepdim=True)
        labels[torch.arange(ids.shape[1]) <= equals] = -100
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


def floor(ours: Ours) -> dict[str, Any]:
    """Compare the median time of a step with its operations and bytes at the device's rates."""
    batches = [b for block in range(WARM_UP, len(ours.seconds)) for b in ours.batches(block)]
    tokens = round(statistics.mean(len(ours.feed.tensors(batch).tokens) for batch in batches))
    mixed = ours.training.accelerator.mixed_precision == "bf16"
    # Attention within rows of some 37 tokens adds 2 to 3% and is left out.
    flop = 6.0 * matrix_weights(ours.settings) * tokens
    moved = step_bytes(ours.settings, tokens, mixed)
    flop_rate, byte_rate = device_rates(mixed)
    multiplying, moving = flop / flop_rate, moved / byte_rate
    step = statistics.median(ours.seconds[WARM_UP:]) / BLOCK
    return {
        "width": ours.settings.width,
        "distinct tokens": tokens,
        "GFLOP": flop / 1e9,
        "MB": moved / 1e6,
        "multiplying, ms": 1e3 * multiplying,
        "moving, ms": 1e3 * moving,
        "step, ms": 1e3 * step,
        "above": step / max(multiplying, moving),
    }


def matrix_weights(settings: Settings) -> int:
    """Count the weights that every token is multiplied by: all matrices but the embedding."""
    d, f = settings.hidden_size, settings.intermediate_size
    return settings.n_layers * (4 * d * d + 3 * d * f) + VOCABULARY_SIZE * d


def step_bytes(settings: Settings, tokens: int, mixed: bool) -> float:
    """Count the bytes if each activation is written once and read once, and AdamW likewise."""
    d, f, size = settings.hidden_size, settings.intermediate_size, 2 if mixed else 4
    per_token = settings.n_layers * (LAYER_NUMBERS * d + GATE_NUMBERS * f)
    weights = matrix_weights(settings) + VOCABULARY_SIZE * d
    return 2.0 * per_token * tokens * size + weights * (4 * ADAMW_NUMBERS + 3 * size)


def device_rates(mixed: bool) -> tuple[float, float]:
    """Measure operations a second of a large matrix product, and bytes a second of a large copy.

    On a CPU, the product is the faster one of torch's default and oneDNN.
    """
    device = best_device()
    n = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if mixed else torch.float32
    left, right = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    source = torch.randn(COPIED // 4, device=device)
    target = torch.empty_like(source)
    ways = [lambda: target.copy_(source), lambda: left @ right]
    if device.type == "cpu" and not mixed and torch.backends.mkldnn.is_available():
        ways.append(lambda: onednn_product(left, right))
    copying, *multiplying = (seconds for seconds, _ in in_turns(REPEATS, *ways))
    return 2.0 * n**3 / min(multiplying), 2.0 * COPIED / copying  # a copy reads and writes


def together(count: int, scale: str, width: str, seconds: float, options: dict) -> float:
    """Return tokens per second of several trainings that start at the same moment."""
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    threads = {"initializer": torch.set_num_threads, "initargs": (max(1, cores // count),)}
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(count, mp_context=context, **threads) as pool,
    ):
        work = manager.Barrier(count, timeout=START_SECONDS), scale, width, seconds, options
        return sum(rate.result() for rate in [pool.submit(_train, *work) for _ in range(count)])


def _train(start: Any, scale: str, width: str, seconds: float, options: dict) -> float:
    """Return tokens per second of one of the trainings."""
    ours = Ours(scale, width, 20, **{"batch_size": ROWS, "epochs": 1_000} | options)
    for _ in range(WARM_UP):
        ours.take_block()
    start.wait()
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        ours.take_block()
    return sum(ours.tokens(block) for block in range(WARM_UP, len(ours.seconds))) / elapsed


if __name__ == "__main__":
    main()
