"""CKA, principal components, Procrustes and the label permutation test, by hand and in general."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cka_generalization import label_permutation_test
from analysis.statistics.similarity import (
    cka_table,
    linear_cka,
    principal_components,
    procrustes_table,
)
from worldrep.errors import InputError

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-6, 1e6)
shifts = st.floats(-1e3, 1e3)
several = settings(max_examples=40, deadline=None)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def procrustes_disparity(a, b):
    return procrustes_table([a, b])[0, 1]


def rotation(seed, d):
    return np.linalg.qr(normal(seed, d, d))[0]


def cka_by_kernels(x, y):
    """The definition: centred on both sides by the n x n centring matrix."""
    centring = np.eye(len(x)) - 1 / len(x)
    k, m = (centring @ (table @ table.T) @ centring for table in (x, y))
    return (k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m))


# Linear CKA


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([[0], [1]], [[5], [3]], 1),  # two rows: one shape only
        # Centred (-1, 0, 1) and (1, -2, 1): uncorrelated.
        ([[0], [1], [2]], [[1], [-2], [1]], 0),
        # One column each: r^2. (-1, 0, 1) and (-1, 1, 0): r = 1 / 2.
        ([[0], [1], [2]], [[0], [2], [1]], 0.25),
        # (-1, 0, 1) beside both axes of the plane: K has eigenvalue 2, L has 2 and 6,
        # <K,L> = 2 * 2, so 4 / (2 * sqrt(40)).
        ([[0], [1], [2]], [[0, 1], [1, -2], [2, 1]], 1 / math.sqrt(10)),
        # A square's corners and one of its axes: X'X = diag(4, 4), X'Y = (4, 0)'.
        ([[1, 1], [1, -1], [-1, 1], [-1, -1]], [[1], [1], [-1], [-1]], 1 / math.sqrt(2)),
    ],
)
def test_cka_by_hand(x, y, expected):
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("n", "d1", "d2"), [(30, 4, 7), (30, 29, 29), (30, 30, 2), (30, 2, 50), (10, 40, 60), (2, 1, 1)]
)
def test_both_forms_are_the_definition(n, d1, d2):
    x, y = normal(n, n, d1) + 3, normal(d1, n, d2) - 2
    assert linear_cka(x, y) == pytest.approx(cka_by_kernels(x, y), rel=1e-12)


def test_features_and_kernels_give_the_same_number():
    x, y = normal(1, 30, 4), normal(2, 30, 7)
    padded = np.hstack([x, np.zeros((30, 40))])  # wider than long, and the same kernel
    assert linear_cka(padded, y) == pytest.approx(linear_cka(x, y), rel=1e-13)


@several
@given(seed=seeds, scale=scales, shift=shifts, d=st.sampled_from([1, 3, 20]))
def test_rotation_scale_and_shift_do_not_matter(seed, scale, shift, d):
    x, y = normal(seed, 12, d), normal(seed + 1, 12, 4)
    moved = scale * (x @ rotation(seed + 2, d) + shift)
    assert linear_cka(moved, y) == pytest.approx(linear_cka(x, y), abs=1e-9)
    assert linear_cka(x, moved) == pytest.approx(1, abs=1e-9)


@several
@given(seed=seeds, n=st.integers(2, 9), d1=st.integers(1, 9), d2=st.integers(1, 9))
def test_cka_is_symmetric_and_between_0_and_1(seed, n, d1, d2):
    x, y = normal(seed, n, d1), normal(seed + 1, n, d2)
    value = linear_cka(x, y)
    assert 0 <= value <= 1
    assert linear_cka(y, x) == pytest.approx(value, rel=1e-12)
    assert linear_cka(x, x) == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_size_of_the_numbers_does_not_matter(size):
    x, y = normal(1, 9, 3), normal(2, 9, 2)
    assert linear_cka(x * size, y) == pytest.approx(linear_cka(x, y), rel=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9, -3e-9])
def test_a_constant_table_has_no_cka(constant):
    x, flat = normal(1, 7, 3), np.full((7, 2), constant)
    assert math.isnan(linear_cka(x, flat))
    assert math.isnan(linear_cka(flat, x))
    assert math.isnan(linear_cka(flat, flat))


def test_a_constant_column_adds_nothing_and_a_small_variance_counts():
    x, y = normal(1, 7, 3), normal(2, 7, 2)
    beside = np.hstack([x, np.full((7, 1), 1e12 / 3)])
    assert linear_cka(beside, y) == pytest.approx(linear_cka(x, y), rel=1e-13)
    assert linear_cka(1e6 + x, y) == pytest.approx(linear_cka(x, y), rel=1e-6)


def test_the_table_holds_linear_cka_of_every_pair():
    widths = (3, 5, 40, 12)
    tables = [normal(d, 12, d).astype(np.float32) for d in widths] + [np.ones((12, 2))]
    table = cka_table(tables)
    assert table.shape == (5, 5)
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_allclose(np.diag(table)[:4], 1, rtol=1e-14)
    for i, j in itertools.combinations(range(5), 2):
        np.testing.assert_array_equal(table[i, j], linear_cka(tables[i], tables[j]))
    assert np.isnan(table[4]).all()


@pytest.mark.parametrize(("n", "d"), [(1000, 64), (50, 80)])
@pytest.mark.parametrize("shift", [0, 100])
def test_float32_tables_agree_with_float64(n, d, shift):
    # A few strong directions and much noise, as in hidden states; and unrelated tables.
    common = normal(0, n, 5)
    tables = [common @ normal(seed, 5, d) + normal(seed + 9, n, d) + shift for seed in (1, 2)]
    tables = [table.astype(np.float32) for table in [*tables, normal(3, n, d)]]
    exact = cka_table([table.astype(np.float64) for table in tables])
    np.testing.assert_allclose(cka_table(tables), exact, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(np.diag(cka_table(tables)), 1)


def test_tables_are_left_as_they_were():
    x = normal(1, 6, 2)
    before = x.copy()
    cka_table([x, x])
    principal_components(x, 2)
    np.testing.assert_array_equal(x, before)


def test_no_tables_give_an_empty_table():
    assert cka_table([]).shape == (0, 0)


NAN_TABLE = [[0.0], [math.nan], [1.0]]


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (
            np.ones((3, 2)),
            np.ones((4, 5)),
            "CKA compares tables with the same rows; the shapes are (3, 2) and (4, 5)",
        ),
        (
            np.ones((1, 2)),
            np.ones((1, 5)),
            "CKA needs at least 2 rows; the shapes are (1, 2) and (1, 5)",
        ),
        (
            np.ones((3, 2)),
            NAN_TABLE,
            "CKA needs finite numbers, and there is NaN or infinity;"
            " the shapes are (3, 2) and (3, 1)",
        ),
        (
            [[math.inf], [0]],
            np.ones((2, 1)),
            "CKA needs finite numbers, and there is NaN or infinity;"
            " the shapes are (2, 1) and (2, 1)",
        ),
        (
            np.ones(3),
            np.ones((3, 1)),
            "CKA compares tables of rows and at least one column; the shapes are (3,) and (3, 1)",
        ),
        (
            np.ones((3, 0)),
            np.ones((3, 1)),
            "CKA compares tables of rows and at least one column; the shapes are (3, 0) and (3, 1)",
        ),
    ],
)
def test_cka_says_what_is_wrong(x, y, sentence):
    with pytest.raises(InputError) as fault:
        linear_cka(x, y)
    assert str(fault.value) == sentence


# Principal components


def test_components_by_hand():
    # Along (3, 4) / 5 the points lie at -10, 0, 10 and across it nowhere; shifted by (7, 7).
    scores, explained = principal_components([[1, -1], [7, 7], [13, 15]], 1)
    np.testing.assert_allclose(scores, [[-10], [0], [10]], atol=1e-12)
    np.testing.assert_allclose(explained, [1])


def test_the_largest_loading_is_positive():
    # The direction is (3, -4) / 5 up to its sign: -4 is the largest, so the sign is turned.
    scores, _ = principal_components([[-3, 4], [0, 0], [3, -4]], 1)
    np.testing.assert_allclose(scores, [[5], [0], [-5]], atol=1e-12)


@several
@given(seed=seeds)
def test_components_keep_distances_and_share_the_variance(seed):
    x = normal(seed, 9, 4)
    scores, explained = principal_components(x, 4)
    np.testing.assert_allclose(
        scores @ scores.T, (x - x.mean(0)) @ (x - x.mean(0)).T, rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(explained, scores.var(axis=0) / x.var(axis=0).sum(), atol=1e-12)
    assert explained.sum() == pytest.approx(1)
    assert (np.diff(explained) <= 0).all()
    np.testing.assert_allclose(principal_components(x + 5, 2)[0], scores[:, :2], atol=1e-9)


def test_no_variance_has_no_shares():
    scores, explained = principal_components(np.full((5, 4), 0.1))
    np.testing.assert_array_equal(scores, np.zeros((5, 3)))
    assert np.isnan(explained).all()


@pytest.mark.parametrize(
    ("x", "k", "sentence"),
    [
        (np.ones((3, 5)), 3, "a table of shape (3, 5) has 2 principal components, not 3"),
        (np.ones((9, 2)), 3, "a table of shape (9, 2) has 2 principal components, not 3"),
        (np.ones((0, 2)), 1, "a table of shape (0, 2) has 0 principal components, not 1"),
        (np.ones((9, 2)), 0, "a table of shape (9, 2) has 2 principal components, not 0"),
        (np.ones(9), 1, "principal components need rows and columns; the shape is (9,)"),
        (
            NAN_TABLE,
            1,
            "principal components need finite numbers, and there is NaN or infinity;"
            " the shape is (3, 1)",
        ),
    ],
)
def test_components_say_what_is_wrong(x, k, sentence):
    with pytest.raises(InputError) as fault:
        principal_components(x, k)
    assert str(fault.value) == sentence


# Procrustes


def test_disparity_by_hand():
    # One column: 1 - r^2, and r = 1/2 for centred (-1, 0, 1) and (-1, 1, 0).
    assert procrustes_disparity([[0], [1], [2]], [[0], [2], [1]]) == pytest.approx(0.75)
    # A square and a line through it: singular values of the overlap are 1/sqrt(2) and 0.
    square = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    line = [[1, 0], [1, 0], [-1, 0], [-1, 0]]
    assert procrustes_disparity(square, line) == pytest.approx(0.5)


@several
@given(seed=seeds, scale=scales, shift=shifts)
def test_a_moved_configuration_has_the_same_shape(seed, scale, shift):
    a = normal(seed, 8, 3)
    moved = scale * (a @ rotation(seed + 1, 3) + shift)
    assert procrustes_disparity(a, moved) == pytest.approx(0, abs=1e-9)
    b = normal(seed + 2, 8, 3)
    assert 1e-6 < procrustes_disparity(a, b) <= 1
    assert procrustes_disparity(b, a) == pytest.approx(procrustes_disparity(a, b))


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (
            np.ones((4, 3)),
            np.ones((4, 2)),
            "Procrustes compares configurations (n, k) of one shape;"
            " the shapes are (4, 3) and (4, 2)",
        ),
        (
            np.ones(4),
            np.ones(4),
            "Procrustes compares configurations (n, k) of one shape; the shapes are (4,) and (4,)",
        ),
        (
            normal(1, 4, 2),
            np.full((4, 2), 0.1),
            "all points of a configuration coincide, so it has no shape;"
            " the shapes are (4, 2) and (4, 2)",
        ),
        (
            [[1.0, 2.0]],
            [[3.0, 4.0]],
            "all points of a configuration coincide, so it has no shape;"
            " the shapes are (1, 2) and (1, 2)",
        ),
        (
            NAN_TABLE,
            np.ones((3, 1)),
            "Procrustes needs finite numbers, and there is NaN or infinity;"
            " the shapes are (3, 1) and (3, 1)",
        ),
    ],
)
def test_procrustes_says_what_is_wrong(a, b, sentence):
    with pytest.raises(InputError) as fault:
        procrustes_disparity(a, b)
    assert str(fault.value) == sentence


# The permutation test


def symmetric(seed, k=7):
    table = normal(seed, k, k)
    return (table + table.T) / 2


def brute_force(cka, transfer):
    """The share and the number of permutations, cell by cell."""
    k = len(cka)

    def correlation(order):
        pairs = [
            (cka[order[i], order[j]], transfer[i, j])
            for i, j in itertools.permutations(range(k), 2)
            if not math.isnan(cka[order[i], order[j]] + transfer[i, j])
        ]
        return np.corrcoef(np.array(pairs).T)[0, 1] if len(pairs) >= 3 else math.nan

    found = [abs(correlation(order)) for order in itertools.permutations(range(k))]
    defined = [r for r in found if not math.isnan(r)]
    return sum(r >= found[0] - 1e-9 for r in defined) / len(defined), len(defined)


def test_association_by_hand():
    cka = np.array([[1, 0.1, 0.2], [0.1, 1, 0.6], [0.2, 0.6, 1]])
    found = label_permutation_test(cka, 3 - 2 * cka)
    assert (found.n, found.n_permutations) == (6, 6)
    assert found.r == pytest.approx(-1)
    assert (found.slope, found.intercept) == (pytest.approx(-2), pytest.approx(3))
    assert found.p == pytest.approx(0, abs=1e-9)
    assert found.permutation_p == pytest.approx(1 / 6)  # only the identity fits


def test_permutations_that_change_nothing_count():
    # Tasks 0 and 1 can be exchanged: two of the six permutations fit.
    cka = np.array([[1, 0.1, 0.5], [0.1, 1, 0.5], [0.5, 0.5, 1]])
    assert label_permutation_test(cka, cka).permutation_p == pytest.approx(2 / 6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [3, 4])
def test_permutation_p_is_exact(seed, k):
    cka, transfer = symmetric(seed, k), normal(seed + 100, k, k)
    found = label_permutation_test(cka, transfer)
    assert (found.permutation_p, found.n_permutations) == pytest.approx(brute_force(cka, transfer))


@pytest.mark.parametrize("seed", range(5))
def test_missing_cells_are_counted_out(seed):
    cka, transfer = symmetric(seed, 5), normal(seed + 100, 5, 5)
    cka[0, 1] = cka[1, 0] = transfer[2, 3] = transfer[0, 1] = math.nan
    found = label_permutation_test(cka, transfer)
    assert found.n == 20 - 3  # cka's two, one of which is missing in transfer too, and another
    there = ~np.isnan(cka + transfer) & ~np.eye(5, dtype=bool)
    slope, intercept = np.polyfit(cka[there], transfer[there], 1)
    assert found.r == pytest.approx(np.corrcoef(cka[there], transfer[there])[0, 1])
    assert (found.slope, found.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert (found.permutation_p, found.n_permutations) == pytest.approx(brute_force(cka, transfer))


def test_permutations_without_a_correlation_are_left_out():
    cka = np.array([[0, 1, 2, np.nan], [1, 0, 4, np.nan], [2, 4, 0, np.nan], [np.nan] * 4])
    transfer = np.array([[0, 1, 3, np.nan], [1, 0, 4, np.nan], [3, 4, 0, np.nan], [np.nan] * 4])
    found = label_permutation_test(cka, transfer)
    assert found.n == 6
    # Elsewhere the missing task leaves one pair, in both directions.
    assert found.n_permutations == 6
    assert (found.permutation_p, 6) == pytest.approx(brute_force(cka, transfer))


def test_p_is_that_of_independent_points():
    cka, transfer = symmetric(1), normal(2, 7, 7)
    found = label_permutation_test(cka, transfer)
    t = found.r * math.sqrt((found.n - 2) / (1 - found.r**2))
    draws = np.random.default_rng(0).standard_t(found.n - 2, size=200_000)
    assert found.p == pytest.approx((np.abs(draws) >= abs(t)).mean(), abs=0.01)


def test_a_planted_association_is_found_and_the_diagonal_ignored():
    cka = symmetric(1)
    transfer = 2 * cka + 0.3 * normal(2, 7, 7)
    found = label_permutation_test(cka, transfer)
    assert (found.n, found.n_permutations) == (42, 5040)
    assert found.r > 0.9
    assert found.permutation_p < 0.001
    np.fill_diagonal(cka, 99)
    np.fill_diagonal(transfer, math.nan)
    assert label_permutation_test(cka, transfer) == found


def test_relabelling_both_changes_nothing():
    cka, transfer = symmetric(1), normal(2, 7, 7)
    order = np.random.default_rng(3).permutation(7)
    found = label_permutation_test(cka, transfer)
    other = label_permutation_test(cka[np.ix_(order, order)], transfer[np.ix_(order, order)])
    assert other.r == pytest.approx(found.r)
    assert other.permutation_p == pytest.approx(found.permutation_p)


@pytest.mark.parametrize(
    ("cka", "transfer", "n"),
    [
        (symmetric(1, 2), symmetric(2, 2), 2),  # too few points
        (np.ones((1, 1)), np.ones((1, 1)), 0),
        (np.ones((0, 0)), np.ones((0, 0)), 0),
        (np.full((4, 4), 0.1), normal(1, 4, 4), 12),  # no variance
        (symmetric(1, 4), np.full((4, 4), 0.1), 12),
        (symmetric(1, 4), np.full((4, 4), math.nan), 0),
    ],
)
def test_no_correlation_without_points_or_variance(cka, transfer, n):
    found = label_permutation_test(cka, transfer)
    assert (found.n, found.n_permutations) == (n, 0)
    numbers = (found.r, found.p, found.slope, found.intercept, found.permutation_p)
    assert all(math.isnan(number) for number in numbers)


@pytest.mark.parametrize(
    ("cka", "transfer", "sentence"),
    [
        (
            np.ones((3, 3)),
            np.ones((4, 4)),
            "CKA and transfer must be square tables of the same tasks;"
            " the shapes are (3, 3) and (4, 4)",
        ),
        (
            np.ones((3, 4)),
            np.ones((3, 4)),
            "CKA and transfer must be square tables of the same tasks;"
            " the shapes are (3, 4) and (3, 4)",
        ),
        (
            np.ones((9, 9)),
            np.ones((9, 9)),
            "at most 8 labels can be permuted in all ways; the shapes are (9, 9) and (9, 9)",
        ),
        (
            np.ones((3, 3)),
            np.full((3, 3), -math.inf),
            "CKA and transfer may have missing cells but no infinite ones;"
            " the shapes are (3, 3) and (3, 3)",
        ),
    ],
)
def test_the_permutation_test_says_what_is_wrong(cka, transfer, sentence):
    with pytest.raises(InputError) as fault:
        label_permutation_test(cka, transfer)
    assert str(fault.value) == sentence
