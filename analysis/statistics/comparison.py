"""Comparison of a quantity between two groups of models: paired tests and rank tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import mannwhitneyu, wilcoxon

from worldrep.evaluation.improvement import spread_of

ROUNDING = 1e-12  # differences below this share of the largest value count as equal


@dataclass(frozen=True)
class Paired:
    """Difference between two quantities paired by seed (or by cell).

    n: complete pairs; difference: mean of first - second in the unit of the values, with its
    standard deviation (ddof=1) and Student's 95% interval of the mean; t, p: paired t test;
    wilcoxon_p: signed-rank test; missing: pairs left out. Both tests are two-sided.
    """

    n: int
    difference: float
    std: float
    low: float
    high: float
    t: float
    p: float
    wilcoxon_p: float
    missing: int


@dataclass(frozen=True)
class RankSum:
    """Rank comparison of two unpaired groups.

    u: Mann-Whitney U of the first group; p: two-sided; effect: u / (n_first * n_second), the
    probability that a value of the first group exceeds one of the second, ties counted half;
    missing: NaN values left out of both groups together.
    """

    n_first: int
    n_second: int
    u: float
    p: float
    effect: float
    missing: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two quantities pair by pair; a pair with a value that is not finite is missing.

    Without a pair every number except n and missing is NaN; with a single pair every number that
    needs a spread is NaN. When all differences are equal, t = difference / 0 does not exist, so t
    and p are NaN and the interval is a point: no spread in a few seeds does not prove certainty.

    Raises:
        ValueError: The lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need equal lengths, not {len(first)} and {len(second)}")
    pairs = np.stack([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    complete = pairs[:, np.isfinite(pairs).all(axis=0)]
    differences, rounding = complete[0] - complete[1], ROUNDING * np.abs(complete).max(initial=0)
    spread = spread_of(differences)
    t = p = math.nan
    if spread.std > rounding:  # False for NaN
        t = spread.mean / spread.std * math.sqrt(spread.n)
        p = 2 * float(stdtr(spread.n - 1, -abs(t)))
    return Paired(
        n=spread.n,
        difference=spread.mean,
        std=spread.std,
        low=spread.low,
        high=spread.high,
        t=t,
        p=p,
        wilcoxon_p=_signed_rank_p(differences, rounding),
        missing=len(first) - spread.n,
    )


def _signed_rank_p(differences: NDArray[np.float64], rounding: float) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test without zeros; NaN if none remain.

    Exact up to 50 differences without ties and 13 with them, else the normal approximation. It
    cannot be below 2 / 2**n: 1/16 for five seeds.
    """
    different = differences[np.abs(differences) > rounding]
    if len(different) == 0:
        return math.nan
    # Whole multiples of the rounding error keep the tie between 0.3 - 0.1 and 0.4 - 0.2.
    return float(wilcoxon(np.round(different / rounding)).pvalue)


def rank_sum(first: Sequence[float], second: Sequence[float]) -> RankSum:
    """Return the two-sided Mann-Whitney U test; u, p and effect are NaN if a group is empty.

    Exact if there are no ties and one group has at most eight values, else the normal
    approximation with continuity correction.
    """
    groups = [np.asarray(values, dtype=float) for values in (first, second)]
    x, y = (group[~np.isnan(group)] for group in groups)
    missing = len(first) + len(second) - len(x) - len(y)
    if not len(x) or not len(y):
        return RankSum(len(x), len(y), math.nan, math.nan, math.nan, missing)
    test = mannwhitneyu(x, y, alternative="two-sided")
    u = float(test.statistic)
    return RankSum(len(x), len(y), u, float(test.pvalue), u / (len(x) * len(y)), missing)
