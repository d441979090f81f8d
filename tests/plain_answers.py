"""Rows parsed and answered once more, one by one, in plain Python: what the tests compare with."""

import math
import re
from fractions import Fraction


def parse(text):
    """Label, city ids and answer of a row."""
    label, cities, answer = re.fullmatch(r"([a-z]+)\(([^()]+)\)=(\w+)", text).groups()
    return label, [city.removeprefix("c_") for city in re.split("[,;]", cities)], answer


def turn(a, b, c):
    """Positive where a, b, c turn left, 0 where they lie on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def hull_side(points):
    """The lower side of the convex hull of sorted points, its last corner left out."""
    side = []
    for point in points:
        while len(side) >= 2 and turn(side[-2], side[-1], point) <= 0:
            side.pop()
        side.append(point)
    return side[:-1]


def in_hull(point, others):
    others = sorted(set(others))
    hull = hull_side(others) + hull_side(others[::-1])
    if len(hull) < 3:
        return False
    edges = zip(hull, hull[1:] + hull[:1], strict=True)
    return all(turn(start, end, point) >= 0 for start, end in edges)


def in_box(point, a, b):
    return all(min(u, v) <= p <= max(u, v) for p, u, v in zip(point, a, b, strict=True))


def meet(a, b, c, d):
    """Two segments meet where an end of one lies on the other, or where each parts the other."""
    for end, start, stop in ((a, c, d), (b, c, d), (c, a, b), (d, a, b)):
        if turn(start, stop, end) == 0 and in_box(end, start, stop):
            return True
    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def angle_at(b, a, c):
    if b in (a, c):
        return 0
    bearings = [math.atan2(p[1] - b[1], p[0] - b[0]) for p in (a, c)]
    between = abs(math.degrees(bearings[0] - bearings[1]))
    return round(min(between, 360 - between))


def direction(a, b):
    if a == b:
        return "N"
    sector = round(math.degrees(math.atan2(b[1] - a[1], b[0] - a[0])) / 45)
    return ["E", "NE", "N", "NW", "W", "SW", "S", "SE"][sector % 8]


def length(*points):
    if len(points) == 2:
        return math.dist(*points)
    return sum(math.dist(p, q) for p, q in zip(points, points[1:] + points[:1], strict=True))


ANSWERS = {
    "dist": lambda a, b: round(math.dist(a, b)),
    "triarea": lambda a, b, c: round(Fraction(abs(turn(a, b, c)), 2)),  # half to even
    "angle": lambda a, b, c: angle_at(b, a, c),
    "compass": direction,
    "inside": lambda point, *others: str(in_hull(point, others)).upper(),
    "perimeter": lambda *points: round(length(*points)),
    "cross": lambda *points: str(meet(*points)).upper(),
}


def wrong_rows(rows, world):
    """The rows whose answer is not the plain one."""
    place = dict(zip(world.cities["city_id"], map(tuple, world.positions.tolist()), strict=True))
    wrong = []
    for text in rows:
        label, ids, answer = parse(text)
        if answer != str(ANSWERS[label](*(place[city] for city in ids))):
            wrong.append(text)
    return wrong
