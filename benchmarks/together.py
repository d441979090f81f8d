"""Several models trained at once on one device, each in a process of its own: tokens per second.

python -m benchmarks.together --processes 1,2,4,8
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click

from benchmarks.report import Table, ratio, write
from benchmarks.rows import sample, whole_numbers
from worldrep.errors import one_sentence

WARM_UP = 2  # blocks before the start
START_SECONDS = 240  # until all have warmed up


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of model and rows.")
@click.option("--width", default="base", show_default=True, help="Width of the models.")
@click.option("--processes", default="1,2", show_default=True, help="How many at once.")
@click.option("--seconds", default=15.0, show_default=True, help="How long they train.")
@click.option("--compute", default="auto", show_default=True, help="How steps are computed.")
@click.option("--cities", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(
    scale: str, width: str, processes: str, seconds: float, out: str, **overrides: str
) -> None:
    """Train several models at the same time, with the cores shared between them."""
    counts = whole_numbers(processes)
    found = {count: measure(count, scale, width, seconds, overrides) for count in counts}
    alone = found[counts[0]] / counts[0]
    rows = [(count, rate, rate / count, ratio(rate / alone)) for count, rate in found.items()]
    table = Table(("models at once", "tokens/s of all", "of each", "times one model"), rows)
    facts = {"scale": scale, "width": width, **overrides}
    write("together", {**facts, "tokens_per_second": found}, table, out)


def measure(count: int, scale: str, width: str, seconds: float, overrides: dict) -> float:
    """Tokens per second of so many trainings that start at the same moment."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        start = manager.Barrier(count)
        work = start, threads, scale, width, seconds, overrides
        return sum(rate.result() for rate in [pool.submit(train, *work) for _ in range(count)])


def train(
    start: Any, threads: int, scale: str, width: str, seconds: float, overrides: dict
) -> float:
    """Tokens per second of one training. Raises BrokenBarrierError when another one fails."""
    import torch

    from benchmarks.blocks import Ours

    torch.set_num_threads(threads)
    try:
        ours = Ours(sample(scale, width, 2_000, epochs=1_000, **overrides))
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
