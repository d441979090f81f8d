"""The seven geometric tasks: how a question is written, answered and scored.

A question is `name(c_ID,c_ID,...)=`; its answer follows the equals sign. `TASKS` maps task names to
tasks in the order that every table and figure keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from worldrep.data import geometry
from worldrep.names import TASK_NAMES

COMPASS = ("E", "NE", "N", "NW", "W", "SW", "S", "SE")
FALSE_TRUE = ("FALSE", "TRUE")
RIGHT = "share right"


@dataclass(frozen=True)
class Task:
    """What all tasks share.

    label: the text before the bracket; sizes: how many cities a question may name; longest: the
    characters of the longest answer; solve: points (n, k, 2) -> the answer as an integer (n,), a
    number or an index into the choices; unit: of its scores.
    """

    name: str
    label: str
    sizes: tuple[int, ...]
    longest: int
    solve: Callable[[geometry.Points], NDArray]
    unit: str

    accuracy = False
    balanced = False

    def separators(self, k: int) -> tuple[str, ...]:
        """The k-1 delimiters between k cities; the first one ends the extraction prompt."""
        if k not in self.sizes:
            raise ValueError(f"{self.name} takes {_listed(self.sizes)} cities, not {k}")
        return (",",) * (k - 1)

    def question(self, ids: Sequence[str]) -> str:
        """The text up to and including the equals sign, for city ids such as '0865'."""
        delimiters = (*self.separators(len(ids)), "")
        cities = "".join(f"c_{city}{mark}" for city, mark in zip(ids, delimiters, strict=True))
        return f"{self.label}({cities})="

    def values(self, points: ArrayLike) -> NDArray[np.int64]:
        """Answers as integers (n,) for points (n, k, 2)."""
        array = np.asarray(points, dtype=np.int64)
        if array.ndim != 3 or array.shape[2] != 2 or array.shape[1] not in self.sizes:
            raise ValueError(
                f"{self.name} needs points of shape (n, k, 2) with k in {_listed(self.sizes)}, "
                f"not {array.shape}"
            )
        return self.solve(array).astype(np.int64)

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        """Answer texts of integer answers."""
        raise NotImplementedError

    def answers(self, points: ArrayLike) -> list[str]:
        """Answer texts (n) for points (n, k, 2)."""
        return self.texts(self.values(points))

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        """Which texts after the equals sign can be parsed as an answer at all."""
        raise NotImplementedError

    def scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        """Score of each row (n,): an absolute error, or 1 for a right and 0 for a wrong answer."""
        raise NotImplementedError


@dataclass(frozen=True)
class NumberTask(Task):
    """Answered by a non-negative integer; scored by its absolute error, lower is better.

    failure: the score of a generation in which no digit follows the equals sign directly.
    """

    failure: float

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        return [str(value) for value in values.tolist()]

    def _leading_digits(self, generated: Sequence[str]) -> pd.Series:
        texts = pd.Series(list(generated), dtype=object)
        return texts.str.extract(r"^([0-9]+)", expand=False)

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        return self._leading_digits(generated).notna().to_numpy(dtype=bool)

    def scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        _check_lengths(expected, generated)
        numbers = self._leading_digits(generated).astype(float).to_numpy()
        errors = np.abs(numbers - np.asarray(list(expected), dtype=float))
        return np.where(np.isnan(errors), self.failure, errors)


@dataclass(frozen=True)
class ChoiceTask(Task):
    """Answered by one of a few words; scored 1 or 0, higher is better.

    balanced: whether rows are drawn with every choice equally often.
    """

    choices: tuple[str, ...]
    balanced: bool = False

    accuracy = True

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        return [self.choices[value] for value in values.tolist()]

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([text.upper() in self.choices for text in generated], dtype=bool)

    def scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        _check_lengths(expected, generated)
        pairs = zip(expected, generated, strict=True)
        return np.array([text.upper() == answer for answer, text in pairs], dtype=np.float64)


class InsideTask(ChoiceTask):
    """The first city is tested against the others, and a semicolon sets it apart."""

    def separators(self, k: int) -> tuple[str, ...]:
        return (";", *super().separators(k)[1:])


class CrossingTask(ChoiceTask):
    """Two segments of two cities each, with a semicolon between the segments."""

    def separators(self, k: int) -> tuple[str, ...]:
        first, _, last = super().separators(k)
        return (first, ";", last)


def _check_lengths(expected: Sequence[str], generated: Sequence[str]) -> None:
    if len(expected) != len(generated):
        raise ValueError(f"{len(expected)} expected answers against {len(generated)} generations")


def _listed(sizes: tuple[int, ...]) -> str:
    return " or ".join(map(str, sizes))


_ALL: tuple[Task, ...] = (
    NumberTask("distance", "dist", (2,), 4, geometry.distance, "0.1 degree", failure=4024.92),
    NumberTask(
        "trianglearea",
        "triarea",
        (3,),
        7,
        geometry.triangle_area,
        "0.01 square degree",
        failure=3_240_000.0,
    ),
    NumberTask("angle", "angle", (3,), 3, geometry.angle, "degree", failure=180.0),
    ChoiceTask("compass", "compass", (2,), 2, geometry.sector, RIGHT, COMPASS),
    InsideTask(
        "inside", "inside", (4, 5, 6), 5, geometry.inside_hull, RIGHT, FALSE_TRUE, balanced=True
    ),
    NumberTask(
        "perimeter",
        "perimeter",
        (2, 3, 4, 5),
        5,
        geometry.perimeter,
        "0.1 degree",
        failure=20_000.0,
    ),
    CrossingTask(
        "crossing", "cross", (4,), 5, geometry.segments_intersect, RIGHT, FALSE_TRUE, balanced=True
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
assert tuple(TASKS) == TASK_NAMES
