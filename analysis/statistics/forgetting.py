"""Forgetting: how a model's value on a task's standard test changed from its base model's."""

from __future__ import annotations

import math


def raw_change(after: float, before: float) -> float:
    """after - before, in the task's unit: forgotten is negative for accuracies, but positive for
    errors. NaN if one is NaN."""
    return after - before


def normalized_change(after: float, before: float, accuracy: bool) -> float:
    """The change on a scale that tasks share: negative is forgotten, positive is improved.

    before: the base model's value. NaN if one of the two is not finite.
    Accuracy: (after - before) / (1 - before), 1 when all that was lacking has been gained; from a
    perfect base after - before, as nothing was lacking. NaN outside 0..1.
    Error: ln(before / after), ln 2 when the error has been halved; 0 if both are 0. NaN if just one
    is 0 or if one is negative, for then no logarithm exists; the raw change still tells.
    """
    if not (math.isfinite(after) and math.isfinite(before)):
        return math.nan
    return _of_accuracy(after, before) if accuracy else _of_error(after, before)


def _of_accuracy(after: float, before: float) -> float:
    if not (0 <= after <= 1 and 0 <= before <= 1):
        return math.nan
    lacking = 1 - before
    return (after - before) / lacking if lacking > 0 else after - before


def _of_error(after: float, before: float) -> float:
    if after == before == 0:
        return 0.0
    if after <= 0 or before <= 0:
        return math.nan
    return math.log(before) - math.log(after)
