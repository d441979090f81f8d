"""Rows parsed and answered once more, one by one, in plain Python: what the tests compare with."""

import math
import re
from itertools import combinations, pairwise

from worldrep.data.tasks import TASKS


def turn(a, b, c):
    """Return twice the area of a triangle: positive for a left turn, 0 for points on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def in_hull(point, *others):
    """Whether a point lies in the convex hull of others: within or on a triangle of three."""
    for a, b, c in combinations(others, 3):
        sides = turn(a, b, point), turn(b, c, point), turn(c, a, point)
        if turn(a, b, c) and (min(sides) >= 0 or max(sides) <= 0):
            return True
    return False


def meet(a, b, c, d):
    """Whether segments meet: an end of one lies on the other, or each separates the other's."""
    for end, start, stop in ((a, c, d), (b, c, d), (c, a, b), (d, a, b)):
        box = zip(end, start, stop, strict=True)
        if turn(start, stop, end) == 0 and all(min(u, v) <= p <= max(u, v) for p, u, v in box):
            return True
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def angle(a, b, c):
    """Return the angle at b in degrees, 0 if another point lies there."""
    if b in (a, c):
        return 0
    bearings = [math.atan2(p[1] - b[1], p[0] - b[0]) for p in (a, c)]
    between = abs(math.degrees(bearings[0] - bearings[1]))
    return round(min(between, 360 - between))


def compass(a, b):
    """Return the direction from a to b, N if they are at the same place."""
    if a == b:
        return "N"
    sector = round(math.degrees(math.atan2(b[1] - a[1], b[0] - a[0])) / 45)
    return ("E", "NE", "N", "NW", "W", "SW", "S", "SE")[sector % 8]


def perimeter(*points):
    """Return the length of the closed path, of two points the distance."""
    length = sum(math.dist(p, q) for p, q in pairwise([*points, points[0]]))
    return round(length if len(points) > 2 else length / 2)


ANSWERS = {
    "distance": lambda a, b: round(math.dist(a, b)),
    "trianglearea": lambda a, b, c: round(abs(turn(a, b, c)) / 2),
    "angle": angle,
    "compass": compass,
    "inside": in_hull,
    "perimeter": perimeter,
    "crossing": meet,
}

BY_LABEL = {task.label: ANSWERS[name] for name, task in TASKS.items()}


def parse(text):
    """Label, city ids and answer of a row."""
    label, cities, answer = re.fullmatch(r"([a-z]+)\(([^()]+)\)=(\w+)", text).groups()
    return label, [city.removeprefix("c_") for city in re.split("[,;]", cities)], answer


def wrong_rows(rows, world):
    """The rows whose answer is not the plain one."""
    place = dict(zip(world.cities["city_id"], map(tuple, world.positions.tolist()), strict=True))
    wrong = []
    for text in rows:
        label, ids, answer = parse(text)
        plain = str(BY_LABEL[label](*(place[city] for city in ids)))
        if answer != (plain.upper() if plain in ("True", "False") else plain):
            wrong.append(text)
    return wrong
