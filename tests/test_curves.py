"""Statistics of curves and of forgetting: every branch by hand, and properties of all numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.forgetting.statistics import normalized_change
from analysis.statistics.curves import CHANCE, breakout_step, halfway_step

NAN = math.nan


def test_chance_is_that_of_guessing():
    assert CHANCE == {"compass": 1 / 8, "inside": 1 / 2, "crossing": 1 / 2}


@pytest.mark.parametrize(
    ("steps", "errors", "expected"),
    [
        ([0, 10, 20, 30], [100, 80, 50, 10], 20),  # half exactly
        ([0, 10, 20, 30], [100, 80, 51, 10], 30),  # measured, not interpolated
        ([0, 10, 20, 30], [100, 40, 90, 10], 10),  # the first, even if it does not stay
        ([30, 10, 0, 20], [10, 80, 100, 50], 20),  # unsorted
        ([0, 10, 20, 30], [NAN, 80, 45, 40], 30),  # NaN is left out: 80 comes first
        ([0, 10, 20], [100, NAN, 30], 20),
        ([0, 10, 20], [100, 90, 60], NAN),  # never
        ([0, 10], [0, 0], NAN),  # nothing to halve
        ([10], [5], NAN),
        ([0, 10], [5, NAN], NAN),
        ([], [], NAN),
    ],
)
def test_breakout_of_an_error_by_hand(steps, errors, expected):
    assert breakout_step(steps, errors, False, None) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("steps", "accuracies", "chance", "expected"),
    [
        ([0, 10, 20, 30], [0.5, 0.6, 0.75, 1.0], 0.5, 20),  # half-way from 0.5 to 1.0
        ([30, 20, 0, 10], [1.0, 0.75, 0.5, 0.6], 0.5, 20),
        ([0, 10, 20], [0.0, 0.5, 0.875], 0.125, 10),  # from chance, not from the first value
        ([0, 10, 20], [0.8, 0.9, 0.9], 0.5, 0),  # had already broken out
        ([0, 10, 20], [0.5, 0.9, 0.4], 0.5, NAN),  # ends below chance
        ([0, 10], [0.4, 0.5], 0.5, NAN),
        ([0], [0.9], 0.5, NAN),
    ],
)
def test_breakout_of_an_accuracy_by_hand(steps, accuracies, chance, expected):
    assert breakout_step(steps, accuracies, True, chance) == pytest.approx(expected, nan_ok=True)


def test_an_accuracy_needs_chance_and_each_step_its_value():
    with pytest.raises(ValueError, match="needs chance"):
        breakout_step([0, 1], [0.5, 0.9], True, None)
    with pytest.raises(ValueError, match="2 steps for 1 values"):
        halfway_step([0, 1], [0.5])


@pytest.mark.parametrize(
    ("steps", "values", "expected"),
    [
        ([0, 10], [1.0, 0.0], 5),
        ([0, 10, 20], [1.0, 0.8, 0.0], 13.75),  # 0.3 of the 0.8 between 10 and 20
        ([20, 0, 10], [0.0, 1.0, 0.8], 13.75),
        ([0, 10, 20], [0.0, 0.5, 1.0], 10),  # a rise; measured at half exactly
        ([0, 10, 20, 30], [1.0, 0.0, 1.0, 0.0], 5),  # the first crossing
        ([0, 10, 20], [0.0, -1.0, 2.0], 10 + 20 / 3),  # the wrong way first
        ([0, 10, 20], [1.0, NAN, 0.0], 10),
        ([0, 10, 20], [1.0, 0.5, 1.0], NAN),  # no change on the whole
        ([0], [1.0], NAN),
        ([], [], NAN),
    ],
)
def test_halfway_by_hand(steps, values, expected):
    assert halfway_step(steps, values) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.integers(-100, 100), min_size=2, max_size=9), st.randoms())
def test_order_and_sign_of_the_values_do_not_move_the_halfway_step(values, random):
    points = list(enumerate(values))
    random.shuffle(points)
    steps, shuffled = zip(*points, strict=True)
    halfway = halfway_step(range(len(values)), values)
    assert halfway_step(steps, shuffled) == pytest.approx(halfway, nan_ok=True)
    assert halfway_step(steps, [-v for v in shuffled]) == pytest.approx(halfway, nan_ok=True)
    assert math.isnan(halfway) or 0 < halfway <= len(values) - 1


@pytest.mark.parametrize(
    ("after", "before", "accuracy", "expected"),
    [
        (0.9, 0.8, True, 0.5),
        (0.6, 0.8, True, -1.0),
        (1.0, 0.8, True, 1.0),
        (0.5, 0.0, True, 0.5),
        (1.0, 1.0, True, 0.0),
        (0.75, 1.0, True, -0.25),  # nothing was lacking: the raw change
        (10.0, 20.0, False, math.log(2)),
        (20.0, 10.0, False, -math.log(2)),
        (7.0, 7.0, False, 0.0),
        (0.0, 0.0, False, 0.0),
        (0.0, 3.0, False, NAN),
        (3.0, 0.0, False, NAN),
        (-1.0, -1.0, False, NAN),
        (NAN, 0.5, True, NAN),
        (0.5, NAN, True, NAN),
        (NAN, 0.0, False, NAN),
        (math.inf, 1.0, False, NAN),
    ],
)
def test_normalized_change_by_hand(after, before, accuracy, expected):
    result = normalized_change(after, before, accuracy)
    assert result == pytest.approx(expected, nan_ok=True)


def test_percentages_are_no_shares():
    assert math.isnan(normalized_change(90.0, 80.0, True))


@given(st.floats(0, 1), st.floats(0, 1))
def test_negative_is_forgotten_for_accuracies(after, before):
    assert (normalized_change(after, before, True) < 0) == (after - before < 0)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_negative_is_forgotten_for_errors(after, before):
    assert (normalized_change(after, before, False) < 0) == (after - before > 0)
    assert normalized_change(after, before, False) == -normalized_change(before, after, False)
