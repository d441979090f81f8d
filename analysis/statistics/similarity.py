"""How alike two representations of the same cities are: linear CKA, components, Procrustes.

Arithmetic is in float64, except the matrix products of CKA between float32 tables.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worldrep.errors import InputError

CONSTANT = 1e-12  # deviations below this share of the largest value are rounding errors

Array = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating]


def linear_cka(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return the linear CKA of two tables whose rows are the same cities: 0 to 1, no unit.

    <K,L>_F / (|K|_F |L|_F) of the double-centred kernels K = XX', L = YY'; Kornblith et al. 2019
    (arXiv 1905.00414), section 3.

    Args:
        x: Features (n, d1). Products of float32 tables are in float32: twice as fast, and within
            1e-5 of float64.
        y: Features (n, d2).

    Returns:
        NaN if a table is constant: no column departs from its mean by more than CONSTANT times the
        column's largest absolute value.

    Raises:
        InputError: The numbers of rows differ or are below 2, or there is NaN or infinity.
    """
    return float(cka_table([x, y])[0, 1])


def cka_table(tables: Sequence[npt.ArrayLike]) -> Array:
    """Return `linear_cka` of all pairs of m tables (n, d_i): a symmetric (m, m) array.

    The row and the column of a constant table are NaN, also on the diagonal.
    """
    arrays = [np.asarray(table) for table in tables]
    for array in arrays[1:] or arrays:
        _require_comparable(arrays[0], array)
    features = [_features(array) for array in arrays]
    overlaps = np.zeros((len(features), len(features)))
    for i, j in itertools.combinations_with_replacement(range(len(features)), 2):
        overlaps[i, j] = overlaps[j, i] = _overlap(features[i], features[j])
    own = np.diag(overlaps)
    scale = np.sqrt(np.outer(own, own))
    cka = np.divide(overlaps, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    return np.minimum(cka, 1.0)  # rounding may leave 1 + 2e-16


def _features(array: npt.NDArray[np.generic]) -> Floating:
    """Return the centred table (n, d) with Frobenius norm 1, or all 0 if it is constant."""
    table = _unit(_centred(array.astype(np.float64)))  # centred before precision is reduced
    return table.astype(np.float32) if array.dtype == np.float32 else table


def _overlap(x: Floating, y: Floating) -> float:
    """Return <K,L>_F, which equals |X'Y|_F^2."""
    if max(x.shape[1], y.shape[1]) < len(x):
        product = (x.T @ y).astype(np.float64)
        return float(np.vdot(product, product))
    # Here the (n, n) kernels are no larger than the wider table.
    return float(np.vdot(*((table @ table.T).astype(np.float64) for table in (x, y))))


def _require_comparable(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    shapes = f"the shapes are {x.shape} and {y.shape}"
    if any(table.ndim != 2 or table.shape[1] == 0 for table in (x, y)):
        raise InputError(f"CKA compares tables of rows and at least one column; {shapes}")
    if len(x) != len(y):
        raise InputError(f"CKA compares tables with the same rows; {shapes}")
    if len(x) < 2:
        raise InputError(f"CKA needs at least 2 rows; {shapes}")
    _require_finite("CKA needs", shapes, x, y)


def _require_finite(who: str, shapes: str, *tables: npt.NDArray[Any]) -> None:
    if not all(np.isfinite(table).all() for table in tables):
        raise InputError(f"{who} finite numbers, and there is NaN or infinity; {shapes}")


def _centred(table: Array) -> Array:
    """Subtract the column means; a column that is constant but for rounding becomes 0."""
    centred = table - table.mean(axis=0)
    constant = np.abs(centred).max(axis=0) <= CONSTANT * np.abs(table).max(axis=0)
    centred[:, constant] = 0
    return centred


def _unit(centred: Array) -> Array:
    """Scale to Frobenius norm 1, so that no product over- or underflows."""
    largest = np.abs(centred).max()
    if largest == 0:
        return centred
    scaled = centred / largest
    return scaled / np.linalg.norm(scaled)


def principal_components(x: npt.ArrayLike, k: int = 3) -> tuple[Array, Array]:
    """Return the first k principal components of a table (n, d), by SVD of the centred table.

    Returns the scores (n, k) in the unit of x, and each component's share of the total variance
    (k,), NaN without variance. A component's sign makes its largest absolute loading positive.
    """
    table = np.asarray(x, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"principal components need rows and columns; the shape is {table.shape}")
    most = max(min(len(table) - 1, table.shape[1]), 0)
    if not 1 <= k <= most:
        raise InputError(f"a table of shape {table.shape} has {most} principal components, not {k}")
    _require_finite("principal components need", f"the shape is {table.shape}", table)
    left, singular, loadings = np.linalg.svd(_centred(table), full_matrices=False)
    largest = np.abs(loadings[:k]).argmax(axis=1)
    signs = np.where(loadings[np.arange(k), largest] < 0, -1.0, 1.0)
    total = (singular**2).sum()
    explained = singular[:k] ** 2 / total if total > 0 else np.full(k, np.nan)
    return left[:, :k] * singular[:k] * signs, explained


def procrustes_table(configurations: Sequence[npt.ArrayLike]) -> Array:
    """Return how far m configurations (n, k) of the same cities differ in shape: (m, m), 0 to 1.

    Equal to the disparity of `scipy.spatial.procrustes`, computed as 1 - s^2 without a rotation: s
    is the sum of the singular values of A'B, for centred A and B of norm 1 (Gower 1975). Raises
    InputError if the shapes differ, all points of one coincide, or there is NaN or infinity.
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
    _require_finite("Procrustes needs", shapes, a, b)
    if not all(_centred(points).any() for points in (a, b)):
        raise InputError(f"all points of a configuration coincide, so it has no shape; {shapes}")
