"""Training steps against the limits of the device, and several models trained at once.

The floor of a step is the longer of two times: its floating-point operations at the rate of a large
matrix product, and the bytes that it must move at the rate of a large copy. Both are counted for
tokens that rows do not share.

    python -m benchmarks.device --widths base --processes 1,2,4,8
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks.report import Results, benchmark, table
from benchmarks.timing import BLOCK, Ours, in_turns, sample
from worldrep.data.tokens import VOCABULARY_SIZE
from worldrep.settings import Settings
from worldrep.training.state import best_device

BLOCKS, WARM_UP, REPEATS = 8, 2, 10
ROWS = 128  # a step
COPIED = 2**28  # bytes
ADAMW_NUMBERS = 8  # read: weight, gradient, two moments; written: these again, gradient as zero
LAYER_NUMBERS = 14  # of the hidden size, that the backward pass of a layer needs per token
GATE_NUMBERS = 3  # of the intermediate size
START_SECONDS = 240  # until all models have warmed up
FLOOR = {
    "width": "width",
    "tokens": "real_tokens",
    "distinct": "tokens",
    "GFLOP": "gflop",
    "MB": "mbyte",
    "multiplying, ms": "multiply_ms",
    "moving, ms": "move_ms",
    "step, ms": "step_ms",
    "above": "above_floor",
}


@benchmark
def main(
    scale: str = "paper",
    widths: tuple[str, ...] = ("narrow", "base", "wide"),
    processes: tuple[int, ...] = (1, 2),
    seconds: float = 15.0,
    precision: str = "auto",
    compute: str = "auto",
    cities: str = "none",
) -> Results:
    """Compare steps with the floor of the device, and train several models at once.

    --processes lists numbers of models, each of the first width, that train for --seconds.
    """
    options = {"precision": precision, "compute": compute, "cities": cities}
    cases = [floor(scale, width, **options) for width in widths]
    rates = "{gflop_per_second:,.0f} GFLOP/s, {gbyte_per_second:,.0f} GB/s".format(**cases[0])
    tables = [table(cases, FLOOR, f"Measured ceilings: {rates}.")]
    found = {count: together(count, scale, widths[0], seconds, options) for count in processes}
    alone = found[processes[0]] / processes[0]
    columns: dict[str, Any] = {
        "models at once": lambda count: count,
        "tokens/s of all": found.get,
        "of each": lambda count: found[count] / count,
        "times one model": lambda count: found[count] / alone,
    }
    return {"floor": cases, "together": found}, [*tables, table(found, columns)]


def floor(scale: str, width: str, **overrides: Any) -> dict[str, Any]:
    """Return counts, measured rates and the median time of a step."""
    steps = BLOCK * (BLOCKS + WARM_UP)
    found = sample(scale, width, steps, batch_size=ROWS, epochs=1, **overrides)
    ours = Ours(found)
    for _ in range(BLOCKS + WARM_UP):
        ours.take_block()
    seconds = statistics.median(ours.seconds[WARM_UP:]) / BLOCK
    batches = [batch for block in range(WARM_UP, WARM_UP + BLOCKS) for batch in ours.batches(block)]
    tokens = round(statistics.mean(len(ours.feed.tensors(batch).tokens) for batch in batches))
    mixed = ours.training.accelerator.mixed_precision == "bf16"
    flop, bytes_ = step_flop(found.settings, tokens), step_bytes(found.settings, tokens, mixed)
    flop_rate, byte_rate = multiply_rate(mixed), copy_rate()
    return {
        "width": width,
        "real_tokens": round(statistics.mean(map(ours.feed.token_count, batches))),
        "tokens": tokens,
        "gflop": flop / 1e9,
        "mbyte": bytes_ / 1e6,
        "gflop_per_second": flop_rate / 1e9,
        "gbyte_per_second": byte_rate / 1e9,
        "multiply_ms": 1e3 * flop / flop_rate,
        "move_ms": 1e3 * bytes_ / byte_rate,
        "step_ms": 1e3 * seconds,
        "above_floor": seconds / max(flop / flop_rate, bytes_ / byte_rate),
    }


def matrix_weights(settings: Settings) -> int:
    """Count the weights that every token is multiplied by: all matrices but the embedding."""
    d, f = settings.hidden_size, settings.intermediate_size
    return settings.n_layers * (4 * d * d + 3 * d * f) + VOCABULARY_SIZE * d


def step_flop(settings: Settings, tokens: int) -> float:
    """Count the operations of the matrix products: 6 per weight and token.

    Attention within rows of some 37 tokens adds 2 to 3% and is left out.
    """
    return 6.0 * matrix_weights(settings) * tokens


def step_bytes(settings: Settings, tokens: int, mixed: bool) -> float:
    """Count the bytes if each activation is written once and read once, and AdamW likewise."""
    d, f, size = settings.hidden_size, settings.intermediate_size, 2 if mixed else 4
    per_token = settings.n_layers * (LAYER_NUMBERS * d + GATE_NUMBERS * f)
    weights = matrix_weights(settings) + VOCABULARY_SIZE * d
    return 2.0 * per_token * tokens * size + weights * (4 * ADAMW_NUMBERS + 3 * size)


def multiply_rate(mixed: bool) -> float:
    """Measure operations per second of a large matrix product of random numbers."""
    device = best_device()
    n = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if mixed else torch.float32
    left, right = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    return 2.0 * n**3 / _seconds(lambda: left @ right)


def copy_rate() -> float:
    """Measure bytes per second, read and written, of a large copy."""
    source = torch.randn(COPIED // 4, device=best_device())
    target = torch.empty_like(source)
    return 2.0 * COPIED / _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], Any]) -> float:
    in_turns({"warm-up": work}, 2)
    return in_turns({"work": work}, REPEATS)[0]["work"]


def together(count: int, scale: str, width: str, seconds: float, overrides: dict) -> float:
    """Return tokens per second of several trainings that start at the same moment."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        work = manager.Barrier(count), threads, scale, width, seconds, overrides
        return sum(rate.result() for rate in [pool.submit(_train, *work) for _ in range(count)])


def _train(
    start: Any, threads: int, scale: str, width: str, seconds: float, overrides: dict
) -> float:
    """Return tokens per second of one training; all fail when one fails."""
    torch.set_num_threads(threads)
    try:
        ours = Ours(sample(scale, width, 100, epochs=1_000, **overrides))
        for _ in range(WARM_UP):
            ours.take_block()
        start.wait(timeout=START_SECONDS)
    except Exception:
        start.abort()
        raise
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        ours.take_block()
    elapsed = time.perf_counter() - begun
    return sum(ours.tokens(block) for block in range(WARM_UP, len(ours.seconds))) / elapsed


if __name__ == "__main__":
    main()
