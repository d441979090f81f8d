"""Matrices (rows: models such as ftwb2-13, columns: the seven tasks) and what follows from them.

Pure functions; a missing cell is NaN and stays NaN in everything that depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from worldrep.names import FINETUNINGS, TASK_NAMES, has_warmup_rows

COLUMNS = pd.Index(TASK_NAMES, name="task")


def to_matrix(
    cells: pd.DataFrame, fts: Sequence[str], seed: int, column: str = "normalised"
) -> pd.DataFrame:
    """One seed's matrix of a column of the cells, its rows in the order of `fts`."""
    own = cells[(cells["seed"] == seed) & cells["ft"].isin(fts)]
    matrix = own.pivot(index="ft", columns="task", values=column)
    return matrix.reindex(index=pd.Index(fts, name="model"), columns=COLUMNS).astype(float)


def trained_mask(fts: Sequence[str]) -> pd.DataFrame:
    """Which cells are of tasks that the row's model was fine-tuned on."""
    rows = [[task in FINETUNINGS[ft] for task in TASK_NAMES] for ft in fts]
    return pd.DataFrame(rows, index=pd.Index(fts, name="model"), columns=COLUMNS)


def specialists_of(tasks: Sequence[str], ft: str) -> tuple[str, ...]:
    """The single-task fine-tunings of these tasks, with warm-up rows if `ft` has them."""
    family = "ftwb1" if has_warmup_rows(ft) else "ft1"
    return tuple(f"{family}-{TASK_NAMES.index(task) + 1}" for task in tasks)


def expected_matrix(fts: Sequence[str], specialists: pd.DataFrame) -> pd.DataFrame:
    """What is expected of multi-task models: the best of the specialists of their tasks.

    specialists: normalised matrix of the same seed's single-task models. A cell is NaN if one of
    them is missing, as the best of the others might be too low.
    """
    rows = [
        specialists.reindex(specialists_of(FINETUNINGS[ft], ft)).max(skipna=False) for ft in fts
    ]
    matrix = pd.DataFrame(rows, index=pd.Index(fts, name="model"))
    return matrix.reindex(columns=COLUMNS)


@dataclass(frozen=True)
class Aggregate:
    """Several seeds' matrices in one, cell by cell.

    mean: over the seeds that have the cell; spread: standard deviation (ddof=0) over them, NaN
    for fewer than two; n: how many they are. Where not every cell is a mean over seeds, full says
    how many each would have if nothing were missing, and over what they are, in words.
    """

    mean: pd.DataFrame
    spread: pd.DataFrame
    n: pd.DataFrame
    n_seeds: int
    full: pd.DataFrame | None = None
    over: str = ""

    @property
    def partial(self) -> int:
        """How many cells lack some of the seeds, but not all."""
        full = self.n_seeds if self.full is None else self.full
        return int(((self.n > 0) & (self.n < full)).to_numpy().sum())

    @property
    def in_words(self) -> str:
        """What it is the mean over, such as `the 3 seeds`."""
        return self.over or f"the {self.n_seeds} seeds"


def aggregate(matrices: Sequence[pd.DataFrame]) -> Aggregate:
    """The mean of the seeds' matrices with its spread; all have the same rows."""
    first = matrices[0]
    stack = np.stack([matrix.loc[first.index, first.columns] for matrix in matrices])
    present = ~np.isnan(stack)
    n = present.sum(axis=0)
    total = np.where(present, stack, 0).sum(axis=0)
    mean = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    squares = np.where(present, stack - mean, 0) ** 2
    variance = np.divide(squares.sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 1)

    def framed(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=first.index, columns=first.columns)

    return Aggregate(framed(mean), framed(np.sqrt(variance)), framed(n), len(matrices))


Summary = dict[str, float | int | None]
Masks = dict[str, np.ndarray]  # which cells of a matrix are of a kind


def trained_masks(matrix: pd.DataFrame) -> Masks:
    """The trained, the transfer and all cells of a matrix of fine-tuned models."""
    trained = trained_mask(list(matrix.index)).to_numpy()
    return {"trained": trained, "transfer": ~trained, "all": np.ones_like(trained)}


def diagonal_masks(matrix: pd.DataFrame) -> Masks:
    """The cells of a task with itself and with another one, of a matrix between tasks."""
    same = np.equal.outer(matrix.index.to_numpy(), matrix.columns.to_numpy())
    return {"same task": same, "different tasks": ~same, "all": np.ones_like(same)}


def summaries(matrix: pd.DataFrame, masks: Masks) -> dict[str, Summary]:
    """Mean and standard deviation (ddof=0) of some groups of cells.

    n counts the cells that are there, missing those that are not; without any, mean is None.
    """
    values = matrix.to_numpy(dtype=float)
    return {kind: summary(values[mask]) for kind, mask in masks.items()}


def summary(values: np.ndarray) -> Summary:
    """The same of values (n,), NaN where they are missing."""
    there = values[~np.isnan(values)]
    mean, std = (float(there.mean()), float(there.std())) if len(there) else (None, None)
    return {"mean": mean, "std": std, "n": len(there), "missing": len(values) - len(there)}


def in_words(summary: Summary) -> str:
    """One group of cells of `summaries` as text."""
    mean, std = summary["mean"], summary["std"]
    numbers = "none" if mean is None else f"mean {mean:.2f}, standard deviation {std:.2f}"
    return f"{numbers} (n = {summary['n']}, missing: {summary['missing']})"
