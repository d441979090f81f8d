"""Normalised improvement: how far fine-tuning carried a model from its base's Atlantis value.

0 is what the base scores on Atlantis, 1 is what the same base scores on ordinary cities.
"""

from __future__ import annotations

import math

LOWEST, HIGHEST = 0.0, 1.5  # where figures and their statistics cut off


def normalized_improvement(
    value: float, atlantis: float, standard: float, accuracy: bool, clip: bool = True
) -> float:
    """Where `value` lies between the base's Atlantis value (0) and its standard value (1).

    value: the fine-tuned model's Atlantis value; accuracy: higher is better, on a linear scale;
    otherwise an error, on a logarithmic one. NaN when one of the three is not a finite number.
    """
    if not all(math.isfinite(number) for number in (value, atlantis, standard)):
        return math.nan
    of_kind = _of_accuracy if accuracy else _of_error
    improvement = of_kind(value, atlantis, standard)
    return min(max(improvement, LOWEST), HIGHEST) if clip else improvement


def _of_accuracy(value: float, atlantis: float, standard: float) -> float:
    if standard <= atlantis:  # nothing that could be gained
        return 0.0
    return (value - atlantis) / (standard - atlantis)


def _of_error(value: float, atlantis: float, standard: float) -> float:
    if standard < atlantis and min(value, atlantis, standard) > 0:
        return math.log(atlantis / value) / math.log(atlantis / standard)
    # No logarithm exists, or there is nothing to gain.
    if value >= atlantis:
        return 0.0
    if value <= standard:
        return 1.0
    return (atlantis - value) / (atlantis - standard)
