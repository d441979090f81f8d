"""Matrices (rows: models such as ftwb2-13, columns: the seven tasks), their means and statistics.

A missing cell is NaN, and so is everything that depends on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from worldrep.names import FINETUNINGS, TASK_NAMES, has_warmup_rows

COLUMNS = pd.Index(TASK_NAMES, name="task")


def to_matrix(
    cells: pd.DataFrame, fts: Sequence[str], seed: int, column: str = "normalised"
) -> pd.DataFrame:
    """Return one seed's matrix of a column of the cells, its rows in the order of `fts`."""
    own = cells[(cells["seed"] == seed) & cells["ft"].isin(fts)]
    matrix = own.pivot(index="ft", columns="task", values=column)
    return matrix.reindex(index=pd.Index(fts, name="model"), columns=COLUMNS).astype(float)


def trained_mask(fts: Sequence[str]) -> pd.DataFrame:
    """Return which cells are of tasks that the row's model was fine-tuned on."""
    rows = [[task in FINETUNINGS[ft] for task in TASK_NAMES] for ft in fts]
    return pd.DataFrame(rows, index=pd.Index(fts, name="model"), columns=COLUMNS)


def specialists_of(tasks: Sequence[str], ft: str) -> tuple[str, ...]:
    """Return the single-task fine-tunings of these tasks, with warm-up rows if `ft` has them."""
    family = "ftwb1" if has_warmup_rows(ft) else "ft1"
    return tuple(f"{family}-{TASK_NAMES.index(task) + 1}" for task in tasks)


def expected_matrix(fts: Sequence[str], specialists: pd.DataFrame) -> pd.DataFrame:
    """Return what is expected of multi-task models: the best specialist of their tasks.

    specialists: normalised matrix of the same seed's single-task models. A cell is NaN if one of
    them is missing, as the best of the others might be too low.
    """
    ones = (specialists.reindex(specialists_of(FINETUNINGS[ft], ft)) for ft in fts)
    rows = [matrix.max(skipna=False) for matrix in ones]
    return pd.DataFrame(rows, pd.Index(fts, name="model")).reindex(columns=COLUMNS)


@dataclass(frozen=True)
class Aggregate:
    """Mean of several seeds' matrices, cell by cell.

    mean: over the seeds that have the cell; spread: standard deviation (ddof=0) over them, NaN
    for fewer than two; n: their number. Where cells are means over something else than seeds:
    full, the number that each cell would have if nothing were missing; over, what it is in words.
    """

    mean: pd.DataFrame
    spread: pd.DataFrame
    n: pd.DataFrame
    n_seeds: int
    full: pd.DataFrame | None = None
    over: str = ""

    @property
    def partial(self) -> int:
        """Number of cells that lack some of the seeds, but not all."""
        full = self.n_seeds if self.full is None else self.full
        return int(((self.n > 0) & (self.n < full)).to_numpy().sum())


def aggregate(matrices: Sequence[pd.DataFrame]) -> Aggregate:
    """Return the mean of matrices of the same rows, with its spread."""
    seeds = pd.concat([*matrices], keys=range(len(matrices))).groupby(level=1, sort=False)
    n = seeds.count()
    return Aggregate(seeds.mean(), seeds.std(ddof=0).where(n > 1), n, len(matrices))


Summary = dict[str, float | int | None]
Masks = dict[str, np.ndarray]  # name of a group -> which cells of a matrix belong to it


def trained_masks(matrix: pd.DataFrame) -> Masks:
    """Return the trained, the transfer and all cells of a matrix of fine-tuned models."""
    trained = trained_mask(list(matrix.index)).to_numpy()
    return {"trained": trained, "transfer": ~trained, "all": np.ones_like(trained)}


def diagonal_masks(matrix: pd.DataFrame) -> Masks:
    """Return the cells of a task with itself, those of different tasks, and all cells."""
    same = np.equal.outer(matrix.index.to_numpy(), matrix.columns.to_numpy())
    return {"same task": same, "different tasks": ~same, "all": np.ones_like(same)}


def summary(values: np.ndarray) -> Summary:
    """Return mean, standard deviation (ddof=0), n and missing of values (n,); NaN is missing.

    Without any value, mean and standard deviation are None.
    """
    known = values[~np.isnan(values)]
    mean, std = (float(known.mean()), float(known.std())) if len(known) else (None, None)
    return {"mean": mean, "std": std, "n": len(known), "missing": len(values) - len(known)}
