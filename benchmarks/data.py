"""Rows per second and peak memory of making the data sets of a scale, at growing sizes.

All sets of a task (training, Atlantis, warm-up, validation, test) are drawn, answered, tokenised
and stored in an empty cache, in turn with a plain generator that makes one row at a time.

    python -m benchmarks.data --sizes 1000000    # rows that a task trains on
"""

from __future__ import annotations

import math
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any
from unittest.mock import patch

from benchmarks.report import Results, benchmark, table
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import load_rows
from worldrep.data.tasks import TASKS
from worldrep.data.world import World, world_of
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

PLAIN_SECONDS = 0.2  # of the plain generator in each round

Point = Sequence[int]


@benchmark
def main(
    scale: str = "paper", sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000), rounds: int = 3
) -> Results:
    """Make all data sets in empty caches, at several sizes, and time it."""
    cases = [measure(scale, size, rounds) for size in sorted(sizes)]
    largest = cases[-1]
    columns = {
        "task": "task",
        "rows": "rows",
        "seconds": "seconds",
        "rows/s": "rows_per_second",
        "plain generator, rows/s": "plain_rows_per_second",
        "ratio": "ratio",
    }
    growth = {
        "rows a task trains on": "size",
        "rows in all": "rows",
        "seconds": "seconds",
        "rows/s, mean of tasks": "mean_rows_per_second",
        "ratio, mean of tasks": "mean_ratio",
        "peak memory, GiB": "peak_gib",
    }
    title = f"With {largest['size']:,} rows that each task trains on:"
    tables = [table(largest["tasks"], columns, title), table(cases, growth, "As the data grow:")]
    return {"cases": cases}, tables


def measure(scale: str, size: int, rounds: int) -> dict[str, Any]:
    """Return medians of each task, their sums, and the peak memory so far."""
    settings = of_size(scale, size)
    world = world_of(settings)
    turns = [one_round(settings, world) for _ in range(rounds)]
    tasks = [
        {"task": task, "rows": turns[0][i]["rows"]}
        | {key: median(turn[i][key] for turn in turns) for key in turns[0][i] if key != "rows"}
        for i, task in enumerate(TASK_NAMES)
    ]
    return {
        "size": size,
        "rows": sum(task["rows"] for task in tasks),
        "seconds": sum(task["seconds"] for task in tasks),
        "mean_rows_per_second": mean(task["rows_per_second"] for task in tasks),
        "mean_ratio": mean(task["ratio"] for task in tasks),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "tasks": tasks,
    }


def of_size(scale: str, size: int) -> Settings:
    """Return the settings of a scale with all row sets resized like the training set."""
    settings = resolve(ModelName("pt1"), scale=scale)
    factor = size / settings.pretrain_rows
    rows = {
        name: max(1, round(n * factor)) for name, n in settings.group("rows", "ft_rows").items()
    }
    rows["multi_rows"] = min(rows["multi_rows"], rows["test_rows"])
    return resolve(ModelName("pt1"), scale=scale, overrides=rows)


def one_round(settings: Settings, world: World) -> list[dict[str, Any]]:
    """Make each task in an empty cache, and then with the plain generator."""
    maker, found = RowMaker(world, settings), []
    with (
        tempfile.TemporaryDirectory(prefix="worldrep-") as folder,
        patch.dict(os.environ, WORLDREP_CACHE=folder),
    ):
        for task in TASK_NAMES:
            rows, seconds = make_all(maker, settings, task)
            rate, plain = rows / seconds, plain_rate(task, world)
            case = {"rows": rows, "seconds": seconds, "rows_per_second": rate}
            found.append(case | {"plain_rows_per_second": plain, "ratio": rate / plain})
    return found


def make_all(maker: RowMaker, settings: Settings, task: str) -> tuple[int, float]:
    """Make all sets of one task; return their rows and the seconds."""
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
    """Return rows per second of the plain generator, with their tokens."""
    points = dict(zip(world.cities["city_id"], world.positions.tolist(), strict=True))
    rows = plain_rows(task, points)
    made, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < PLAIN_SECONDS:
        [ord(character) - 29 for character in next(rows)]
        made += 1
    return made / passed


def plain_rows(task: str, points: Mapping[str, Point]) -> Iterator[str]:
    """Yield rows of one task, with balanced answers where they are true or false."""
    ids, wanted = list(points), False
    while True:
        chosen = random.sample(ids, random.choice(TASKS[task].sizes))
        answer = PLAIN_ANSWERS[task](*(points[city] for city in chosen))
        if isinstance(answer, bool):
            if answer != wanted:
                continue
            wanted = not wanted
        yield f"{task}({','.join('c_' + city for city in chosen)})={str(answer).upper()}"


def turn(a: Point, b: Point, c: Point) -> int:
    """Return twice the area of a triangle: positive for a left turn, 0 for points on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def in_hull(point: Point, *others: Point) -> bool:
    """Whether a point lies in the convex hull of others, with its border."""
    corners = sorted(set(map(tuple, others)))
    hull = _hull_side(corners) + _hull_side(corners[::-1])
    edges = zip(hull, hull[1:] + hull[:1], strict=True)
    return len(hull) > 2 and all(turn(start, end, point) >= 0 for start, end in edges)


def _hull_side(points: Sequence[Point]) -> list[Point]:
    """Return the lower side of the convex hull of sorted points, without its last corner."""
    side: list[Point] = []
    for point in points:
        while len(side) >= 2 and turn(side[-2], side[-1], point) <= 0:
            side.pop()
        side.append(point)
    return side[:-1]


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
    length = sum(math.dist(p, q) for p, q in zip(points, points[1:] + points[:1], strict=True))
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
