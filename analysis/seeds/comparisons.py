"""Spread over seeds, models compared pair by pair, and the number of seeds that this takes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import chdtri, ncfdtr, stdtrit

from analysis.statistics.comparison import paired
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import spread_of

LEVEL, POWER = 0.05, 0.8
MOST_SEEDS = 10_000
SPREAD_COLUMNS = [
    "model", "family", "quantity", "mean", "std", "low", "high", "n", "missing", "seeds", "parts",
]  # fmt: skip
COMPARISON_COLUMNS = [
    "quantity", "first", "second", "difference", "std", "low", "high", "n", "missing", "t", "p",
    "p_holm", "tests", "wilcoxon_p", "detectable", "seeds_needed", "parts", "seeds",
]  # fmt: skip

BySeed = Mapping[int, float]
Series = Mapping[tuple[str, str], BySeed]  # (model, quantity) -> seed -> value


def spreads(values: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return the spread over seeds of each model's quantities, with SPREAD_COLUMNS.

    Args:
        values: Columns model, family, seed, quantity, value.
        seeds: Seeds that each quantity should have; `missing` counts the others.

    Returns:
        mean, std (ddof=1) and Student's 95% interval; parts: the values in the order of `seeds`.
    """
    keys = ["model", "family", "quantity"]
    rows = []
    for names, own in values.groupby(keys, sort=False):
        own = own.sort_values("seed")
        row = dict(zip(keys, names, strict=True)) | asdict(spread_of(own["value"].tolist()))
        row |= {"seeds": " ".join(map(str, own["seed"])), "parts": tuple(own["value"])}
        rows.append(row | {"missing": len(seeds) - len(own)})
    return pd.DataFrame(rows, columns=SPREAD_COLUMNS)


def comparisons(
    series: Series, pairs: Iterable[tuple[str, str]], quantities: Sequence[str], difference: float
) -> pd.DataFrame:
    """Compare models pair by pair, each seed with the same seed, with COMPARISON_COLUMNS.

    Returns:
        difference: mean of first - second over the seeds that both have; missing: seeds that one
        of them lacks; p_holm: p of the paired t test corrected for the `tests` of that quantity;
        detectable: smallest true difference that a t test over n seeds detects with power 0.8;
        seeds_needed: seeds that detect the argument `difference`, for shares and improvements only
        (0.05 says nothing about an error with a unit). Both take the standard deviation of the n
        differences as the true one and are NaN where it is 0.
    """
    pairs = list(pairs)
    rows = []
    for quantity in quantities:
        own = [
            {"first": first, "second": second}
            | _compare(series[first, quantity], series[second, quantity], quantity, difference)
            for first, second in pairs
            if (first, quantity) in series and (second, quantity) in series
        ]
        corrected = holm([row["p"] for row in own])
        tests = sum(not math.isnan(p) for p in corrected)
        rows += [row | {"p_holm": p, "tests": tests} for row, p in zip(own, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _compare(first: BySeed, second: BySeed, quantity: str, difference: float) -> dict[str, Any]:
    seeds = sorted({*first, *second})
    found = paired(*([own.get(seed, math.nan) for seed in seeds] for own in (first, second)))
    std = math.nan if math.isnan(found.t) else found.std
    needed = seeds_needed(std, difference) if is_share(quantity) else None
    both = [seed for seed in seeds if seed in first and seed in second]
    return asdict(found) | {
        "quantity": quantity,
        "detectable": detectable_difference(std, found.n),
        "seeds_needed": math.nan if needed is None else needed,
        "parts": tuple(first[seed] - second[seed] for seed in both),
        "seeds": " ".join(map(str, both)),
    }


def is_share(quantity: str) -> bool:
    """Return whether a quantity is an improvement or a share, not an error with a unit."""
    kind, task, *fact = quantity.split("/")
    return kind == "improvement" or fact == ["valid_ratio"] or TASKS[task].accuracy


def summary_of(compared: pd.DataFrame) -> dict[str, float]:
    """Count the comparisons of one quantity, and take medians of what they could detect."""
    return {
        "pairs": len(compared),
        "tests": int(compared["p"].notna().sum()),
        "below_level": int((compared["p_holm"] < LEVEL).sum()),
        "detectable_median": float(compared["detectable"].median()),
        "seeds_needed_median": float(compared["seeds_needed"].median()),
    }


def seeds_needed(std_of_difference: float, difference: float) -> int | None:
    """Return the fewest seeds (2 or more) at which a paired t test detects this difference.

    Detected: the two-sided test at LEVEL rejects with probability POWER. The standard deviation is
    that of the paired differences, in the same unit. None if the difference is 0, if either
    argument is NaN, or if more than MOST_SEEDS are needed.
    """
    if math.isnan(std_of_difference) or math.isnan(difference) or difference == 0:
        return None
    if std_of_difference == 0:
        return 2
    effect = difference / std_of_difference
    counts = range(MOST_SEEDS + 1)  # power grows with the count
    found = bisect_left(counts, True, lo=2, key=lambda n: _power(effect, n) >= POWER)
    return found if found <= MOST_SEEDS else None


def detectable_difference(std: float, n: int) -> float:
    """Return the smallest difference that a paired t test over n seeds detects (`seeds_needed`).

    std: standard deviation of the paired differences; the result has its unit. NaN if std is NaN
    or n < 2.
    """
    return std * _detectable_effect(n)


@lru_cache(maxsize=256)
def _detectable_effect(n: int) -> float:
    """Return the detectable difference in standard deviations."""
    if n < 2:
        return math.nan
    largest = 1.0
    while _power(largest, n) < POWER:
        largest *= 2
    return float(brentq(lambda effect: _power(effect, n) - POWER, 0.0, largest))


def _power(effect: float, n: int) -> float:
    """Return the probability that a paired t test over n seeds rejects.

    effect: mean difference in standard deviations. t has the noncentral t distribution with n-1
    degrees of freedom and noncentrality effect * sqrt(n); its square, noncentral F, covers both
    tails.
    """
    critical = stdtrit(n - 1, 1 - LEVEL / 2)
    missed = float(ncfdtr(1, n - 1, effect**2 * n, critical**2))
    # NaN occurs only with noncentralities above 38 and 5 seeds or more, where nothing is missed.
    return 1.0 if math.isnan(missed) else 1.0 - missed


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, in the same order: Holm 1979 (Scand. J. Statist. 6).

    The k-th smallest of m becomes the largest of (m - i + 1) * p_i for i = 1..k, at most 1, which
    bounds the probability of any false rejection whatever the dependence between the tests. NaN
    stays NaN and does not count as a test.

    Raises:
        ValueError: A value is outside 0..1.
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError("p values are chances from 0 to 1")
    order = known[p[known].argsort(kind="stable")]
    steps = (len(order) - np.arange(len(order))) * p[order]
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()


def spread_bounds(n: int) -> tuple[float, float]:
    """Return the 95% interval of a true standard deviation relative to that seen in n >= 2 values.

    sqrt((n-1) / chi2) at the two ends, for normally distributed values.
    """
    low, high = (float(np.sqrt((n - 1) / chdtri(n - 1, p))) for p in (LEVEL / 2, 1 - LEVEL / 2))
    return low, high
