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
from typing import Any

import click

from benchmarks.blocks import BLOCK, Ours
from benchmarks.report import Table, ratio, write
from benchmarks.rows import rows_per_task, sample
from benchmarks.trainer import Theirs
from worldrep.errors import one_sentence

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
@one_sentence
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
    rows = rows_per_task(steps, overrides["batch_size"])
    found = sample(scale, width, rows, epochs=1, **overrides)
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


if __name__ == "__main__":
    main()
