"""Spread over seeds, paired tests and rank tests, and the number of seeds that a test takes."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, ncfdtr, stdtr, stdtrit
from scipy.stats import mannwhitneyu, wilcoxon

from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import spread_of

LEVEL, POWER = 0.05, 0.8
MOST_SEEDS = 10_000
ROUNDING = 1e-12  # differences below this share of the largest value count as equal
SPREAD = ["mean", "std", "low", "high", "n"]
COMPARISON_COLUMNS = [
    "quantity", "first", "second", "difference", "std", "low", "high", "n", "missing", "t", "p",
    "p_holm", "tests", "wilcoxon_p", "detectable", "seeds_needed", "parts", "seeds",
]  # fmt: skip


def over_seeds(table: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Average a column over the rows of each seed, then over seeds, for each group of `keys`.

    The models of one seed share a base and count as one value. Returns the keys; SPREAD over seeds
    (std with ddof=1, low and high of Student's 95% interval); parts, the values of the seeds;
    seeds, their names; rows and missing (NaN), which count rows.
    """
    by_seed = table.groupby([*keys, "seed"], sort=False, observed=True)[column].mean()
    found = []
    for _, own in by_seed.groupby([*keys], sort=False, observed=True):
        own = own.dropna().sort_index(level="seed")
        seeds = " ".join(map(str, own.index.get_level_values("seed")))
        found.append(asdict(spread_of(own.to_numpy())) | {"parts": tuple(own), "seeds": seeds})
    counts = table.groupby([*keys], sort=False, observed=True)[column].agg(["size", "count"])
    spread = pd.DataFrame(found, columns=[*SPREAD, "parts", "seeds"])
    rows, known = counts["size"].to_numpy(), counts["count"].to_numpy()
    return counts.reset_index()[[*keys]].join(spread).assign(rows=rows, missing=rows - known)


def nested(table: pd.DataFrame, keys: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
    """Nest the rows of a table by the values of `keys`, with the numbers in the columns `kept`."""
    facts: dict[str, Any] = {}
    for row in table.to_dict("records"):
        place = facts
        for key in keys:
            place = place.setdefault(str(row[key]), {})
        place.update({name: row[name] for name in kept})
    return facts


def paired(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Compare two quantities pair by pair; a pair with a value that is not finite is missing.

    Returns the mean difference first - second over n complete pairs, its std (ddof=1), Student's
    95% interval, two-sided tests, and how many pairs are missing. Statistics that need more pairs
    are NaN. If all differences are equal, the standard deviation is 0, so t and p are NaN.
    Raises ValueError if the lengths differ.
    """
    x, y = (np.asarray(values, dtype=float) for values in (first, second))
    if len(x) != len(y):
        raise ValueError(f"pairs need equal lengths, not {len(x)} and {len(y)}")
    complete = np.isfinite(x) & np.isfinite(y)
    differences = (x - y)[complete]
    rounding = ROUNDING * np.abs([x[complete], y[complete]]).max(initial=0)
    spread = spread_of(differences)
    t = p = math.nan
    if spread.std > rounding:  # False for NaN
        t = spread.mean / spread.std * math.sqrt(spread.n)
        p = 2 * float(stdtr(spread.n - 1, -abs(t)))
    return {
        "n": spread.n, "difference": spread.mean, "std": spread.std, "low": spread.low,
        "high": spread.high, "t": t, "p": p, "wilcoxon_p": _signed_rank_p(differences, rounding),
        "missing": len(x) - spread.n,
    }  # fmt: skip


def _signed_rank_p(differences: NDArray[np.float64], rounding: float) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test. Zeros are dropped; NaN if all are.

    Exact up to 50 differences without ties and 13 with them, else the normal approximation. The
    smallest exact p value is 2 / 2**n for n differences: 1/16 for five.
    """
    different = differences[np.abs(differences) > rounding]
    if len(different) == 0:
        return math.nan
    # Round the differences so that 0.3 - 0.1 and 0.4 - 0.2 count as tied.
    return float(wilcoxon(np.round(different / rounding)).pvalue)


def rank_sum(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Return the two-sided Mann-Whitney U test; u, p and effect are NaN if a group is empty.

    effect: u / (n_first * n_second), the probability that a value of the first group exceeds one of
    the second, ties counted half; missing: NaN values of both groups.

    Exact if there are no ties and one group has at most eight values, else the normal
    approximation with continuity correction.
    """
    x, y = (pd.Series(values, dtype=float).dropna() for values in (first, second))
    n, missing = len(x) * len(y), len(first) + len(second) - len(x) - len(y)
    u, p = mannwhitneyu(x, y) if n else (math.nan, math.nan)
    facts = {"n_first": len(x), "n_second": len(y), "missing": missing, "u": u, "p": p}
    return facts | {"effect": u / n if n else math.nan}


def comparisons(
    series: pd.DataFrame, pairs: Iterable[tuple[str, str]], quantities: Sequence[str], wanted: float
) -> pd.DataFrame:
    """Compare models pair by pair, each seed with the same seed, with COMPARISON_COLUMNS.

    series: values by model and quantity (index) and seed (columns), NaN is missing; pairs: names of
    the first and second model; wanted: true difference for which `seeds_needed` is computed.

    difference: mean of first - second over the seeds that both have; missing: seeds that one of
    them lacks; p_holm: p of the paired t test corrected for the `tests` of that quantity;
    detectable: smallest true difference that a t test over n seeds detects with power 0.8;
    seeds_needed: seeds that detect the wanted difference, NaN for quantities with a unit. Both
    assume that the sample standard deviation is the true one, and are NaN where it is 0.
    """
    values = dict(zip(series.index, series.to_numpy(dtype=float), strict=True))
    pairs, rows = list(pairs), []
    for quantity in quantities:
        own = [
            {"quantity": quantity, "first": first, "second": second}
            | _compare(values[first, quantity], values[second, quantity], series.columns)
            for first, second in pairs
            if (first, quantity) in values and (second, quantity) in values
        ]
        corrected = holm([row["p"] for row in own])
        tests = len(own) - sum(map(math.isnan, corrected))
        for row, p in zip(own, corrected, strict=True):
            std = math.nan if math.isnan(row["t"]) else row["std"]
            row |= {"detectable": detectable_difference(std, row["n"]), "p_holm": p, "tests": tests}
            row["seeds_needed"] = seeds_needed(std, wanted) if is_share(quantity) else None
        rows += own
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS).astype({"seeds_needed": float})


def _compare(
    first: NDArray[np.float64], second: NDArray[np.float64], seeds: pd.Index
) -> dict[str, Any]:
    either = ~(np.isnan(first) & np.isnan(second))
    both = ~np.isnan(first - second)
    return paired(first[either], second[either]) | {
        "parts": tuple((first - second)[both].tolist()),
        "seeds": " ".join(map(str, seeds[both])),
    }


def is_share(quantity: str) -> bool:
    """Return whether a quantity is an improvement or a share, not an error with a unit."""
    kind, task, *fact = quantity.split("/")
    return kind == "improvement" or fact == ["valid_ratio"] or TASKS[task].accuracy


def seeds_needed(std_of_difference: float, difference: float) -> int | None:
    """Return the fewest seeds (2 or more) at which a paired t test detects this difference.

    Detected: the two-sided test at LEVEL rejects with probability POWER. The standard deviation is
    that of the paired differences. None if the difference is 0, for NaN, or above MOST_SEEDS.
    """
    if math.isnan(std_of_difference) or math.isnan(difference) or difference == 0:
        return None
    if std_of_difference == 0:
        return 2
    effect = difference / std_of_difference
    counts = range(MOST_SEEDS + 1)  # power grows with the count
    found = bisect_left(counts, True, lo=2, key=lambda n: _power(effect, n) >= POWER)
    return found if found <= MOST_SEEDS else None


@lru_cache(maxsize=256)
def _detectable_effect(n: int) -> float:
    """Return the detectable difference in standard deviations."""
    if n < 2:
        return math.nan
    largest = 1.0
    while _power(largest, n) < POWER:
        largest *= 2
    return float(brentq(lambda effect: _power(effect, n) - POWER, 0.0, largest))


def detectable_difference(std: float, n: int) -> float:
    """Return the smallest difference that a paired t test over n seeds detects (`seeds_needed`).

    std: standard deviation of the paired differences; the result has its unit. NaN if std is NaN
    or n < 2.
    """
    return std * _detectable_effect(n)


def _power(effect: float, n: int) -> float:
    """Return the probability that a paired t test over n seeds rejects.

    effect: mean difference in standard deviations. t^2 has the noncentral F distribution with 1 and
    n-1 degrees of freedom and noncentrality n * effect^2, which covers both tails.
    """
    critical = stdtrit(n - 1, 1 - LEVEL / 2)
    missed = float(ncfdtr(1, n - 1, effect**2 * n, critical**2))
    # NaN occurs only with noncentralities above 38 and 5 seeds or more, where nothing is missed.
    return 1.0 if math.isnan(missed) else 1.0 - missed


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, in the same order: Holm 1979 (Scand. J. Statist. 6).

    This bounds the probability of any false rejection whatever the dependence between the tests.
    NaN stays NaN and does not count as a test. Raises ValueError for a value outside 0..1.
    """
    p = pd.Series(p_values, dtype=float)
    if not p.dropna().between(0, 1).all():
        raise ValueError("p values are chances from 0 to 1")
    steps = p.sort_values(kind="stable").dropna()
    steps *= np.arange(len(steps), 0, -1)
    return steps.cummax().clip(upper=1).reindex(p.index).tolist()


def spread_bounds(n: int) -> tuple[float, float]:
    """Return the 95% interval of a true standard deviation relative to that seen in n >= 2 values.

    sqrt((n-1) / chi2) at the two ends, for normally distributed values.
    """
    low, high = (float(np.sqrt((n - 1) / chdtri(n - 1, p))) for p in (LEVEL / 2, 1 - LEVEL / 2))
    return low, high
