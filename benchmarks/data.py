"""Rows per second and peak memory of making all data sets of the paper scale.

Every task's 1,000,000 world rows with their validation and test rows, and its Atlantis sets, are
drawn, answered, tokenised and stored in an empty cache. Beside it, in the same process, a plain
generator that draws, answers and writes one row at a time, as one would without arrays.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator

import click

from worldrep.names import TASK_NAMES, ModelName
from worldrep.settings import Settings

PLAIN_SECONDS = 0.5  # of the plain generator per task


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale whose sets are made.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(scale: str, out: str) -> None:
    """Make all data sets of a scale in an empty cache, and time it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORLDREP_CACHE"] = folder
        numbers = measure(scale)
    print(table(numbers))
    if out:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)


def measure(scale: str) -> dict:
    """Seconds, rows and rows per second by task, and the peak memory of the process."""
    from worldrep.rows import RowMaker
    from worldrep.scales import resolve
    from worldrep.world import world_of

    settings = resolve(ModelName("pt1"), scale=scale)
    world = world_of(settings)
    maker = RowMaker(world, settings)
    tasks = {}
    for name in TASK_NAMES:
        rows, seconds = make_all(maker, settings, name)
        plain = plain_rate(name, world)
        rate = rows / seconds
        tasks[name] = {"rows": rows, "seconds": seconds, "rows_per_second": rate, "plain": plain}
    total = {key: sum(task[key] for task in tasks.values()) for key in ("rows", "seconds")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"scale": scale, "tasks": tasks, "total": total, "peak_gib": peak}


def make_all(maker, settings: Settings, task: str) -> tuple[int, float]:
    """Rows and seconds of all sets of one task: world, Atlantis, warm-up, validation, test."""
    from worldrep.data import load_rows
    from worldrep.rows import RowSet

    sets = [
        RowSet(task, "world", "pretrain", settings.pretrain_rows),
        RowSet(task, "atlantis", "finetune", settings.ft_atlantis_rows),
        RowSet(task, "world", "finetune", settings.ft_world_rows),
        RowSet(task, "atlantis", "warmup", settings.ft_warmup_rows),
        *(RowSet(task, pool, "val", settings.val_rows) for pool in ("world", "atlantis")),
        *(RowSet(task, pool, "test", settings.test_rows) for pool in ("world", "atlantis")),
    ]
    started = time.perf_counter()
    for rowset in sets:
        load_rows(maker, rowset)
    return sum(rowset.rows for rowset in sets), time.perf_counter() - started


def plain_rate(task: str, world) -> float:
    """Rows per second of the plain generator, tokens included."""
    points = dict(zip(world.cities["city_id"], world.positions.tolist(), strict=True))
    rows = plain_rows(task, points)
    made, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < PLAIN_SECONDS:
        [ord(character) - 29 for character in next(rows)]
        made += 1
    return made / passed


def plain_rows(task: str, points: dict[str, list[int]]) -> Iterator[str]:
    """Rows of one task, one at a time, balanced where the task asks for it."""
    ids, sizes = list(points), {"inside": (4, 5, 6), "perimeter": (2, 3, 4, 5), "crossing": (4,)}
    default = (3,) if task in ("trianglearea", "angle") else (2,)
    wanted = False
    while True:
        chosen = random.sample(ids, random.choice(sizes.get(task, default)))
        answer = PLAIN_ANSWERS[task]([points[city] for city in chosen])
        if isinstance(answer, bool):
            if answer != wanted:
                continue
            wanted = not wanted
        yield f"{task}({','.join('c_' + city for city in chosen)})={str(answer).upper()}"


def _area(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _angle(p):
    arms = [math.atan2(q[1] - p[1][1], q[0] - p[1][0]) for q in (p[0], p[2])]
    turn = abs(arms[0] - arms[1])
    return round(math.degrees(min(turn, 2 * math.pi - turn)))


def _sector(p):
    turn = math.degrees(math.atan2(p[1][1] - p[0][1], p[1][0] - p[0][0])) % 360
    return ("E", "NE", "N", "NW", "W", "SW", "S", "SE")[round(turn / 45) % 8]


def _in_triangle(t, a, b, c):
    sides = _area(a, b, t), _area(b, c, t), _area(c, a, t)
    return _area(a, b, c) != 0 and (min(sides) >= 0 or max(sides) <= 0)


def _inside(p):
    n = len(p)
    corners = [(i, j, k) for i in range(1, n) for j in range(i + 1, n) for k in range(j + 1, n)]
    return any(_in_triangle(p[0], p[i], p[j], p[k]) for i, j, k in corners)


def _crossing(p):
    a, b, c, d = p
    return _area(a, b, c) * _area(a, b, d) <= 0 and _area(c, d, a) * _area(c, d, b) <= 0


PLAIN_ANSWERS = {
    "distance": lambda p: round(math.dist(*p)),
    "trianglearea": lambda p: round(abs(_area(*p)) / 2),
    "angle": _angle,
    "compass": _sector,
    "inside": _inside,
    "perimeter": lambda p: round(sum(math.dist(a, b) for a, b in zip(p, p[1:] + p[:1]))),  # noqa: B905
    "crossing": _crossing,
}


def table(numbers: dict) -> str:
    """The numbers as a Markdown table."""
    lines = [
        "| task | rows | seconds | rows/s | plain generator, rows/s | ratio |",
        "|---" * 6 + "|",
    ]
    for name, task in numbers["tasks"].items():
        ratio = task["rows_per_second"] / task["plain"]
        lines.append(
            f"| {name} | {task['rows']:,} | {task['seconds']:.2f} | {task['rows_per_second']:,.0f} "
            f"| {task['plain']:,.0f} | {ratio:.0f} |"
        )
    total = numbers["total"]
    rate = total["rows"] / total["seconds"]
    lines.append(f"| all | {total['rows']:,} | {total['seconds']:.2f} | {rate:,.0f} | | |")
    return "\n".join([*lines, "", f"Peak memory of the process: {numbers['peak_gib']:.2f} GiB."])


if __name__ == "__main__":
    main()
