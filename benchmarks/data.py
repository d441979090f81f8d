"""Rows per second and peak memory of making a scale's data sets, at growing sizes.

All of a task's sets (training, Atlantis, warm-up, validation, test; in the scale's proportions) are
drawn, answered, tokenised and stored in an empty cache, in turn with a plain generator that draws,
answers and tokenises one row at a time (`benchmarks.plain_rows`) and stores nothing.

    python -m benchmarks.data --sizes 1000000    # rows that a task trains on
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import click

from benchmarks.plain_rows import plain_rows
from benchmarks.report import Table, ratio, write
from benchmarks.rows import whole_numbers
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.world import World, world_of
from worldrep.errors import one_sentence
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

SIZES = 10_000, 100_000, 1_000_000
PLAIN_SECONDS = 0.2  # of the plain generator in each round


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale whose sets are made.")
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Rows a task.")
@click.option("--rounds", default=3, show_default=True, help="Times that each is measured.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(scale: str, sizes: str, rounds: int, out: str) -> None:
    """Make all data sets at several sizes in empty caches, and time it."""
    chosen = sorted(whole_numbers(sizes))
    cases = [measure(scale, size, rounds) for size in chosen]
    write("data", {"scale": scale, "rounds": rounds, "cases": cases}, tables(cases), out)


def measure(scale: str, size: int, rounds: int) -> dict[str, Any]:
    """Medians of each task, their sums, and the peak memory so far, which is the largest size's."""
    settings = of_size(scale, size)
    world = world_of(settings)
    turns = [one_round(settings, world) for _ in range(rounds)]
    tasks = {
        task: {key: median(turn[task][key] for turn in turns) for key in turns[0][task]}
        for task in TASK_NAMES
    }
    rows, seconds = (sum(task[key] for task in tasks.values()) for key in ("rows", "seconds"))
    return {
        "size": size,
        "rows": rows,
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "mean_rows_per_second": mean(task["rows_per_second"] for task in tasks.values()),
        "mean_ratio": mean(task["ratio"] for task in tasks.values()),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "tasks": tasks,
    }


def of_size(scale: str, size: int) -> Settings:
    """The scale's settings with all row sets as much smaller or larger as the training set is."""
    settings = resolve(ModelName("pt1"), scale=scale)
    factor = size / settings.pretrain_rows
    rows = {
        name: max(1, round(n * factor)) for name, n in settings.group("rows", "ft_rows").items()
    }
    rows["multi_rows"] = min(rows["multi_rows"], rows["test_rows"])
    return resolve(ModelName("pt1"), scale=scale, overrides=rows)


def one_round(settings: Settings, world: World) -> dict[str, dict[str, float]]:
    """Each task made in an empty cache, and then by the plain generator."""
    maker = RowMaker(world, settings)
    found = {}
    with (
        tempfile.TemporaryDirectory(prefix="worldrep-") as folder,
        patch.dict(os.environ, WORLDREP_CACHE=folder),
    ):
        for task in TASK_NAMES:
            rows, seconds = make_all(maker, settings, task)
            rate, plain = rows / seconds, plain_rate(task, world)
            found[task] = {"rows": rows, "seconds": seconds, "rows_per_second": rate}
            found[task] |= {"plain_rows_per_second": plain, "ratio": rate / plain}
    return found


def make_all(maker: RowMaker, settings: Settings, task: str) -> tuple[int, float]:
    """Rows and seconds of all sets of one task: world, Atlantis, warm-up, validation, test."""
    from worldrep.data.sets import load_rows

    sets = [
        RowSet(task, "world", "pretrain", settings.pretrain_rows),
        RowSet(task, "atlantis", "finetune", settings.ft_atlantis_rows),
        RowSet(task, "world", "finetune", settings.ft_world_rows),
        RowSet(task, "atlantis", "warmup", settings.ft_warmup_rows),
        *(RowSet(task, pool, "val", settings.val_rows) for pool in ("world", "atlantis")),
        *(RowSet(task, pool, "test", settings.test_rows) for pool in ("world", "atlantis")),
    ]
    begun = time.perf_counter()
    for rowset in sets:
        load_rows(maker, rowset)
    return sum(rowset.rows for rowset in sets), time.perf_counter() - begun


def plain_rate(task: str, world: World) -> float:
    """Rows per second of the plain generator, tokens included."""
    points = dict(zip(world.cities["city_id"], world.positions.tolist(), strict=True))
    rows = plain_rows(task, points)
    made, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < PLAIN_SECONDS:
        [ord(character) - 29 for character in next(rows)]
        made += 1
    return made / passed


def tables(cases: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The tasks at the largest size, and what becomes of their sum as the size grows."""
    largest = cases[-1]
    head = ("task", "rows", "seconds", "rows/s", "plain generator, rows/s", "ratio")
    lines = [
        (
            name,
            task["rows"],
            task["seconds"],
            task["rows_per_second"],
            task["plain_rows_per_second"],
            ratio(task["ratio"]),
        )
        for name, task in largest["tasks"].items()
    ]
    rate = largest["rows_per_second"]
    lines.append(("all", largest["rows"], largest["seconds"], rate, "", ""))
    growth = [
        (
            case["size"],
            case["rows"],
            case["seconds"],
            case["mean_rows_per_second"],
            ratio(case["mean_ratio"]),
            case["peak_gib"],
        )
        for case in cases
    ]
    sizes = (
        "rows a task trains on",
        "rows in all",
        "seconds",
        "rows/s, mean of tasks",
        "ratio, mean of tasks",
        "peak memory, GiB",
    )
    return [
        Table(head, lines, f"With {largest['size']:,} rows that each task trains on:"),
        Table(sizes, growth, "As the data grow:"),
    ]


if __name__ == "__main__":
    main()
