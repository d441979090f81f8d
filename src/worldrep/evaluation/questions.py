"""Questions that users type, with names or ids of cities, such as `dist(Tokyo,c_12)=`."""

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from worldrep.data.tasks import TASKS, Task
from worldrep.data.world import World
from worldrep.errors import InputError
from worldrep.evaluation.representations import ProbeResult

NEAREST = 3  # names that an error suggests
WHERE = "where"  # begins a question about a position
_FORM = re.compile(r"(\w+)\s*\((.*)\)\s*=?", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A question about some cities of a world.

    Attributes:
        task: The task that it belongs to.
        cities: Its cities, k rows of `World.cities`.
        text: The question with ids, up to and including the equals sign.
        answer: The right answer.
    """

    task: Task
    cities: pd.DataFrame
    text: str
    answer: str

    @classmethod
    def parse(cls, typed: str, world: World) -> Self:
        """Parse `label(city,city,...)=`; label: that of the task or its name; city: name or c_ID.

        Raises:
            InputError: There is no such task or city, a city recurs, or there are too few or many.
        """
        typed = typed.strip()
        match = _FORM.fullmatch(typed)
        if match is None:
            example = next(iter(TASKS.values())).question(world.cities["city_id"][:2].tolist())
            raise InputError(f"{typed!r} is no question; a question is, for example, {example}")
        task = _task(match[1])
        places = _places(match[2], world)
        if len(set(places)) < len(places):
            raise InputError(f"{typed!r} has a city twice; the cities of a question differ")
        cities = world.cities.iloc[places]
        try:
            text = task.question(cities["city_id"].tolist())
        except ValueError as fault:
            raise InputError(f"{typed!r}: {fault}") from None
        (answer,) = task.answers(world.positions[places][None])
        return cls(task, cities, text, answer)

    def judged(self, generated: str) -> str:
        """Say how a generated answer compares with the right one."""
        score = float(self.task.scores([self.answer], [generated])[0])
        if not self.task.valid([generated])[0]:
            return f"no answer; right is {self.answer}"
        if score == (1.0 if self.task.accuracy else 0.0):
            return "right"
        error = "" if self.task.accuracy else f", off by {score:g} ({self.task.unit})"
        return f"wrong{error}; right is {self.answer}"


@dataclass(frozen=True)
class PositionQuestion:
    """`where(city)`: the position that a linear probe reads from the hidden states.

    Attributes:
        place: The row of the city in `World.cities`.
        cities: The city, one row of it.
        text: The question with the city's id.
    """

    place: int
    cities: pd.DataFrame
    text: str

    @classmethod
    def parse(cls, typed: str, world: World) -> Self:
        """Parse `where(city)`. Raises InputError if it does not name one city."""
        match = _FORM.fullmatch(typed.strip())
        places = _places(match[2], world) if match else []
        if len(places) != 1:
            raise InputError(f"{typed.strip()!r} asks for one city, as where(Tokyo)")
        cities = world.cities.iloc[places]
        return cls(places[0], cities, f"{WHERE}(c_{cities['city_id'].iloc[0]})=")

    def judged(self, probe: ProbeResult) -> tuple[str, str]:
        """Return the position that the probe predicts, and how it compares with the true one."""
        x, y = probe.predicted[self.place] / 10
        true_x, true_y = self.cities[["x", "y"]].iloc[0] / 10
        off = f"off by {probe.errors[self.place] / 10:.1f} degrees"
        fitted = ", and the probe was fitted on this city" if probe.trained[self.place] else ""
        return f"({x:.1f},{y:.1f})", f"{off}; right is ({true_x:.1f},{true_y:.1f}){fitted}"


def parse_question(typed: str, world: World) -> Question | PositionQuestion:
    """Parse a question about positions or of a task. Raises InputError if it is neither."""
    match = _FORM.fullmatch(typed.strip())
    is_position = match is not None and match[1] == WHERE
    return (PositionQuestion if is_position else Question).parse(typed, world)


def cities_in_words(cities: pd.DataFrame) -> str:
    """Return the names of cities with their ids."""
    names = zip(cities["name"], cities["city_id"], strict=True)
    return ", ".join(f"{name} (c_{city_id})" for name, city_id in names)


def _task(label: str) -> Task:
    known = {key: task for task in TASKS.values() for key in (task.label, task.name)}
    if label not in known:
        labels = ", ".join([*(task.label for task in TASKS.values()), WHERE])
        raise InputError(f"unknown task {label!r}; allowed: {labels}")
    return known[label]


def _places(typed: str, world: World) -> list[int]:
    return [_place(part.strip(), world) for part in re.split("[,;]", typed)]


def _place(typed: str, world: World) -> int:
    """Return the row of a city, by its id or its name."""
    cities = world.cities
    if found := re.fullmatch(r"c_([0-9]+)", typed):
        (places,) = np.nonzero((cities["city_id"] == found[1]).to_numpy())
        if not len(places):
            ids = sorted(cities["city_id"])
            raise InputError(
                f"there is no city {typed}; ids are c_{ids[0]} to c_{ids[-1]}, not all"
            )
        return int(places[0])
    plain = [_plain(name) for name in cities["name"]]
    places = np.flatnonzero([name == _plain(typed) for name in plain])
    if len(places) == 1:
        return int(places[0])
    if not len(places):
        nearest = difflib.get_close_matches(_plain(typed), plain, n=NEAREST, cutoff=0.0)
        names = ", ".join(dict.fromkeys(cities["name"][plain.index(name)] for name in nearest))
        raise InputError(
            f"this world has no city {typed!r}; similar names: {names}; all: worldrep ask "
            "--list-cities, with the same options"
        )
    listed = ", ".join(_described(cities.iloc[place]) for place in places)
    raise InputError(f"{len(places)} cities are called {typed!r}; name one by its id: {listed}")


def _plain(name: str) -> str:
    """Return a name without case and accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _described(city: pd.Series) -> str:
    return f"c_{city['city_id']} (longitude {city['x'] / 10}, latitude {city['y'] / 10})"
