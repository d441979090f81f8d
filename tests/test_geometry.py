"""Geometry: hand-made cases, then many random ones against shapely, numpy and scipy.

Points on a small grid often coincide, touch or lie on one line; points of the whole map do not.
"""

from itertools import permutations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from worldrep.data import geometry

N = 20_000
RANGES = {"small grid": ((0, 0), (5, 5)), "whole map": ((-1800, -900), (1801, 901))}


def one(function, *points):
    """The answer of a single row."""
    return function(np.array([points], dtype=np.int64))[0]


def grid_points(k):
    """Hypothesis: k points on a small grid."""
    coordinate = st.integers(-3, 3)
    return st.lists(st.tuples(coordinate, coordinate), min_size=k, max_size=k)


@pytest.fixture(params=RANGES)
def draw(request):
    """A function k -> random points (N, k, 2)."""
    low, high = RANGES[request.param]
    return lambda k: np.random.default_rng(k).integers(low, high, size=(N, k, 2))


# Distance and perimeter


@pytest.mark.parametrize(
    ("to", "expected"), [((3, 4), 5), ((1, 1), 1), ((1, 2), 2), ((2, 3), 4), ((0, 0), 0)]
)
def test_distance_is_rounded_to_the_nearest(to, expected):
    assert one(geometry.distance, (0, 0), to) == expected


def test_distance_across_the_whole_map_is_the_diagonal():
    assert one(geometry.distance, (-1800, -900), (1800, 900)) == 4025


def test_distance_agrees_with_scipy(draw):
    points = draw(2)[:2000]
    assert geometry.distance(points).tolist() == [round(pdist(pair)[0]) for pair in points]


def test_perimeter_of_two_cities_is_their_single_distance():
    assert one(geometry.perimeter, (0, 0), (3, 4)) == 5


def test_perimeter_closes_the_polygon():
    assert one(geometry.perimeter, (0, 0), (3, 0), (3, 4)) == 12


def test_perimeter_is_rounded_after_the_sum():
    # 2 * sqrt(2) + 2 = 4.83; rounded sides would sum to 4
    assert one(geometry.perimeter, (0, 0), (1, 1), (2, 0)) == 5


def test_perimeter_depends_on_the_order_of_cities():
    assert one(geometry.perimeter, (0, 0), (9, 0), (9, 9), (0, 9)) == 36
    assert one(geometry.perimeter, (0, 0), (9, 9), (9, 0), (0, 9)) == 43


@pytest.mark.parametrize("k", [3, 4, 5])
def test_perimeter_agrees_with_shapely(draw, k):
    points = draw(k)
    rings = shapely.linestrings(np.concatenate([points, points[:, :1]], axis=1))
    assert (geometry.perimeter(points) == np.round(shapely.length(rings))).all()


# Triangle area


@pytest.mark.parametrize(
    ("height", "expected"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4), (9, 4), (11, 6)]
)
def test_area_ties_round_to_even(height, expected):
    for corners in permutations([(0, 0), (1, 0), (0, height)]):
        assert one(geometry.triangle_area, *corners) == expected


def test_area_of_the_largest_triangle():
    assert one(geometry.triangle_area, (-1800, -900), (1800, -900), (0, 900)) == 3_240_000


def test_area_of_collinear_cities_is_zero():
    assert one(geometry.triangle_area, (-4, -2), (2, 1), (6, 3)) == 0


def test_area_agrees_with_shapely_and_ties_are_met(draw):
    points = draw(3)
    areas = shapely.area(shapely.polygons(points))
    assert (areas % 1 == 0.5).sum() > N / 5
    assert (geometry.triangle_area(points) == np.round(areas)).all()


# Angle


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ((5, 0), (9, 0), 0),
        ((5, 0), (7, 7), 45),
        ((5, 0), (0, 3), 90),
        ((5, 0), (-1, 1), 135),
        ((5, 0), (-2, 0), 180),
        ((5, 0), (0, -3), 90),
    ],
)
def test_angle_is_taken_at_the_second_city(first, last, expected):
    assert one(geometry.angle, first, (0, 0), last) == expected


@pytest.mark.parametrize(
    "points",
    [((2, 2), (2, 2), (5, 9)), ((5, 9), (2, 2), (2, 2)), ((2, 2), (2, 2), (2, 2))],
)
def test_angle_is_zero_where_a_city_coincides_with_the_second(points):
    assert one(geometry.angle, *points) == 0


def test_angle_agrees_with_complex_numbers(draw):
    points = draw(3)
    z = points[..., 0] + 1j * points[..., 1]
    u, v = z[:, 0] - z[:, 1], z[:, 2] - z[:, 1]
    expected = np.round(np.abs(np.degrees(np.angle(u * v.conj()))))
    assert (geometry.angle(points) == np.where(u * v == 0, 0, expected)).all()


@given(grid_points(3))
def test_angle_is_the_same_from_either_side(points):
    assert one(geometry.angle, *points) == one(geometry.angle, *points[::-1])


# Compass


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ((9, 0), 0),
        ((9, 9), 1),
        ((0, 9), 2),
        ((-9, 9), 3),
        ((-9, 0), 4),
        ((-9, -9), 5),
        ((0, -9), 6),
        ((9, -9), 7),
    ],
)
def test_sectors_count_from_east_counter_clockwise(to, expected):
    assert one(geometry.sector, (0, 0), to) == expected


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ((1000, 414), 0),  # tan(22.5 degrees) = 0.41421...
        ((1000, 415), 1),
        ((415, 1000), 1),
        ((414, 1000), 2),
        ((1000, -414), 0),
        ((1000, -415), 7),
        ((-1000, 414), 4),
        ((-1000, 415), 3),
        ((-414, -1000), 6),
        ((-415, -1000), 5),
    ],
)
def test_sectors_are_centred_on_their_direction(to, expected):
    assert one(geometry.sector, (0, 0), to) == expected


def test_coincident_cities_lie_in_the_north():
    assert one(geometry.sector, (-7, 3), (-7, 3)) == 2


def test_sector_agrees_with_the_rounded_angle(draw):
    points = draw(2)
    dx, dy = (points[:, 1] - points[:, 0]).T
    expected = np.round(np.degrees(np.arctan2(dy, dx)) / 45) % 8
    assert (geometry.sector(points) == np.where((dx == 0) & (dy == 0), 2, expected)).all()


# Inside

SQUARE = [(0, 0), (4, 0), (4, 4), (0, 4)]


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((2, 2), True),
        ((1, 3), True),
        ((4, 4), True),  # a vertex
        ((0, 3), True),  # on an edge
        ((5, 4), False),  # on an edge's line
        ((5, 5), False),
        ((-1, 2), False),
    ],
)
def test_the_hull_holds_its_boundary_in_every_order_of_its_cities(point, expected):
    for corners in permutations(SQUARE):
        assert one(geometry.inside_hull, point, *corners) == expected


@pytest.mark.parametrize("point", [(0, 0), (1, 1), (2, 2), (3, 3), (1, 0)])
def test_a_hull_without_area_holds_nothing(point):
    on_a_line = [(0, 0), (2, 2), (1, 1), (3, 3), (3, 3)]
    for k in (3, 4, 5):
        assert not one(geometry.inside_hull, point, *on_a_line[:k])
        assert not one(geometry.inside_hull, point, *[(0, 0)] * k)


def test_coincident_corners_leave_the_hull_as_it_is():
    corners = [(0, 0), (0, 0), (6, 0), (0, 6)]
    assert one(geometry.inside_hull, (1, 1), *corners)
    assert one(geometry.inside_hull, (0, 0), *corners)
    assert not one(geometry.inside_hull, (4, 4), *corners)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_inside_agrees_with_shapely(draw, k):
    points = draw(1 + k)
    hulls = shapely.convex_hull(shapely.multipoints(points[:, 1:]))
    covered = shapely.covers(hulls, shapely.points(points[:, 0]))
    expected = covered & (shapely.area(hulls) > 0)
    assert 0 < expected.sum() < N
    assert (geometry.inside_hull(points) == expected).all()


@given(grid_points(6), st.randoms())
def test_the_order_of_the_corners_does_not_matter(points, random):
    point, *corners = points
    expected = one(geometry.inside_hull, point, *corners)
    random.shuffle(corners)
    assert one(geometry.inside_hull, point, *corners) == expected


# Crossing

CROSSINGS = {
    "crossing": ([(0, 0), (4, 4), (0, 4), (4, 0)], True),
    "apart": ([(0, 0), (1, 1), (3, 0), (4, 5)], False),
    "crossing beyond an end": ([(0, 0), (4, 4), (5, 9), (9, 5)], False),
    "parallel": ([(0, 0), (4, 0), (0, 1), (4, 1)], False),
    "touching at their ends": ([(0, 0), (4, 4), (4, 4), (9, 0)], True),
    "an end on the other": ([(0, 0), (4, 0), (2, 0), (3, 7)], True),
    "an end on the other's line": ([(0, 0), (4, 0), (5, 0), (6, 7)], False),
    "collinear and overlapping": ([(0, 0), (4, 2), (2, 1), (8, 4)], True),
    "collinear, one in the other": ([(0, 0), (8, 4), (2, 1), (4, 2)], True),
    "collinear and touching": ([(0, 0), (2, 1), (2, 1), (4, 2)], True),
    "collinear and disjoint": ([(0, 0), (2, 1), (4, 2), (6, 3)], False),
    "upright, collinear and disjoint": ([(1, 0), (1, 2), (1, 3), (1, 5)], False),
    "the same": ([(0, 0), (4, 4), (0, 0), (4, 4)], True),
    "a point on the other": ([(2, 2), (2, 2), (0, 0), (4, 4)], True),
    "a point at an end": ([(4, 4), (4, 4), (0, 0), (4, 4)], True),
    "a point off the other": ([(2, 3), (2, 3), (0, 0), (4, 4)], False),
    "a point on the other's line": ([(5, 5), (5, 5), (0, 0), (4, 4)], False),
    "the same point twice": ([(2, 3), (2, 3), (2, 3), (2, 3)], True),
    "two points": ([(2, 3), (2, 3), (3, 3), (3, 3)], False),
}


@pytest.mark.parametrize(("points", "expected"), CROSSINGS.values(), ids=CROSSINGS)
def test_segments_in_special_positions(points, expected):
    a, b, c, d = points
    for first in ((a, b), (b, a)):
        for second in ((c, d), (d, c)):
            assert one(geometry.segments_intersect, *first, *second) == expected
            assert one(geometry.segments_intersect, *second, *first) == expected


def test_crossing_agrees_with_shapely(draw):
    points = draw(4)

    def segments(ends):
        is_point = (ends[:, 0] == ends[:, 1]).all(axis=1)
        return np.where(is_point, shapely.points(ends[:, 0]), shapely.linestrings(ends))

    expected = shapely.intersects(segments(points[:, :2]), segments(points[:, 2:]))
    assert 0 < expected.sum() < N
    assert (geometry.segments_intersect(points) == expected).all()


# All of them

INVARIANT = [
    (geometry.distance, 2),
    (geometry.perimeter, 5),
    (geometry.triangle_area, 3),
    (geometry.angle, 3),
    (geometry.inside_hull, 6),
    (geometry.segments_intersect, 4),
]


@pytest.mark.parametrize(("function", "k"), INVARIANT)
def test_moving_and_turning_the_map_changes_nothing(draw, function, k):
    points = draw(k)
    moved = points + np.array([-17, 230])
    turned = np.stack([-moved[..., 1], moved[..., 0]], axis=-1)
    assert (function(turned) == function(points)).all()


def test_a_quarter_turn_moves_the_compass_by_two_sectors(draw):
    points = draw(2)
    points = points[(points[:, 0] != points[:, 1]).any(axis=1)]
    turned = np.stack([-points[..., 1], points[..., 0]], axis=-1)
    assert (geometry.sector(turned) == (geometry.sector(points) + 2) % 8).all()
