"""Making all data sets of a scale in an empty cache, beside a generator of one row at a time."""

import math
import os
import random
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice, pairwise
from statistics import mean
from typing import Any
from unittest.mock import patch

from benchmarks.report import Rows, Tables, benchmark, in_turns
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import load_rows
from worldrep.data.tasks import TASKS
from worldrep.data.world import World, world_of
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

PLAIN_ROWS = 10_000  # of the plain generator in each round
POOLS = ("world", "atlantis")

Point = Sequence[int]


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
        ratio = mean(found["ratio"] for found in tasks)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row |= {"rows/s": rows / seconds, "ratio, mean of tasks": ratio, "peak memory, GiB": peak}
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
    """Make all sets of a task in empty caches, in turn with the plain generator."""
    makers = iter([RowMaker(world, settings) for _ in range(rounds)])  # a maker keeps what it drew
    plain = plain_rows(task, world)
    next(plain)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        (seconds, rows), (plain_seconds, _) = in_turns(
            rounds,
            lambda: make_all(next(makers), settings, task, tempfile.mkdtemp(dir=folder)),
            lambda: list(islice(plain, PLAIN_ROWS)),
        )
    rate, plain_rate = rows / seconds, PLAIN_ROWS / plain_seconds
    found = {"task": task, "rows": rows, "seconds": seconds, "rows/s": rate}
    return found | {"plain generator, rows/s": plain_rate, "ratio": rate / plain_rate}


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


def plain_rows(task: str, world: World) -> Iterator[list[int]]:
    """Yield token rows of one task, with balanced answers where they are true or false."""
    points = dict(zip(world.cities["city_id"], world.positions.tolist(), strict=True))
    ids, wanted = list(points), False
    while True:
        chosen = random.sample(ids, random.choice(TASKS[task].sizes))
        answer = PLAIN_ANSWERS[task](*(points[city] for city in chosen))
        if isinstance(answer, bool):
            if answer != wanted:
                continue
            wanted = not wanted
        row = f"{task}({','.join('c_' + city for city in chosen)})={str(answer).upper()}"
        yield [ord(character) - 29 for character in row]


def turn(a: Point, b: Point, c: Point) -> int:
    """Return twice the area of a triangle: positive for a left turn, 0 for points on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def in_hull(point: Point, *others: Point) -> bool:
    """Whether a point lies in the convex hull of others: within or on a triangle of three."""
    for a, b, c in combinations(others, 3):
        sides = turn(a, b, point), turn(b, c, point), turn(c, a, point)
        if turn(a, b, c) and (min(sides) >= 0 or max(sides) <= 0):
            return True
    return False


def meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether segments meet: an end of one lies on the other, or each separates the other's."""
    for end, start, stop in ((a, c, d), (b, c, d), (c, a, b), (d, a, b)):
        box = zip(end, start, stop, strict=True)
        if turn(start, stop, end) == 0 and all(min(u, v) <= p <= max(u, v) for p, u, v in box):
            return True
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def angle(a: Point, b: Point, c: Point) -> int:
    """Return the angle at b in degrees, 0 if another point lies there."""
    if b in (a, c):
        return 0
    bearings = [math.atan2(p[1] - b[1], p[0] - b[0]) for p in (a, c)]
    between = abs(math.degrees(bearings[0] - bearings[1]))
    return round(min(between, 360 - between))


def compass(a: Point, b: Point) -> str:
    """Return the direction from a to b, N if they are at the same place."""
    if a == b:
        return "N"
    sector = round(math.degrees(math.atan2(b[1] - a[1], b[0] - a[0])) / 45)
    return ("E", "NE", "N", "NW", "W", "SW", "S", "SE")[sector % 8]


def perimeter(*points: Point) -> int:
    """Return the length of the closed path, of two points the distance."""
    length = sum(math.dist(p, q) for p, q in pairwise([*points, points[0]]))
    return round(length if len(points) > 2 else length / 2)


PLAIN_ANSWERS: dict[str, Callable[..., Any]] = {
    "distance": lambda a, b: round(math.dist(a, b)),
    "trianglearea": lambda a, b, c: round(abs(turn(a, b, c)) / 2),
    "angle": angle,
    "compass": compass,
    "inside": in_hull,
    "perimeter": perimeter,
    "crossing": meet,
}

if __name__ == "__main__":
    main()
