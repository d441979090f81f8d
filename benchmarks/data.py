"""Making all data sets of a scale in an empty cache."""

import os
import resource
import tempfile
from typing import Any
from unittest.mock import patch

from benchmarks.report import Rows, Tables, benchmark, in_turns
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import load_rows
from worldrep.data.world import World, world_of
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

POOLS = ("world", "atlantis")


@benchmark
def main(
    scale: str = "paper", sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000), rounds: int = 3
) -> Tables:
    """Make all data sets in empty caches, at several sizes, and time it."""
    growth: Rows = []
    for size in sorted(sizes):
        settings = of_size(scale, size)
        world = world_of(settings)
        tasks = [measure(settings, world, task, rounds) for task in TASK_NAMES]
        rows, seconds = (sum(found[key] for found in tasks) for key in ("rows", "seconds"))
        row = {"rows a task trains on": size, "rows in all": rows, "seconds": seconds}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row |= {"rows/s": rows / seconds, "peak memory, GiB": peak}
        growth.append(row)
    title = f"With {max(sizes):,} rows that each task trains on:"
    return {title: tasks, "As the data grow:": growth}


def of_size(scale: str, size: int) -> Settings:
    """Return the settings of a scale with all row sets resized like the training set."""
    settings = resolve(ModelName("pt1"), scale=scale)
    sizes = settings.group("rows", "ft_rows")
    rows = {k: max(1, round(n * size / settings.pretrain_rows)) for k, n in sizes.items()}
    rows["multi_rows"] = min(rows["multi_rows"], rows["test_rows"])
    return resolve(ModelName("pt1"), scale=scale, overrides=rows)


def measure(settings: Settings, world: World, task: str, rounds: int) -> dict[str, Any]:
    """Make all sets of a task in empty caches."""
    makers = iter([RowMaker(world, settings) for _ in range(rounds)])  # a maker keeps what it drew
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):

        def make() -> int:
            return make_all(next(makers), settings, task, tempfile.mkdtemp(dir=folder))

        ((seconds, rows),) = in_turns(rounds, make)
    return {"task": task, "rows": rows, "seconds": seconds, "rows/s": rows / seconds}


def make_all(maker: RowMaker, settings: Settings, task: str, cache: str) -> int:
    """Make all sets of one task in an empty cache; return the number of their rows."""
    os.environ["WORLDREP_CACHE"] = cache
    sets = [
        RowSet(task, "world", "pretrain", settings.pretrain_rows),
        RowSet(task, "atlantis", "finetune", settings.ft_atlantis_rows),
        RowSet(task, "world", "finetune", settings.ft_world_rows),
        RowSet(task, "atlantis", "warmup", settings.ft_warmup_rows),
        *(RowSet(task, pool, "val", settings.val_rows) for pool in POOLS),
        *(RowSet(task, pool, "test", settings.test_rows) for pool in POOLS),
    ]
    return sum(len(load_rows(maker, rowset)) for rowset in sets)


if __name__ == "__main__":
    main()
