"""Rows made one at a time, in plain Python, as one would without arrays."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Point = Sequence[int]


def plain_rows(task: str, points: Mapping[str, Point]) -> Iterator[str]:
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


def _area(a: Point, b: Point, c: Point) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _angle(p: Sequence[Point]) -> int:
    arms = [math.atan2(q[1] - p[1][1], q[0] - p[1][0]) for q in (p[0], p[2])]
    turn = abs(arms[0] - arms[1])
    return round(math.degrees(min(turn, 2 * math.pi - turn)))


def _sector(p: Sequence[Point]) -> str:
    turn = math.degrees(math.atan2(p[1][1] - p[0][1], p[1][0] - p[0][0])) % 360
    return ("E", "NE", "N", "NW", "W", "SW", "S", "SE")[round(turn / 45) % 8]


def _in_triangle(t: Point, a: Point, b: Point, c: Point) -> bool:
    sides = _area(a, b, t), _area(b, c, t), _area(c, a, t)
    return _area(a, b, c) != 0 and (min(sides) >= 0 or max(sides) <= 0)


def _inside(p: Sequence[Point]) -> bool:
    n = len(p)
    corners = [(i, j, k) for i in range(1, n) for j in range(i + 1, n) for k in range(j + 1, n)]
    return any(_in_triangle(p[0], p[i], p[j], p[k]) for i, j, k in corners)


def _crossing(p: Sequence[Point]) -> bool:
    a, b, c, d = p
    return _area(a, b, c) * _area(a, b, d) <= 0 and _area(c, d, a) * _area(c, d, b) <= 0


def _perimeter(p: Sequence[Point]) -> int:
    return round(sum(math.dist(p[i - 1], p[i]) for i in range(len(p))))


PLAIN_ANSWERS: dict[str, Callable[[Sequence[Point]], Any]] = {
    "distance": lambda p: round(math.dist(*p)),
    "trianglearea": lambda p: round(abs(_area(*p)) / 2),
    "angle": _angle,
    "compass": _sector,
    "inside": _inside,
    "perimeter": _perimeter,
    "crossing": _crossing,
}
