"""Rows parsed and answered once more, one by one, in plain Python: what the tests compare with."""

import math
import re
from itertools import pairwise

from worldrep.data.tasks import TASKS


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
        plain = str(ANSWERS[label](*(place[city] for city in ids)))
        if answer != (plain.upper() if plain in ("True", "False") else plain):
            wrong.append(text)
    return wrong


def turn(a, b, c):
    """Return twice the area of a triangle: positive for a left turn, 0 for points on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def in_hull(point, *others):
    """Whether a point lies in the convex hull of others, with its border."""
    corners = sorted(set(map(tuple, others)))
    hull = [*_hull_side(corners), *_hull_side(corners[::-1])]
    edges = pairwise([*hull, *hull[:1]])
    return len(hull) > 2 and all(turn(start, end, point) >= 0 for start, end in edges)


def _hull_side(points):
    """Return the lower side of the convex hull of sorted points, without its last corner."""
    side = []
    for point in points:
        while len(side) >= 2 and turn(side[-2], side[-1], point) <= 0:
            side.pop()
        side.append(point)
    return side[:-1]


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


PLAIN_ANSWERS = {
    "distance": lambda a, b: round(math.dist(a, b)),
    "trianglearea": lambda a, b, c: round(abs(turn(a, b, c)) / 2),
    "angle": angle,
    "compass": compass,
    "inside": in_hull,
    "perimeter": perimeter,
    "crossing": meet,
}
ANSWERS = {task.label: PLAIN_ANSWERS[name] for name, task in TASKS.items()}
