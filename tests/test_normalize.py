"""Normalised improvement: every branch by hand, and what must hold for all numbers."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.statistics.similarity import linear_cka
from worldrep.evaluation.improvement import normalized_improvement

errors = st.floats(1e-3, 1e6)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("value", "atlantis", "standard", "expected"),
    [
        (0.55, 0.2, 0.9, 0.5),  # half of the way from 0.2 to 0.9
        (0.9, 0.2, 0.9, 1.0),
        (0.2, 0.2, 0.9, 0.0),
        (1.0, 0.2, 0.4, 4.0),
        (0.1, 0.2, 0.4, -0.5),
        (0.9, 0.5, 0.5, 0.0),  # nothing to gain: the base is as good on Atlantis
        (0.9, 0.6, 0.5, 0.0),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_accuracy_by_hand(value, atlantis, standard, expected):
    result = normalized_improvement(value, atlantis, standard, True, clip=False)
    assert result == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "atlantis", "standard", "expected"),
    [
        (10.0, 100.0, 1.0, 0.5),  # ln(100/10) / ln(100/1)
        (1.0, 100.0, 1.0, 1.0),
        (100.0, 100.0, 1.0, 0.0),
        (0.1, 100.0, 1.0, 1.5),
        (1000.0, 100.0, 1.0, -0.5),
        (5.0, 4.0, 4.0, 0.0),  # nothing to gain, and worse than the base
        (3.0, 4.0, 4.0, 1.0),  # nothing to gain, and better than the base
        (3.0, 4.0, 8.0, 1.0),
        (4.0, 4.0, 8.0, 0.0),
        (6.0, 4.0, 8.0, 0.0),
        (0.0, 4.0, 1.0, 1.0),  # no logarithm of 0
        (0.0, 0.0, 0.0, 0.0),
        (2.0, 0.0, 1.0, 0.0),
        (1.0, 4.0, 0.0, 0.75),  # a base without error on ordinary cities: linear
        (0.0, 4.0, 0.0, 1.0),
        (4.0, 4.0, 0.0, 0.0),
        (-1.0, 4.0, -6.0, 0.5),  # (4 - -1) / (4 - -6)
    ],
)
def test_error_by_hand(value, atlantis, standard, expected):
    result = normalized_improvement(value, atlantis, standard, False, clip=False)
    assert result == pytest.approx(expected)


def test_clipped_unless_told_otherwise():
    assert normalized_improvement(0.001, 100, 1, False) == 1.5
    assert normalized_improvement(1000, 100, 1, False) == 0.0
    assert normalized_improvement(1.0, 0.2, 0.4, True) == 1.5
    assert normalized_improvement(0.1, 0.2, 0.4, True) == 0.0


@pytest.mark.parametrize("accuracy", [True, False])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_stays_none(accuracy, place, number):
    numbers = [0.5, 0.5, 0.5]
    numbers[place] = number
    for clip in (True, False):
        assert math.isnan(normalized_improvement(*numbers, accuracy, clip=clip))


@given(errors, errors)
def test_errors_of_the_base_are_0_and_1(atlantis, standard):
    assert normalized_improvement(atlantis, atlantis, standard, False) == pytest.approx(0)
    if standard < atlantis:
        assert normalized_improvement(standard, atlantis, standard, False) == pytest.approx(1)


@given(shares, shares)
def test_accuracies_of_the_base_are_0_and_1(atlantis, standard):
    assert normalized_improvement(atlantis, atlantis, standard, True) == pytest.approx(0)
    if standard > atlantis:
        assert normalized_improvement(standard, atlantis, standard, True) == pytest.approx(1)


@given(errors, errors, errors, errors)
def test_a_smaller_error_is_never_worse(one, other, atlantis, standard):
    better, worse = sorted((one, other))
    arguments = (atlantis, standard, False, False)
    assert normalized_improvement(better, *arguments) >= normalized_improvement(worse, *arguments)


@given(shares, shares, shares, shares)
def test_a_higher_accuracy_is_never_worse(one, other, atlantis, standard):
    worse, better = sorted((one, other))
    arguments = (atlantis, standard, True, False)
    assert normalized_improvement(better, *arguments) >= normalized_improvement(worse, *arguments)


@given(errors, errors, errors, st.booleans())
def test_clipped_values_are_the_unclipped_ones_within_bounds(value, atlantis, standard, accuracy):
    clipped = normalized_improvement(value, atlantis, standard, accuracy)
    unclipped = normalized_improvement(value, atlantis, standard, accuracy, clip=False)
    assert clipped == min(max(unclipped, 0.0), 1.5)


@given(errors, errors, errors, st.floats(0.01, 100))
def test_the_unit_of_an_error_does_not_matter(value, atlantis, standard, factor):
    gap = abs(math.log(atlantis / standard))
    if standard == atlantis or gap < 1e-6 or abs(math.log(atlantis / value)) < 1e-6:
        return  # the outcome hangs on the last digit
    numbers = [value, atlantis, standard]
    one = normalized_improvement(*numbers, False, clip=False)
    other = normalized_improvement(*(factor * number for number in numbers), False, clip=False)
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


def test_the_formulas_are_exported_from_the_package_root():
    code = "import sys, analysis; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    assert analysis.normalized_improvement is normalized_improvement
    assert analysis.linear_cka is linear_cka
    with pytest.raises(AttributeError, match="no attribute 'linear_kca'"):
        _ = analysis.linear_kca
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
