"""Comparing a quantity between two groups of models, and how many seeds such a comparison needs."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ncfdtr, stdtr, stdtrit
from scipy.stats import mannwhitneyu, wilcoxon

from worldrep.evaluation.improvement import spread_of

MOST_SEEDS = 10_000
ROUNDING = 1e-12  # differences closer than this share of the largest value count as equal


@dataclass(frozen=True)
class Paired:
    """What two quantities differ by when they are paired by seed (or by cell).

    n: complete pairs; difference: mean of first - second, in the unit of the values, with its
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
    """Two unpaired groups compared by rank.

    u: Mann-Whitney U of the first group; p: two-sided; effect: u / (n_first * n_second), the chance
    that a value of the first group exceeds one of the second, ties counted half; missing: NaN
    values left out of both groups together.
    """

    n_first: int
    n_second: int
    u: float
    p: float
    effect: float
    missing: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two quantities pair by pair; pairs in which one is not finite are missing.

    What too few pairs cannot give is NaN: all but n and missing without a pair, all that needs a
    spread with one. When all differences are equal, t = difference / 0 does not exist, and t and p
    are NaN: a spread of 0 in a few seeds is no proof of certainty. The interval is then a point.
    ValueError if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need equal lengths, not {len(first)} and {len(second)}")
    pairs = np.stack([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    there = pairs[:, np.isfinite(pairs).all(axis=0)]
    differences, rounding = there[0] - there[1], ROUNDING * np.abs(there).max(initial=0)
    spread = spread_of(differences)
    t = p = math.nan
    if spread.std > rounding:  # not so for NaN
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
    """Two-sided p of Wilcoxon's signed-rank test, zeros left out; NaN if nothing else is there.

    Exact up to 50 differences without ties and 13 with them, else the normal approximation. It
    cannot be below 2 / 2**n: with five seeds never below 1/16.
    """
    different = differences[np.abs(differences) > rounding]
    if len(different) == 0:
        return math.nan
    # In whole multiples of the rounding error, 0.3 - 0.1 and 0.4 - 0.2 are the tie they should be.
    return float(wilcoxon(np.round(different / rounding)).pvalue)


def rank_sum(first: Sequence[float], second: Sequence[float]) -> RankSum:
    """Mann-Whitney U test of two groups, two-sided; u, p and effect are NaN if one is empty.

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


def seeds_needed(
    std_of_difference: float, difference: float, power: float = 0.8, level: float = 0.05
) -> int | None:
    """The fewest seeds (2 or more) at which a paired t test detects a difference of this size.

    It is detected if the two-sided test at `level` rejects with probability `power`. The standard
    deviation is that of the paired differences, in the same unit. None if the difference is 0 or
    one of the two is NaN, or if more than MOST_SEEDS are needed.
    """
    _check_chances(power, level)
    if math.isnan(std_of_difference) or math.isnan(difference) or difference == 0:
        return None
    if std_of_difference == 0:
        return 2
    effect = difference / std_of_difference

    def is_enough(n: int) -> bool:
        return bool(_power(effect, np.array(n), level) >= power)

    found = bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=is_enough)  # power grows with n
    return found if found <= MOST_SEEDS else None


def detectable_difference(std: float, n: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest difference that a paired t test over n seeds detects; see `seeds_needed`.

    std: standard deviation of the paired differences; the result has its unit. NaN if std is NaN
    or n < 2.
    """
    _check_chances(power, level)
    if math.isnan(std) or n < 2:
        return math.nan

    def surplus(effect: float) -> float:
        return float(_power(effect, np.array(n), level)) - power

    largest = 1.0
    while surplus(largest) < 0:
        largest *= 2
    return std * brentq(surplus, 0.0, largest)


def _power(effect: float, seeds: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    """Probability that a paired t test rejects, if the mean difference is `effect` deviations.

    t has the noncentral t distribution with n-1 degrees of freedom and noncentrality
    effect * sqrt(n). Its square, noncentral F, has both tails in one.
    """
    critical = stdtrit(seeds - 1, 1 - level / 2)
    missed = ncfdtr(1, seeds - 1, effect**2 * seeds, critical**2)
    # NaN comes only with noncentralities above 38 and 5 seeds or more, where nothing is missed.
    return 1 - np.nan_to_num(missed, nan=0.0)


def _check_chances(power: float, level: float) -> None:
    if not 0 < level < power < 1:
        raise ValueError(f"need 0 < level < power < 1, not level {level} and power {power}")


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the same order: Holm 1979 (Scand. J. Statist. 6).

    The k-th smallest of m becomes the largest of (m - i + 1) * p_i for i = 1..k, at most 1: to
    reject those up to a level keeps the chance of any false rejection below it, whatever the
    dependence between the tests. NaN stays NaN, and is no test. ValueError outside 0..1.
    """
    p = np.asarray(p_values, dtype=float)
    there = np.flatnonzero(~np.isnan(p))
    if ((p[there] < 0) | (p[there] > 1)).any():
        raise ValueError("p values are chances from 0 to 1")
    order = there[p[there].argsort(kind="stable")]
    corrected = np.full(len(p), math.nan)
    steps = (len(order) - np.arange(len(order))) * p[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return corrected.tolist()
