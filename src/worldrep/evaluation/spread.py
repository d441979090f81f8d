"""Mean, spread and 95% interval of a quantity over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Of n values: mean, sample standard deviation (ddof=1), and the interval of the mean.

    The interval is Student's: mean +- t(0.975, n-1) * std / sqrt(n). With one value there is no
    std and no interval: they are NaN.
    """

    mean: float
    std: float
    n: int
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of values over seeds. A value that is NaN makes all of it NaN but n."""
    found = np.asarray(values, dtype=float)
    n, mean = len(found), float(found.mean()) if len(found) else math.nan
    if n < 2:
        return Spread(mean, math.nan, n, math.nan, math.nan)
    std = float(found.std(ddof=1))
    reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Spread(mean, std, n, mean - reach, mean + reach)
