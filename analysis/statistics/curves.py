"""Curves over steps: the step of training at which something has happened."""

import math
from collections.abc import Sequence

import numpy as np

from worldrep.data.tasks import TASKS, ChoiceTask

# Score of uniform guessing among a task's answers: compass 1/8, inside and crossing 1/2.
CHANCE = {
    name: 1 / len(task.choices) for name, task in TASKS.items() if isinstance(task, ChoiceTask)
}


def breakout_step(
    steps: Sequence[float], values: Sequence[float], accuracy: bool, chance: float | None
) -> float:
    """Find the first measured step at which a task has broken out; not interpolated.

    An error has broken out when it is at most half of its first value; an accuracy when it is at
    least half-way from `chance` to its final value, which it may be at the first step. NaN if there
    is none, with fewer than two values, if an error starts at 0, or if an accuracy does not end
    above chance. Raises ValueError for an accuracy without chance.
    """
    ordered, curve = _in_order(steps, values)
    if len(curve) < 2:
        return math.nan
    if accuracy:
        if chance is None:
            raise ValueError("the break-out of an accuracy needs chance, such as in CHANCE")
        broken_out = (curve >= (chance + curve[-1]) / 2) & (curve[-1] > chance)
    else:
        broken_out = (curve <= curve[0] / 2) & (curve[0] > 0)
    return float(ordered[broken_out.argmax()]) if broken_out.any() else math.nan


def halfway_step(steps: Sequence[float], values: Sequence[float]) -> float:
    """Find the step at which half of the change from the first to the last value has happened.

    It is the first crossing, linearly interpolated between measured steps. NaN with fewer than two
    values or if the last equals the first.
    """
    ordered, curve = _in_order(steps, values)
    if len(curve) < 2 or curve[-1] == curve[0]:
        return math.nan
    done = (curve - curve[0]) / (curve[-1] - curve[0])
    after = int((done >= 0.5).argmax())  # never the first, where 0 is done
    return float(np.interp(0.5, done[after - 1 : after + 1], ordered[after - 1 : after + 1]))


def _in_order(steps: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Steps in ascending order and their values (2, n), without those that are not finite."""
    if len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps for {len(values)} values")
    curve = np.column_stack([steps, values]).astype(float)
    curve = curve[np.isfinite(curve).all(axis=1)]
    return curve[curve[:, 0].argsort(kind="stable")].T
