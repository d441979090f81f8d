"""How far a training step is above what its device could do at best.

Counts the floating-point operations and the bytes that one step must move, for tokens that rows do
not share, measures the rates at which the device multiplies and copies, and compares the longer of
the two times with a step's.

    python -m benchmarks.floor --width base
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import click
import torch

from benchmarks.blocks import BLOCK, Ours
from benchmarks.report import Table, ratio, write
from benchmarks.rows import rows_per_task, sample
from benchmarks.training import USUAL_ROWS
from benchmarks.turns import in_turns
from worldrep.data.tokens import VOCABULARY_SIZE
from worldrep.errors import one_sentence
from worldrep.settings import Settings
from worldrep.training.device import best_device

BLOCKS, WARM_UP = 8, 2
REPEATS = 10
COPIED = 2**28  # bytes
ADAMW_NUMBERS = 8  # read: weight, gradient, two moments; written: these again, gradient as zero
LAYER_NUMBERS = 14  # numbers of the residual width that a layer's backward needs, per token
GATE_NUMBERS = 3  # numbers of the feed-forward width


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of model and rows.")
@click.option("--width", "widths", multiple=True, default=["narrow", "base", "wide"])
@click.option("--precision", default="auto", show_default=True, help="auto, no, bf16.")
@click.option("--compute", default="auto", show_default=True, help="How steps are computed.")
@click.option("--cities", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(scale: str, widths: list[str], out: str, **overrides: str) -> None:
    """Compare training steps with the floor of their device."""
    found = [measure(scale, width, **overrides) for width in widths]
    keys = "width", "real_tokens", "tokens", "gflop", "mbyte", "multiply_ms", "move_ms", "step_ms"
    rows = [(*(case[key] for key in keys), ratio(case["above_floor"])) for case in found]
    header = (
        "width",
        "tokens",
        "distinct",
        "GFLOP",
        "MB",
        "multiplying, ms",
        "moving, ms",
        "step, ms",
        "above",
    )
    rates = {key: found[0][key] for key in ("gflop_per_second", "gbyte_per_second")}
    title = "Measured ceilings: {gflop_per_second:,.0f} GFLOP/s, {gbyte_per_second:,.0f} GB/s."
    table = Table(header, rows, title.format(**rates))
    write("floor", {"scale": scale, **overrides, "cases": found}, table, out)


def measure(scale: str, width: str, **overrides: str) -> dict[str, Any]:
    """Counts, ceilings and the median time of a step."""
    steps = BLOCK * (BLOCKS + WARM_UP)
    found = sample(scale, width, rows_per_task(steps, USUAL_ROWS), epochs=1, **overrides)
    ours = Ours(found)
    for _ in range(BLOCKS + WARM_UP):
        ours.take_block()
    seconds = statistics.median(ours.seconds[WARM_UP:]) / BLOCK
    batches = [batch for block in range(WARM_UP, WARM_UP + BLOCKS) for batch in ours.batches(block)]
    real = round(statistics.mean(map(ours.feed.token_count, batches)))
    tokens = round(statistics.mean(len(ours.feed.tensors(batch).tokens) for batch in batches))
    mixed = ours.training.accelerator.mixed_precision == "bf16"
    flop, bytes_ = step_flop(found.settings, tokens), step_bytes(found.settings, tokens, mixed)
    flop_rate, byte_rate = multiply_rate(mixed), copy_rate()
    floor = max(flop / flop_rate, bytes_ / byte_rate)
    return {
        "width": width,
        "real_tokens": real,
        "tokens": tokens,
        "gflop": flop / 1e9,
        "mbyte": bytes_ / 1e6,
        "gflop_per_second": flop_rate / 1e9,
        "gbyte_per_second": byte_rate / 1e9,
        "multiply_ms": 1e3 * flop / flop_rate,
        "move_ms": 1e3 * bytes_ / byte_rate,
        "step_ms": 1e3 * seconds,
        "above_floor": seconds / floor,
    }


def matrix_weights(settings: Settings) -> int:
    """Weights that every token is multiplied by: all matrices but the embedding."""
    d, f = settings.hidden_size, settings.intermediate_size
    return settings.n_layers * (4 * d * d + 3 * d * f) + VOCABULARY_SIZE * d


def step_flop(settings: Settings, tokens: int) -> float:
    """Operations of the matrix products: two a weight and token, three times with the backward.

    Attention within rows of some 37 tokens adds 2 to 3%, and is left out.
    """
    return 6.0 * matrix_weights(settings) * tokens


def step_bytes(settings: Settings, tokens: int, mixed: bool) -> float:
    """Bytes that must move if each activation is written once and read once, and AdamW likewise."""
    d, f, size = settings.hidden_size, settings.intermediate_size, 2 if mixed else 4
    per_token = settings.n_layers * (LAYER_NUMBERS * d + GATE_NUMBERS * f)
    weights = matrix_weights(settings) + VOCABULARY_SIZE * d
    return 2.0 * per_token * tokens * size + weights * (4 * ADAMW_NUMBERS + 3 * size)


def multiply_rate(mixed: bool) -> float:
    """Operations per second of a large matrix product on random numbers."""
    device = best_device()
    n = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if mixed else torch.float32
    left, right = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    return 2.0 * n**3 / _seconds(lambda: left @ right)


def copy_rate() -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.randn(COPIED // 4, device=best_device())
    target = torch.empty_like(source)
    return 2.0 * COPIED / _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], Any]) -> float:
    in_turns({"warm-up": work}, 2)
    seconds, _ = in_turns({"work": work}, REPEATS)
    return seconds["work"]


if __name__ == "__main__":
    main()
