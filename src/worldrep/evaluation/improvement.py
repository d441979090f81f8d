"""Normalised improvement of a fine-tuned model over its base, and its spread over seeds."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.special import stdtrit

from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES

LOWEST, HIGHEST = 0.0, 1.5  # bounds of clipped values


def normalized_improvement(
    value: float, atlantis: float, standard: float, accuracy: bool, clip: bool = True
) -> float:
    """Return where a value lies between its base's value on Atlantis (0) and on other cities (1).

    Accuracies are compared on a linear scale, (v - A) / (S - A), errors on a logarithmic one,
    ln(A / v) / ln(A / S). Where that is undefined: an accuracy gives 0 if S <= A; an error gives 0
    if v >= A, else 1 if v <= S, else (A - v) / (A - S).

    Args:
        value: v, the fine-tuned model's mean score on Atlantis.
        atlantis: A, the base's mean score on Atlantis.
        standard: S, the base's mean score on standard rows.
        accuracy: Whether the scores are accuracies (higher is better) rather than errors.
        clip: Whether to clip the result to [0, 1.5].

    Returns:
        NaN if one of the three scores is not finite.
    """
    if not all(math.isfinite(number) for number in (value, atlantis, standard)):
        return math.nan
    if accuracy:
        improvement = (value - atlantis) / (standard - atlantis) if standard > atlantis else 0.0
    elif standard < atlantis and min(value, atlantis, standard) > 0:
        improvement = math.log(atlantis / value) / math.log(atlantis / standard)
    elif value >= atlantis:
        improvement = 0.0
    else:
        improvement = 1.0 if value <= standard else (atlantis - value) / (atlantis - standard)
    return min(max(improvement, LOWEST), HIGHEST) if clip else improvement


def headlines(
    metrics: Mapping[str, float], base: Mapping[str, float], tasks: Collection[str]
) -> dict[str, float]:
    """Return the means of normalised improvements that sum a fine-tuned model up.

    Args:
        metrics: `<suite>/<task>/mean` of the model.
        base: The same of its base.
        tasks: The tasks of the fine-tuning.

    Returns:
        `trained` and `transfer`, means over the tasks that the model was and was not fine-tuned
        on, on Atlantis; `retention`, the mean of the same formula on standard questions over all
        tasks: 1 means that nothing was forgotten, 0 that the model does as badly as its base does
        on Atlantis. A mean over no task is left out.
    """

    def improvement(suite: str, task: str) -> float:
        return normalized_improvement(
            metrics[f"{suite}/{task}/mean"],
            base[f"atlantis/{task}/mean"],
            base[f"standard/{task}/mean"],
            TASKS[task].accuracy,
        )

    parts = {
        "trained": [improvement("atlantis", task) for task in TASK_NAMES if task in tasks],
        "transfer": [improvement("atlantis", task) for task in TASK_NAMES if task not in tasks],
        "retention": [improvement("standard", task) for task in TASK_NAMES],
    }
    return {name: fmean(values) for name, values in parts.items() if values}


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (ddof=1) and 95% interval of the mean of n values."""

    mean: float
    std: float
    n: int
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return the spread of values over seeds; a NaN makes everything but n NaN.

    The interval is Student's, mean +- t(0.975, n-1) * std / sqrt(n); it is NaN if n < 2.
    """
    found = np.asarray(values, dtype=float)
    n, mean = len(found), float(found.mean()) if len(found) else math.nan
    std = float(found.std(ddof=1)) if n > 1 else math.nan
    reach = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n) if n > 1 else math.nan
    return Spread(mean, std, n, mean - reach, mean + reach)
