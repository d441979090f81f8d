"""How alike two representations of the same cities are, and whether likeness goes with transfer.

Linear CKA, principal components, Procrustes disparity, and a permutation test over task labels.
Arithmetic is in float64, but for the matrix products of CKA between float32 tables (see there).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.stats

from worldrep.errors import InputError

CONSTANT = 1e-12  # deviations below this share of the largest value are rounding, not variance
TIE = 1e-9  # two correlations this close are one, computed in another order
MOST_LABELS = 8  # 8! = 40,320 permutations are a moment's work; 9! would take over 1 GB

Array = npt.NDArray[np.float64]


def linear_cka(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Linear CKA of two tables of features whose rows are the same cities: 0 to 1, no unit.

    x: (n, d1), y: (n, d2). <K,L>_F / (|K|_F |L|_F) of the double-centred kernels K = XX', L = YY';
    Kornblith et al. 2019 (arXiv 1905.00414), section 3. NaN if one of them is constant: no column
    departs from its mean by more than 1e-12 of the column's largest absolute value. float32 tables
    are multiplied in float32, as stored representations are: twice as fast, and within 1e-5 of
    float64. InputError if the numbers of rows differ or are below 2, and for NaN or infinity.
    """
    return float(cka_table([x, y])[0, 1])


def cka_table(tables: Sequence[npt.ArrayLike]) -> Array:
    """`linear_cka` of all pairs of m tables (n, d_i): a symmetric (m, m) array.

    The row and the column of a constant table are NaN, its diagonal cell too. Errors as there.
    """
    arrays = [np.asarray(table) for table in tables]
    for array in arrays[1:] or arrays:
        _require_comparable(arrays[0], array)
    features = [_features(array) for array in arrays]
    table = np.full((len(features), len(features)), np.nan)
    for i, j in itertools.combinations_with_replacement(range(len(features)), 2):
        table[i, j] = table[j, i] = _cka(features[i], features[j])
    return table


@dataclass(frozen=True, eq=False)
class _Features:
    """A centred (n, d) table of Frobenius norm 1, or all 0 if constant, with its products."""

    table: npt.NDArray[np.floating]

    @cached_property
    def kernel(self) -> npt.NDArray[np.floating]:
        """(n, n); double-centred, as the features are centred."""
        return self.table @ self.table.T

    @cached_property
    def overlap_with_itself(self) -> float:
        return _overlap(self, self)


def _features(array: npt.NDArray[np.generic]) -> _Features:
    table = _unit(_centred(array.astype(np.float64)))  # centred before any precision is given up
    return _Features(table.astype(np.float32) if array.dtype == np.float32 else table)


def _cka(x: _Features, y: _Features) -> float:
    scale = math.sqrt(x.overlap_with_itself * y.overlap_with_itself)
    if scale == 0:
        return math.nan
    return min(_overlap(x, y) / scale, 1.0)  # rounding may leave 1 + 2e-16


def _overlap(x: _Features, y: _Features) -> float:
    """<K,L>_F, which equals |X'Y|_F^2."""
    n = len(x.table)
    if max(x.table.shape[1], y.table.shape[1]) < n:
        product = (x.table.T @ y.table).astype(np.float64)
        return float(np.vdot(product, product))
    # n x n is no larger than the wider table here.
    return float(np.vdot(x.kernel.astype(np.float64), y.kernel.astype(np.float64)))


def _require_comparable(x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> None:
    shapes = f"the shapes are {x.shape} and {y.shape}"
    if any(table.ndim != 2 or table.shape[1] == 0 for table in (x, y)):
        raise InputError(f"CKA compares tables of rows and at least one column; {shapes}")
    if len(x) != len(y):
        raise InputError(f"CKA compares tables with the same rows; {shapes}")
    if len(x) < 2:
        raise InputError(f"CKA needs at least 2 rows; {shapes}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(f"CKA needs finite numbers, and there is NaN or infinity; {shapes}")


def _centred(table: Array) -> Array:
    """The table less its column means; what rounding leaves of a constant column becomes 0."""
    centred = table - table.mean(axis=0)
    constant = np.abs(centred).max(axis=0) <= CONSTANT * np.abs(table).max(axis=0)
    centred[:, constant] = 0
    return centred


def _unit(centred: Array) -> Array:
    """The table scaled to Frobenius norm 1, so that no product over- or underflows."""
    largest = np.abs(centred).max()
    if largest == 0:
        return centred
    scaled = centred / largest
    return scaled / np.linalg.norm(scaled)


def principal_components(x: npt.ArrayLike, k: int = 3) -> tuple[Array, Array]:
    """The first k principal components of a table (n, d), by SVD of the centred table.

    Returns the scores (n, k) in the unit of x, and each component's share of the total variance
    (k,), NaN if there is no variance. A component's sign makes its largest absolute loading
    positive. InputError if k is not in 1..min(n - 1, d), and for NaN or infinity.
    """
    table = np.asarray(x, dtype=np.float64)
    _require_components(table, k)
    left, singular, loadings = np.linalg.svd(_centred(table), full_matrices=False)
    largest = np.abs(loadings[:k]).argmax(axis=1)
    signs = np.where(loadings[np.arange(k), largest] < 0, -1.0, 1.0)
    total = (singular**2).sum()
    explained = singular[:k] ** 2 / total if total > 0 else np.full(k, np.nan)
    return left[:, :k] * singular[:k] * signs, explained


def _require_components(table: Array, k: int) -> None:
    if table.ndim != 2:
        raise InputError(f"principal components need rows and columns; the shape is {table.shape}")
    most = max(min(len(table) - 1, table.shape[1]), 0)
    if not 1 <= k <= most:
        raise InputError(f"a table of shape {table.shape} has {most} principal components, not {k}")
    if not np.isfinite(table).all():
        raise InputError(
            "principal components need finite numbers, and there is NaN or infinity;"
            f" the shape is {table.shape}"
        )


def procrustes_disparity(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """How far two configurations (n, k) of the same cities differ in shape: 0 to 1, no unit.

    The sum of squared distances after both are shifted and scaled to norm 1 and b is rotated,
    reflected and scaled onto a (as `scipy.spatial.procrustes`); 0 is the same shape. InputError if
    the shapes differ, all points of one coincide, and for NaN or infinity.
    """
    return float(procrustes_table([a, b])[0, 1])


def procrustes_table(configurations: Sequence[npt.ArrayLike]) -> Array:
    """`procrustes_disparity` of all pairs of m configurations: a symmetric (m, m) array.

    The best rotation of unit configurations A and B leaves 1 - s^2, where s is the sum of the
    singular values of A'B (Gower 1975): no (n, k) table is rotated. Errors as there.
    """
    arrays = [np.asarray(points, dtype=np.float64) for points in configurations]
    for array in arrays[1:] or arrays:
        _require_shapes(arrays[0], array)
    units = np.stack([_unit(_centred(array)) for array in arrays])
    table = np.zeros((len(units), len(units)))
    for i, unit in enumerate(units[:-1]):
        sums = np.linalg.svd(unit.T @ units[i + 1 :], compute_uv=False).sum(axis=1)
        table[i, i + 1 :] = table[i + 1 :, i] = np.clip(1 - sums**2, 0, 1)
    return table


def _require_shapes(a: Array, b: Array) -> None:
    shapes = f"the shapes are {a.shape} and {b.shape}"
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise InputError(f"Procrustes compares configurations (n, k) of one shape; {shapes}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"Procrustes needs finite numbers, and there is NaN or infinity; {shapes}")
    if not all(_centred(points).any() for points in (a, b)):
        raise InputError(f"all points of a configuration coincide, so it has no shape; {shapes}")


@dataclass(frozen=True)
class Association:
    """How transfer goes with CKA over n pairs of tasks.

    r: Pearson correlation; p: its two-sided p value as if the points were independent (they are
    not: each task is in many of them); slope, intercept: least squares, transfer on CKA;
    permutation_p: of the test over task labels; n_permutations: how many had a correlation.
    All numbers but the two counts are NaN with fewer than 3 points or no variance.
    """

    n: int
    r: float
    p: float
    slope: float
    intercept: float
    permutation_p: float
    n_permutations: int


def label_permutation_test(cka: npt.ArrayLike, transfer: npt.ArrayLike) -> Association:
    """Whether tasks with like representations carry more over to each other.

    cka: (k, k), symmetric, between tasks; transfer: (k, k), row = trained task, column = task it
    was measured on; NaN = missing. The points are the off-diagonal cells present in both. As in
    Mantel's test (1967), rows and columns of `cka` are relabelled together, in all k! ways;
    permutation_p is the share, the identity included, whose |r| is at least the observed one.
    With missing cells, a permuted pair counts only where both are there, and a permutation without
    a correlation (fewer than 3 pairs, no variance) is left out of the share.
    InputError if the two are not square and of one shape, k > 8, or a cell is infinite.
    """
    x, y = np.asarray(cka, dtype=np.float64), np.asarray(transfer, dtype=np.float64)
    _require_label_matrices(x, y)
    off_diagonal = ~np.eye(len(x), dtype=bool)
    orders = np.array(list(itertools.permutations(range(len(x)))), dtype=int)  # identity first
    relabelled = x[orders[:, :, None], orders[:, None, :]][:, off_diagonal]
    points, values = x[off_diagonal], y[off_diagonal]
    there = ~np.isnan(points) & ~np.isnan(values)
    correlations = _correlations(relabelled, values)
    r, n = float(correlations[0]), int(there.sum())
    if math.isnan(r):
        return Association(n, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    line = scipy.stats.linregress(points[there], values[there])
    found = np.abs(correlations[~np.isnan(correlations)])
    share = float((found >= abs(r) - TIE).mean())
    return Association(
        n, r, float(line.pvalue), float(line.slope), float(line.intercept), share, len(found)
    )


def _require_label_matrices(cka: Array, transfer: Array) -> None:
    shapes = f"the shapes are {cka.shape} and {transfer.shape}"
    if cka.shape != transfer.shape or cka.ndim != 2 or cka.shape[0] != cka.shape[1]:
        raise InputError(f"CKA and transfer must be square tables of the same tasks; {shapes}")
    if len(cka) > MOST_LABELS:
        raise InputError(f"at most {MOST_LABELS} labels can be permuted in all ways; {shapes}")
    if np.isinf(cka).any() or np.isinf(transfer).any():
        raise InputError(f"CKA and transfer may have missing cells but no infinite ones; {shapes}")


def _correlations(x: Array, y: Array) -> Array:
    """Pearson's r of each row of x (m, n) with y (n,) where both are there; NaN without one."""
    there = ~np.isnan(x) & ~np.isnan(y)
    x_deviations, x_norms = _deviations(x, there)
    y_deviations, y_norms = _deviations(np.broadcast_to(y, x.shape), there)
    norms = x_norms * y_norms
    products = (x_deviations * y_deviations).sum(axis=1)
    defined = (there.sum(axis=1) >= 3) & (norms > 0)
    r = np.divide(products, norms, out=np.full(len(x), np.nan), where=defined)
    return np.clip(r, -1, 1)


def _deviations(values: Array, there: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Each row's deviations from its mean over the cells that are there, and their norm (m,)."""
    known = np.where(there, values, 0)
    mean = known.sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
    deviations = np.where(there, known - mean, 0)
    largest = np.abs(known).max(axis=1, initial=0)
    constant = np.abs(deviations).max(axis=1, initial=0) <= CONSTANT * largest
    return deviations, np.where(constant, 0, np.linalg.norm(deviations, axis=1))
