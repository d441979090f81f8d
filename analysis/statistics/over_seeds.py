"""Tables over seeds: the spread of each model's quantities, and models compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtri

from analysis.statistics.comparison import detectable_difference, holm, paired, seeds_needed
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import spread_of

LEVEL = 0.05
SPREAD_COLUMNS = [
    "model", "family", "quantity", "mean", "std", "low", "high", "n", "missing", "seeds", "parts",
]  # fmt: skip
COMPARISON_COLUMNS = [
    "quantity", "first", "second", "difference", "std", "low", "high", "n", "missing", "t", "p",
    "p_holm", "tests", "wilcoxon_p", "detectable", "seeds_needed", "parts", "seeds",
]  # fmt: skip


def spreads(values: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Mean, std (ddof=1) and Student's 95% interval over seeds of each model's quantities.

    values: model, family, seed, quantity, value; seeds: those that each should have, so that
    missing counts the others. parts: the values themselves, in the order of the column seeds.
    """
    rows = []
    for (model, family, quantity), own in values.groupby(
        ["model", "family", "quantity"], sort=False
    ):
        own = own.sort_values("seed")
        spread = asdict(spread_of(own["value"].tolist()))
        names = {"model": model, "family": family, "quantity": quantity}
        of_seeds = {"seeds": " ".join(map(str, own["seed"])), "parts": tuple(own["value"])}
        rows.append(names | spread | of_seeds | {"missing": len(seeds) - len(own)})
    return pd.DataFrame(rows, columns=SPREAD_COLUMNS)


Series = Mapping[tuple[str, str], Mapping[int, float]]  # (model, quantity) -> seed -> value


def comparisons(
    series: Series, pairs: Iterable[tuple[str, str]], quantities: Sequence[str], difference: float
) -> pd.DataFrame:
    """Models compared pair by pair, seed with the same seed: COMPARISON_COLUMNS.

    difference: mean of first - second over the seeds that both have; missing: seeds that only one
    has; p_holm: p of the paired t test, corrected for the tests of the same quantity (their number
    is `tests`); detectable: the smallest true difference that a t test over n seeds would detect
    with power 0.8; seeds_needed: how many seeds would detect `difference`, of quantities that are
    shares or improvements (a difference of 0.05 says nothing of an error in degrees). Both take the
    standard deviation of the n differences for the true one; they are missing where it is 0.
    """
    pairs = list(pairs)
    rows = []
    for quantity in quantities:
        own = [
            _compare(series[first, quantity], series[second, quantity], quantity, difference)
            | {"first": first, "second": second}
            for first, second in pairs
            if (first, quantity) in series and (second, quantity) in series
        ]
        corrected = holm([row["p"] for row in own])
        tests = sum(not math.isnan(p) for p in corrected)
        rows += [row | {"p_holm": p, "tests": tests} for row, p in zip(own, corrected, strict=True)]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def _compare(
    first: Mapping[int, float], second: Mapping[int, float], quantity: str, difference: float
) -> dict[str, Any]:
    seeds = sorted({*first, *second})
    both = [seed for seed in seeds if seed in first and seed in second]
    values = [[own.get(seed, math.nan) for seed in seeds] for own in (first, second)]
    found = asdict(paired(*values))
    varied = found["n"] > 1 and not math.isnan(found["t"])
    std = found["std"] if varied else math.nan
    needed = seeds_needed(std, difference) if is_share(quantity) else None
    return found | {
        "quantity": quantity,
        "detectable": std * _detectable(found["n"]) if varied else math.nan,
        "seeds_needed": math.nan if needed is None else needed,
        "parts": tuple(first[seed] - second[seed] for seed in both),
        "seeds": " ".join(map(str, both)),
    }


@lru_cache(maxsize=256)
def _detectable(n: int) -> float:
    """In standard deviations of the differences."""
    return detectable_difference(1.0, n)


def is_share(quantity: str) -> bool:
    """Whether a quantity is an improvement or a share, not an error with a unit."""
    kind, task, *fact = quantity.split("/")
    return kind == "improvement" or fact == ["valid_ratio"] or TASKS[task].accuracy


def spread_bounds(n: int) -> tuple[float, float]:
    """95% interval of a true standard deviation, as multiples of the one seen in n values.

    sqrt((n-1) / chi2) at the two ends, for normally distributed values; n at least 2.
    """
    low, high = (float(np.sqrt((n - 1) / chdtri(n - 1, p))) for p in (LEVEL / 2, 1 - LEVEL / 2))
    return low, high
