"""The seven geometric tasks: how a question is written, answered and scored.

A question is `label(c_ID,c_ID,...)=`; the answer follows the equals sign. `TASKS` maps the names of
tasks to tasks, in the order of every table and figure. A new task is one more entry there, a name
in `names.TASK_NAMES` and a function in `geometry`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldrep.data import geometry
from worldrep.names import TASK_NAMES

COMPASS = ("E", "NE", "N", "NW", "W", "SW", "S", "SE")
FALSE_TRUE = ("FALSE", "TRUE")
_LENGTH, _AREA, _SHARE = "0.1 degree", "0.01 square degree", "share right"  # units of scores
_LEADING_DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True)
class Task:
    """A geometric task; the subclass says what kind of answer it has."""

    name: str  # in tables, settings and metrics
    label: str  # the text before the bracket
    sizes: tuple[int, ...]  # how many cities a question may have
    longest: int  # characters of the longest answer
    solve: Callable[[geometry.Points], NDArray]  # (n, k, 2) -> (n,) numbers or indices of choices
    unit: str  # of the scores
    semicolon: int | None = field(default=None, kw_only=True)  # index of a delimiter that is `;`

    accuracy = False  # whether a higher score is better
    balanced = False  # whether rows are drawn with every choice equally often

    def separators(self, k: int) -> tuple[str, ...]:
        """Return the k-1 delimiters between k cities.

        Raises:
            ValueError: The task has no questions of k cities.
        """
        if k not in self.sizes:
            sizes = " or ".join(map(str, self.sizes))
            raise ValueError(f"{self.name} takes {sizes} cities, not {k}")
        return tuple(";" if i == self.semicolon else "," for i in range(k - 1))

    def question(self, ids: Sequence[str]) -> str:
        """Return the text up to and including the equals sign, for city ids such as '0865'."""
        delimiters = (*self.separators(len(ids)), "")
        cities = "".join(f"c_{city}{mark}" for city, mark in zip(ids, delimiters, strict=True))
        return f"{self.label}({cities})="

    def values(self, points: ArrayLike) -> NDArray[np.int64]:
        """Return the answers (n,) for points (n, k, 2) as integers.

        Raises:
            ValueError: The points have another shape, or k is not among the sizes.
        """
        array = np.asarray(points, dtype=np.int64)
        if array.ndim != 3 or array.shape[2] != 2 or array.shape[1] not in self.sizes:
            shape = f"(n, k, 2) with k in {' or '.join(map(str, self.sizes))}"
            raise ValueError(f"{self.name} needs points of shape {shape}, not {array.shape}")
        return self.solve(array).astype(np.int64)

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        """Return the texts of integer answers (n,)."""
        raise NotImplementedError

    def answers(self, points: ArrayLike) -> list[str]:
        return self.texts(self.values(points))

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of n generated texts (after the equals sign) parse as an answer."""
        raise NotImplementedError

    def scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        """Return the scores (n,) of generated texts: absolute errors, or 1 for right, 0 for wrong.

        Args:
            expected: n correct answers.
            generated: n texts after the equals sign.

        Raises:
            ValueError: The two differ in length.
        """
        if len(expected) != len(generated):
            raise ValueError(
                f"{len(expected)} expected answers against {len(generated)} generations"
            )
        return self._scores(expected, generated)

    def _scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        raise NotImplementedError


@dataclass(frozen=True)
class NumberTask(Task):
    """A task answered by a non-negative integer and scored by its absolute error."""

    failure: float = field(kw_only=True)  # score of a text that does not begin with a digit

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        return list(map(str, values.tolist()))

    def _numbers(self, generated: Sequence[str]) -> NDArray[np.float64]:
        found = map(_LEADING_DIGITS.match, generated)
        return np.array([float(digits[0]) if digits else math.nan for digits in found])

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        return ~np.isnan(self._numbers(generated))

    def _scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        errors = np.abs(self._numbers(generated) - np.asarray(list(expected), dtype=float))
        return np.where(np.isnan(errors), self.failure, errors)


@dataclass(frozen=True)
class ChoiceTask(Task):
    """A task answered by one of a few words and scored 1 or 0; case does not matter."""

    choices: tuple[str, ...] = field(kw_only=True)
    balanced: bool = field(default=False, kw_only=True)

    accuracy = True

    def texts(self, values: NDArray[np.int64]) -> list[str]:
        return [self.choices[value] for value in values.tolist()]

    def valid(self, generated: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([text.upper() in self.choices for text in generated], dtype=bool)

    def _scores(self, expected: Sequence[str], generated: Sequence[str]) -> NDArray[np.float64]:
        pairs = zip(expected, generated, strict=True)
        return np.array([text.upper() == answer for answer, text in pairs], dtype=np.float64)


_ALL: tuple[Task, ...] = (
    NumberTask("distance", "dist", (2,), 4, geometry.distance, _LENGTH, failure=4024.92),
    NumberTask("trianglearea", "triarea", (3,), 7, geometry.triangle_area, _AREA, failure=3.24e6),
    NumberTask("angle", "angle", (3,), 3, geometry.angle, "degree", failure=180.0),
    ChoiceTask("compass", "compass", (2,), 2, geometry.sector, _SHARE, choices=COMPASS),
    ChoiceTask(
        "inside", "inside", (4, 5, 6), 5, geometry.inside_hull, _SHARE,
        choices=FALSE_TRUE, balanced=True, semicolon=0,
    ),
    NumberTask("perimeter", "perimeter", (2, 3, 4, 5), 5, geometry.perimeter, _LENGTH, failure=2e4),
    ChoiceTask(
        "crossing", "cross", (4,), 5, geometry.segments_intersect, _SHARE,
        choices=FALSE_TRUE, balanced=True, semicolon=1,
    ),
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
assert tuple(TASKS) == TASK_NAMES
