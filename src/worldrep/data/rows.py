"""Rows: questions drawn from a world, answered, and written as tokens.

The questions of held-out sets (validation and test) are distinct, and no training set has any.
"""

from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldrep.data.tasks import TASKS, Task
from worldrep.data.tokens import Tokens, encode, encode_rows, row_length
from worldrep.data.world import World
from worldrep.digests import digest, random_stream
from worldrep.errors import InputError
from worldrep.progress import Counter
from worldrep.settings import Settings

VERSION = 1  # increase it when the same settings give other rows
_CHUNK = 1 << 16  # most rows drawn at a time; this many fit the cache of a core
_MAX_FRUITLESS = 200  # draws without a new question before giving up

Cities = NDArray[np.int32]  # (n, k) indices into World.cities
Keys = NDArray[np.uint64]  # (n,) one hash per question; a collision (5e-20) only skips a row


@dataclass(frozen=True)
class RowSet:
    """The description of a set of exactly `rows` rows of one task."""

    task: str
    pool: str  # `world` (no city of Atlantis), `atlantis` (at least one) or `all` (any city)
    split: str  # `val`, `test`, or the name of a training set; each has its own random stream
    rows: int


class _Cell(NamedTuple):
    """The rows of a set with one number of cities and, in balanced tasks, one answer."""

    size: int
    answer: int | None
    rows: int


class RowMaker:
    """Draws the row sets of one world."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world = world
        self.seed = settings.world_seed
        self.held_out_rows = {"val": settings.val_rows, "test": settings.test_rows}
        self._city_tokens = np.stack([encode(f"c_{text}") for text in world.cities["city_id"]])
        self._atlantis = np.flatnonzero(world.is_atlantis).astype(np.int32)
        self._held_out_keys: dict[str, Keys] = {}
        self._digests: dict[RowSet, str] = {}

    def digest(self, rowset: RowSet) -> str:
        """Return the digest of all that determines the rows of a set."""
        if rowset not in self._digests:
            own = [VERSION, self.world.digest, self.seed, self.held_out_rows]
            self._digests[rowset] = digest([*own, *astuple(rowset)])
        return self._digests[rowset]

    def tokens(self, rowset: RowSet) -> Tokens:
        """Return the token rows (rows, length) of a set, in random order.

        Raises InputError if the world has fewer questions than the set has rows.
        """
        task = TASKS[rowset.task]
        ids = self._city_tokens
        width = row_length(task, max(task.sizes), ids)
        title = f"rows of {rowset.task} ({rowset.pool}, {rowset.split})"
        counter = Counter(title, rowset.rows, unit="row")
        drawn = self.questions(rowset, counter)
        parts = [encode_rows(task, ids, *questions, width) for questions in drawn]
        rng = random_stream(self.seed, "order", rowset.task, rowset.pool, rowset.split)
        return np.concatenate(parts)[rng.permutation(rowset.rows)]

    def questions(
        self, rowset: RowSet, counter: Counter | None = None
    ) -> list[tuple[Cities, NDArray[np.int64]]]:
        """Return cities (n, k) and integer answers (n,) for each number of cities and answer."""
        rng = random_stream(self.seed, "rows", rowset.task, rowset.pool, rowset.split)
        cells, taken = _cells(TASKS[rowset.task], rowset.rows), self._excluded(rowset)
        return [self._draw(rng, rowset, cell, taken, counter) for cell in cells]

    def _keys(self, rowset: RowSet) -> Keys:
        return np.concatenate([question_keys(cities) for cities, _ in self.questions(rowset)])

    def _excluded(self, rowset: RowSet) -> Keys:
        """Return the sorted keys of the questions that a row set must not contain."""
        task, pool = rowset.task, rowset.pool
        if rowset.split == "val":
            return np.empty(0, dtype=np.uint64)
        if rowset.split == "test":
            return np.sort(self._keys(RowSet(task, pool, "val", self.held_out_rows["val"])))
        if task not in self._held_out_keys:
            sets = [
                RowSet(task, pool, split, rows)
                for pool in ("world", "atlantis")
                for split, rows in self.held_out_rows.items()
            ]
            self._held_out_keys[task] = np.sort(np.concatenate([self._keys(s) for s in sets]))
        return self._held_out_keys[task]

    def _draw(
        self,
        rng: np.random.Generator,
        rowset: RowSet,
        cell: _Cell,
        taken: Keys,
        counter: Counter | None,
    ) -> tuple[Cities, NDArray[np.int64]]:
        """Draw exactly `cell.rows` questions (n, k), none in `taken`, and their answers (n,).

        Cells of one row set differ in size or answer, so that they never share a question.
        """
        task, missing, fruitless = TASKS[rowset.task], cell.rows, 0
        held_out = rowset.split in self.held_out_rows
        found: list[tuple[Cities, NDArray[np.int64]]] = []
        while missing:
            cities = self._sample(rng, cell, rowset.pool)
            cities = cities[~_contains(taken, question_keys(cities))]
            values = task.values(self.world.positions[cities])
            fits = np.ones(len(cities), bool) if cell.answer is None else values == cell.answer
            if held_out:
                fits &= _first_of_each(question_keys(cities))
            chosen = np.flatnonzero(fits)[:missing]
            found.append((cities[chosen], values[chosen]))
            if held_out:
                taken = np.union1d(taken, question_keys(cities[chosen]))
            missing -= len(chosen)
            if counter:
                counter.add(len(chosen))
            fruitless = 0 if len(chosen) else fruitless + 1
            if fruitless == _MAX_FRUITLESS:
                raise _too_few(task, rowset, cell, cell.rows - missing)
        cities, values = map(np.concatenate, zip(*found, strict=True))
        return cities, values

    def _sample(self, rng: np.random.Generator, cell: _Cell, pool: str) -> Cities:
        """Draw rows of distinct cities, every ordered choice of the pool equally likely.

        In the pool `atlantis` one city of Atlantis is put at a random place; the others are any.
        """
        n = min(_CHUNK, max(1024, 4 * cell.rows))
        limit = int((~self.world.is_atlantis).sum()) if pool == "world" else len(self.world.cities)
        drawn = rng.integers(0, limit, size=(n, cell.size), dtype=np.int32)
        if pool == "atlantis":
            place = rng.integers(0, cell.size, size=n)
            drawn[np.arange(n), place] = rng.choice(self._atlantis, size=n)
        ordered = np.sort(drawn, axis=1)
        return drawn[(ordered[:, 1:] != ordered[:, :-1]).all(axis=1)]


def question_keys(cities: NDArray[np.integer]) -> Keys:
    """Return a 64-bit hash (n,) of each ordered choice of cities (n, k)."""
    keys = np.full(len(cities), cities.shape[1], dtype=np.uint64)
    for column in cities.T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _contains(sorted_keys: Keys, keys: Keys) -> NDArray[np.bool_]:
    left, right = (np.searchsorted(sorted_keys, keys, side) for side in ("left", "right"))
    return left < right


def _first_of_each(keys: Keys) -> NDArray[np.bool_]:
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _cells(task: Task, rows: int) -> list[_Cell]:
    """Split rows evenly over the numbers of cities and, in balanced tasks, over the answers.

    If the size does not divide evenly, the first numbers of cities get one row (or one pair) more,
    and the odd row of a balanced set is FALSE.
    """
    answers = (0, 1) if task.balanced else (None,)
    shares, odd = divmod(rows, len(answers))
    each, more = divmod(shares, len(task.sizes))
    cells = [
        _Cell(size, answer, each + (i < more) + (odd if (i, answer) == (0, 0) else 0))
        for i, size in enumerate(task.sizes)
        for answer in answers
    ]
    return [cell for cell in cells if cell.rows]


def _too_few(task: Task, rowset: RowSet, cell: _Cell, found: int) -> InputError:
    answer = "" if cell.answer is None else f" answered {task.texts(np.array([cell.answer]))[0]}"
    return InputError(
        f"the world has too few questions for the {rowset.split} rows of {task.name} "
        f"({rowset.pool}): {cell.rows} with {cell.size} cities{answer} asked for, {found} found; "
        "take more cities, or fewer val_rows and test_rows"
    )
