"""Plane geometry on integer map coordinates, vectorised over rows.

Every function takes `points`, an int64 array of shape (n, k, 2): k points (x, y) in 0.1 degree for
each of n rows. It returns an int64 or bool array of shape (n,). Predicates use integer arithmetic
only, so that touching, collinear and coincident points are decided exactly.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def _cross(u: Points, v: Points) -> Ints:
    """Return the z component of u x v for arrays of vectors (..., 2)."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def distance(points: Points) -> Ints:
    """Return the Euclidean distance between two points, rounded half to even."""
    return np.rint(np.linalg.norm(points[:, 1] - points[:, 0], axis=-1)).astype(np.int64)


def perimeter(points: Points) -> Ints:
    """Return the length of the closed polygon through k points in order; for k=2 the distance."""
    if points.shape[1] == 2:
        return distance(points)
    sides = np.linalg.norm(points - np.roll(points, -1, axis=1), axis=-1)
    return np.rint(sides.sum(axis=1)).astype(np.int64)


def triangle_area(points: Points) -> Ints:
    """Return the shoelace area of three points, exact and rounded half to even."""
    doubled = np.abs(_cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]))
    half = doubled >> 1
    return half + (doubled & half & 1)


def angle(points: Points) -> Ints:
    """Return the angle at the second of three points in degrees, 0..180; 0 if an arm has no length.

    Integer vectors never enclose an angle of exactly n + 1/2 degrees, so that rounding has no ties.
    """
    u = points[:, 0] - points[:, 1]
    v = points[:, 2] - points[:, 1]
    dot = (u * v).sum(axis=-1)
    return np.rint(np.degrees(np.arctan2(np.abs(_cross(u, v)), dot))).astype(np.int64)


def sector(points: Points) -> Ints:
    """Return the compass sector from the first point to the second: 0=E, 1=NE, 2=N, ..., 7=SE.

    The sectors are 45 degrees wide and centred on their direction; coincident points give N. A
    vector lies in the E-W sectors if |dy|/|dx| < tan(22.5 deg) = sqrt(2) - 1, that is when
    (|dx| + |dy|)^2 < 2 dx^2, and likewise for N-S: both tests are exact in integers.
    """
    step = points[:, 1] - points[:, 0]
    dx, dy = step[:, 0], step[:, 1]
    reach = (np.abs(dx) + np.abs(dy)) ** 2
    diagonal = np.where(dx > 0, np.where(dy > 0, 1, 7), np.where(dy > 0, 3, 5))
    horizontal, vertical = np.where(dx > 0, 0, 4), np.where(dy > 0, 2, 6)
    tests = [reach == 0, reach < 2 * dx * dx, reach < 2 * dy * dy]
    return np.select(tests, [2, horizontal, vertical], diagonal)


def inside_hull(points: Points) -> Bools:
    """Return whether the first point lies in the convex hull of the others, boundary included.

    By Caratheodory's theorem a point lies in a hull of non-zero area exactly if it lies in one of
    the non-degenerate triangles of the hull's points. A degenerate hull contains no point.
    """
    around = points[:, 1:] - points[:, :1]
    corners = range(around.shape[1])
    turn = {(i, j): _cross(around[:, i], around[:, j]) for i, j in combinations(corners, 2)}
    found = np.zeros(len(points), dtype=bool)
    for i, j, k in combinations(corners, 3):
        a, b, c = turn[i, j], turn[j, k], -turn[i, k]
        same_side = ((a >= 0) & (b >= 0) & (c >= 0)) | ((a <= 0) & (b <= 0) & (c <= 0))
        found |= same_side & (a + b + c != 0)
    return found


def segments_intersect(points: Points) -> Bools:
    """Return whether the closed segments p0-p1 and p2-p3 share a point, touching included."""
    a, b, c, d = (points[:, i] for i in range(4))
    side_c, side_d = np.sign(_cross(b - a, c - a)), np.sign(_cross(b - a, d - a))
    side_a, side_b = np.sign(_cross(d - c, a - c)), np.sign(_cross(d - c, b - c))
    straddle = (side_c * side_d <= 0) & (side_a * side_b <= 0)
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return straddle & (low <= high).all(axis=1)  # the bounding boxes meet
