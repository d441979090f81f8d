"""Evaluation against `model.generate` of transformers: rows per second per suite, alternating.

Both decode greedily. `generate` gets what a user would give it: batches of rows of one suite,
padded on the left. The model is trained for a moment first, so that it answers in the tasks' form
and ends its answers; the text of both must be the same.

    python -m benchmarks.evaluation --scale paper --rows 10000
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np

from benchmarks.blocks import Ours
from benchmarks.report import Table, ratio, write
from benchmarks.rows import rows_per_task, sample, whole_numbers
from benchmarks.turns import in_turns
from worldrep.errors import one_sentence

BATCH = 512
CURVE = "standard/perimeter"  # the suite whose cost is measured at several sizes
TRAINED = {"batch_size": 64, "learning_rate": 1e-3, "epochs": 1, "loss": "answer"}


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of model and rows.")
@click.option("--width", default="base", show_default=True, help="Width of the model.")
@click.option("--rows", default=2000, show_default=True, help="Rows of each suite.")
@click.option("--curve", default="500,2000,8000", show_default=True, help="Sizes of one suite.")
@click.option("--batch", default=BATCH, show_default=True, help="Rows that generate gets at once.")
@click.option("--rounds", default=2, show_default=True, help="Times that each side answers.")
@click.option("--steps", default=150, show_default=True, help="Steps of the training before.")
@click.option("--cities", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(
    scale: str,
    width: str,
    rows: int,
    curve: str,
    batch: int,
    rounds: int,
    steps: int,
    cities: str,
    out: str,
) -> None:
    """Answer test rows both ways."""
    sizes = whole_numbers(curve)
    model, suites = prepare(scale, width, max(rows, *sizes), steps, cities)
    cases = [measure(model, name, suite[:rows], rounds, batch) for name, suite in suites.items()]
    cases += [measure(model, CURVE, suites[CURVE][:size], rounds, batch) for size in sizes]
    total = sum(case["seconds"] for case in cases[: len(suites)])
    theirs = sum(case["generate_seconds"] for case in cases[: len(suites)])
    header = "suite", "rows", "generate, rows/s", "worldrep, rows/s", "ratio", "texts that differ"
    lines = [
        (
            case["suite"],
            case["rows"],
            case["rows"] / case["generate_seconds"],
            case["rows"] / case["seconds"],
            ratio(case["generate_seconds"] / case["seconds"]),
            case["differing"],
        )
        for case in cases
    ]
    n = sum(case["rows"] for case in cases[: len(suites)])
    lines.insert(len(suites), ("all", n, n / theirs, n / total, ratio(theirs / total), ""))
    facts = {"scale": scale, "width": width, "batch": batch, "trained_steps": steps, "cases": cases}
    write("evaluation", facts, Table(header, lines), out)


def prepare(scale: str, width: str, rows: int, steps: int, cities: str) -> tuple[Any, dict]:
    """A model that has been trained for so many steps, and prompts by suite."""
    from worldrep.evaluation.suites import build_suites

    per_task = rows_per_task(steps, TRAINED["batch_size"])
    found = sample(scale, width, per_task, test_rows=rows, multi_rows=1, cities=cities, **TRAINED)
    ours = Ours(found)
    for _ in range(steps):
        ours.steps.take()
    ours.steps.read()
    suites = build_suites(found.maker, found.settings)
    return ours.training.plain.eval(), {suite.name: suite.prompts for suite in suites}


def measure(
    model: Any, name: str, prompts: list, rounds: int, batch: int = BATCH
) -> dict[str, Any]:
    """Median seconds of both ways for the same prompts, and how many texts differ."""
    from worldrep.data.tokens import decode_rows
    from worldrep.evaluation.generation import generate_tokens
    from worldrep.evaluation.suites import MAX_NEW_TOKENS

    ways: dict[str, Callable[[list], Any]] = {
        "generate_seconds": lambda rows: transformers_tokens(model, rows, MAX_NEW_TOKENS, batch),
        "seconds": lambda rows: generate_tokens(model, rows, MAX_NEW_TOKENS),
    }
    in_turns({way: partial(answer, prompts[:batch]) for way, answer in ways.items()}, rounds=1)
    seconds, tokens = in_turns(
        {way: partial(answer, prompts) for way, answer in ways.items()}, rounds
    )
    texts = (decode_rows(found) for found in tokens.values())
    differing = sum(a != b for a, b in zip(*texts, strict=True))
    return {"suite": name, "rows": len(prompts), "differing": differing, **seconds}


def transformers_tokens(model: Any, prompts: list, max_new_tokens: int, size: int) -> Any:
    """Token rows (n, max_new_tokens) from `generate`."""
    import torch

    result = np.zeros((len(prompts), max_new_tokens), dtype=np.uint8)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        for row, prompt in zip(ids, batch, strict=True):
            row[longest - len(prompt) :] = prompt
        tokens = torch.from_numpy(ids).to(model.device)
        found = model.generate(
            tokens,
            attention_mask=(tokens != 0).long(),
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        new = found[:, longest:].cpu().numpy()
        result[start : start + len(batch), : new.shape[1]] = new
    return result


if __name__ == "__main__":
    main()
