"""Time courses: at which step of training something has happened."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldrep.data.tasks import TASKS, ChoiceTask

# What uniform guessing among a task's answers scores: compass 1/8, inside and crossing 1/2.
CHANCE = {
    name: 1 / len(task.choices) for name, task in TASKS.items() if isinstance(task, ChoiceTask)
}


def breakout_step(
    steps: Sequence[float], values: Sequence[float], accuracy: bool, chance: float | None
) -> float:
    """The first measured step at which a task has broken out; not interpolated.

    An error has when it is at most half of its first value; an accuracy when it is at least
    half-way from `chance` to its final value, which may be so at the first step. NaN if it never
    happens, with fewer than two values, if an error starts at 0, or if an accuracy does not end
    above chance. ValueError for an accuracy without chance.
    """
    if accuracy and chance is None:
        raise ValueError("the break-out of an accuracy needs chance; CHANCE has it for each task")
    ordered, course = _course(steps, values)
    if len(course) < 2:
        return math.nan
    if accuracy:
        assert chance is not None
        broken_out = (course >= (chance + course[-1]) / 2) & (course[-1] > chance)
    else:
        broken_out = (course <= course[0] / 2) & (course[0] > 0)
    return float(ordered[broken_out.argmax()]) if broken_out.any() else math.nan


def halfway_step(steps: Sequence[float], values: Sequence[float]) -> float:
    """The step at which half of the change from the first to the last value has happened.

    The first crossing counts, linearly interpolated between measured steps. NaN with fewer than
    two values or if the last equals the first.
    """
    ordered, course = _course(steps, values)
    if len(course) < 2 or course[-1] == course[0]:
        return math.nan
    done = (course - course[0]) / (course[-1] - course[0])
    after = int((done >= 0.5).argmax())  # never the first, where 0 is done
    before = after - 1
    share = (0.5 - done[before]) / (done[after] - done[before])
    return float(ordered[before] + share * (ordered[after] - ordered[before]))


def _course(
    steps: Sequence[float], values: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps in ascending order and their values, without those that are not finite."""
    if len(steps) != len(values):
        raise ValueError(f"{len(steps)} steps for {len(values)} values")
    when, what = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    there = np.isfinite(when) & np.isfinite(what)
    when, what = when[there], what[there]
    order = when.argsort(kind="stable")
    return when[order], what[order]
