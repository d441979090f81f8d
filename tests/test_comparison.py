"""Comparisons over seeds: by hand, against scipy and published tables, and their symmetries."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, ttest_rel, wilcoxon

from analysis.statistics import comparison
from analysis.statistics.comparison import detectable_difference, holm, seeds_needed

FIRST = [0.81, 0.77, 0.92, 0.85, 0.64, 0.71]
SECOND = [0.75, 0.79, 0.81, 0.80, 0.61, 0.62]

# Whole numbers: what is added to them is added exactly.
columns = st.lists(
    st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=2, max_size=7
)


def paired(first, second):
    return SimpleNamespace(**comparison.paired(first, second))


def rank_sum(first, second):
    return SimpleNamespace(**comparison.rank_sum(first, second))


def numbers(result):
    return tuple(vars(result).values())


def test_paired_by_hand():
    result = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])  # differences 1, 2, 3
    assert (result.n, result.missing) == (3, 0)
    assert (result.difference, result.std) == (2.0, 1.0)
    assert result.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2)
    assert result.low + result.high == pytest.approx(4.0)
    assert result.t == pytest.approx(2 * math.sqrt(3))
    assert result.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(2 + 12))  # 2 degrees: closed
    assert result.wilcoxon_p == 0.25  # 2 of 8 signs


def test_paired_agrees_with_scipy():
    result, test = paired(FIRST, SECOND), ttest_rel(FIRST, SECOND)
    interval = test.confidence_interval(0.95)
    assert (result.t, result.p) == pytest.approx((test.statistic, test.pvalue))
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    differences = [round(a - b, 2) for a, b in zip(FIRST, SECOND, strict=True)]
    assert result.wilcoxon_p == pytest.approx(wilcoxon(differences).pvalue)


def test_an_incomplete_pair_is_counted_and_left_out():
    result = paired([3.0, math.nan, 5.0, 7.0, 1.0], [2.0, 1.0, 3.0, 4.0, math.nan])
    assert result.missing == 2
    assert numbers(result)[:-1] == numbers(paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0]))[:-1]


def test_too_few_pairs_give_nan():
    assert paired([], []).n == 0
    assert all(math.isnan(number) for number in numbers(paired([], []))[1:-1])
    one = paired([3.0], [1.0])
    assert (one.n, one.difference, one.wilcoxon_p) == (1, 2.0, 1.0)
    assert all(math.isnan(number) for number in (one.std, one.low, one.high, one.t, one.p))


@pytest.mark.parametrize(
    ("first", "second", "difference", "wilcoxon_p"),
    [
        ([3.0, 4.0, 5.0], [1.0, 2.0, 3.0], 2.0, 0.25),
        ([0.3, 0.4, 0.9], [0.1, 0.2, 0.7], 0.2, 0.25),  # equal but for rounding errors
        ([3.0, 4.0, 5.0], [3.0, 4.0, 5.0], 0.0, math.nan),
        ([0.1 + 0.2, 0.5], [0.3, 0.5], 0.0, math.nan),
        ([0.0, 0.0], [0.0, 0.0], 0.0, math.nan),
    ],
)
def test_equal_differences_have_no_t(first, second, difference, wilcoxon_p):
    result = paired(first, second)
    assert math.isnan(result.t) and math.isnan(result.p)
    assert (result.difference, result.low, result.high) == pytest.approx((difference,) * 3)
    assert result.wilcoxon_p == pytest.approx(wilcoxon_p, nan_ok=True)


def test_rounding_errors_do_not_break_ties():
    as_shares = paired([0.3, 0.2, 0.9, 0.5], [0.1, 0.4, 0.3, 0.2])
    as_counts = paired([3, 2, 9, 5], [1, 4, 3, 2])
    assert as_shares.wilcoxon_p == as_counts.wilcoxon_p


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="equal lengths, not 2 and 1"):
        paired([1.0, 2.0], [1.0])


@given(columns)
def test_exchanged_quantities_change_the_sign(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = paired(first, second), paired(second, first)
    assert (one.difference, one.std, one.low) == pytest.approx(
        (-other.difference, other.std, -other.high)
    )
    assert (one.t, one.p) == pytest.approx((-other.t, other.p), nan_ok=True)
    assert one.wilcoxon_p == pytest.approx(other.wilcoxon_p, nan_ok=True)


@given(columns, st.integers(-1000, 1000))
def test_a_constant_added_to_both_changes_nothing(pairs, constant):
    first, second = zip(*pairs, strict=True)
    moved = paired([a + constant for a in first], [b + constant for b in second])
    assert numbers(moved) == pytest.approx(numbers(paired(first, second)), nan_ok=True)


def test_rank_sum_by_hand():
    result = rank_sum([4.0, 6.0, 5.0], [1.0, 2.0, 4.0])  # 8 of 9 pairs won, one tied
    assert (result.n_first, result.n_second, result.u) == (3, 3, 8.5)
    assert result.effect == pytest.approx(8.5 / 9)
    separate = rank_sum([1.0, 2.0], [3.0, 4.0, 5.0])
    assert (separate.u, separate.effect) == (0.0, 0.0)
    assert separate.p == pytest.approx(0.2)  # 2 of the 10 ways to choose two of five


def test_rank_sum_agrees_with_scipy():
    result, test = rank_sum(FIRST, SECOND), mannwhitneyu(FIRST, SECOND, alternative="two-sided")
    assert (result.u, result.p) == (test.statistic, test.pvalue)


def test_rank_sum_counts_nan_and_needs_both_groups():
    assert rank_sum([4.0, math.nan, 6.0], [1.0, math.nan]).missing == 2
    empty = rank_sum([math.nan], [1.0, 2.0])
    assert (empty.n_first, empty.n_second, empty.missing) == (0, 2, 1)
    assert all(math.isnan(number) for number in (empty.u, empty.p, empty.effect))


@given(columns)
def test_effects_of_exchanged_groups_add_up_to_one(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = rank_sum(first, second), rank_sum(second, first)
    assert one.effect + other.effect == pytest.approx(1)
    assert one.p == pytest.approx(other.p)


@pytest.mark.parametrize(
    ("effect", "seeds"),
    # Sample sizes of a two-sided paired t test, as in G*Power and in Cohen's tables.
    [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)],
)
def test_seeds_needed_as_published(effect, seeds):
    assert seeds_needed(1.0, effect) == seeds
    assert seeds_needed(3.0, -3 * effect) == seeds


def test_seeds_needed_at_the_edges():
    assert seeds_needed(0.0, 0.1) == 2
    assert seeds_needed(1e-9, 1.0) == 2
    assert seeds_needed(1.0, 0.03) == 8723
    assert seeds_needed(1.0, 0.02) is None
    for std, difference in ((1.0, 0.0), (0.0, 0.0), (math.nan, 1.0), (1.0, math.nan)):
        assert seeds_needed(std, difference) is None


def test_every_size_of_effect_needs_fewer_seeds_than_a_smaller_one():
    needed = [seeds_needed(1.0, 0.05 * 1.05**k) for k in range(0, 200, 3)]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] == 2


@given(st.integers(2, 500), st.floats(1e-3, 1e3))
def test_the_detectable_difference_is_the_inverse(n, std):
    smallest = detectable_difference(std, n)
    assert seeds_needed(std, 1.0001 * smallest) == n
    assert n == 2 or seeds_needed(std, 0.9999 * smallest) == n + 1


def test_detectable_difference_at_the_edges():
    assert detectable_difference(0.0, 5) == 0.0
    assert math.isnan(detectable_difference(1.0, 1))
    assert math.isnan(detectable_difference(math.nan, 5))


def test_holm_by_hand():
    # sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.6 * 1
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_a_missing_p_is_no_test():
    corrected = holm([math.nan, 0.01, math.nan, 0.04])
    assert corrected[1::2] == pytest.approx([0.02, 0.04]) and math.isnan(corrected[0])
    assert all(map(math.isnan, holm([math.nan])))
    with pytest.raises(ValueError, match="chances"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_and_bonferroni(p_values):
    corrected = holm(p_values)
    pairs = list(zip(p_values, corrected, strict=True))
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in pairs)
    by_p = sorted(pairs)
    assert [q for _, q in by_p] == sorted(corrected)
