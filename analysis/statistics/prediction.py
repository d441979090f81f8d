"""How well the single-task specialists predict what a multi-task model reaches.

A model fine-tuned on the tasks S and tested on task t is predicted from its specialists' normalised
improvements on t, v_s for s in S. Six predictors are plain formulas; two have one coefficient,
fitted on the other models of the same seed. A prediction with a missing specialist is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.statistics.matrices import COLUMNS, specialists_of
from worldrep.errors import unknown
from worldrep.names import FINETUNINGS, TASK_NAMES, has_warmup_rows

Floats = npt.NDArray[np.float64]

FEWEST_FOR_R = 3  # any two points lie on a line


class Row(NamedTuple):
    """What predicts one model, for all seven tested tasks at once.

    v: (k, 7), the specialists of its k tasks; similarity: (k, 7), of trained to tested tasks.
    """

    v: Floats
    similarity: Floats


def similarities(profiles: Floats) -> Floats:
    """How alike the tasks are, from their specialists alone: (7, 7), from 0 to 1.

    profiles: (7, 7), row s = the normalised improvements of the specialist of task s. The
    similarity of two tasks is the Pearson correlation of their rows, over the tested tasks that
    both have; 0 if it is negative or undefined (fewer than three such tasks, or a constant row).
    A task is similar to itself by 1.
    """
    correlation = pd.DataFrame(profiles).T.corr(min_periods=FEWEST_FOR_R).to_numpy(copy=True)
    similarity = np.nan_to_num(correlation).clip(0, 1)
    np.fill_diagonal(similarity, 1)
    return similarity


def maximum(row: Row) -> Floats:
    """max v_s."""
    return row.v.max(axis=0)


def mean(row: Row) -> Floats:
    """sum v_s / k."""
    return row.v.mean(axis=0)


def minimum(row: Row) -> Floats:
    """min v_s."""
    return row.v.min(axis=0)


def geometric_mean(row: Row) -> Floats:
    """exp(mean(ln v_s)); 0, its limit, where any v_s is 0 (or below)."""
    positive = minimum(row) > 0
    return np.where(positive, np.exp(np.log(np.where(positive, row.v, 1)).mean(axis=0)), 0)


def harmonic_mean(row: Row) -> Floats:
    """k / sum(1 / v_s); 0, its limit, where any v_s is 0 (or below)."""
    positive = minimum(row) > 0
    safe = np.where(positive, row.v, 1)
    lowest = safe.min(axis=0)
    # In units of the lowest, so that a tiny value does not overflow.
    return np.where(positive, lowest / (lowest / safe).mean(axis=0), 0)


def similarity_weighted_mean(row: Row) -> Floats:
    """sum w_s v_s, w_s = similarity(s, t) / sum of the similarities; 1 / k if all are 0."""
    total = row.similarity.sum(axis=0)
    equal = np.full_like(row.v, 1 / len(row.v))
    weights = np.divide(row.similarity, total, out=equal, where=total > 0)
    return (weights * row.v).sum(axis=0)


def spread(row: Row) -> Floats:
    """max v_s - min v_s: how much the specialists disagree.

    For two tasks mean + beta * spread is the maximum at beta = 0.5 and the minimum at -0.5.
    """
    return np.ptp(row.v, axis=0)


def nothing(row: Row) -> Floats:
    """0: the fixed part of a predictor that is all coefficient."""
    return np.zeros_like(row.v[0])


@dataclass(frozen=True)
class Predictor:
    """prediction = fixed, or fixed + coefficient * fitted with a coefficient by least squares."""

    description: str
    fixed: Callable[[Row], Floats]
    fitted: Callable[[Row], Floats] | None = None


PREDICTORS: dict[str, Predictor] = {
    "maximum": Predictor("The best specialist decides.", maximum),
    "mean": Predictor("All specialists count the same.", mean),
    "minimum": Predictor("The worst specialist decides.", minimum),
    "geometric_mean": Predictor(
        "Specialists multiply: a low one pulls down, a 0 gives 0.", geometric_mean
    ),
    "harmonic_mean": Predictor(
        "A low specialist pulls down further still, and a 0 gives 0.", harmonic_mean
    ),
    "similarity_weighted_mean": Predictor(
        "Specialists count by how alike their task and the tested one are (correlation of the two "
        "tasks' specialists over the seven tasks, negative ones as 0).",
        similarity_weighted_mean,
    ),
    "maximum_with_decay": Predictor(
        "The best specialist times alpha, fitted on the seed's other models.", nothing, maximum
    ),
    "mean_with_interference": Predictor(
        "The mean plus beta times (maximum - minimum), beta fitted on the seed's other models.",
        mean,
        spread,
    ),
}


def predict(name: str, specialists: pd.DataFrame, actual: pd.DataFrame) -> pd.DataFrame:
    """One seed's predictions, in the shape of `actual`.

    specialists: normalised, rows ftwb1-1..7 (ft1-1..7 for ft rows), columns the seven tasks;
    actual: normalised, rows such as ftwb2-13; its values matter to fitted predictors only, and
    there a row's prediction never depends on that row. NaN where one of the specialists is missing,
    or where the other rows leave nothing to fit on. Raises InputError for an unknown predictor or
    model.
    """
    fixed, fitted = _parts(name, specialists, actual)
    if fitted is not None:
        target = values_of(actual)
        others = [np.arange(len(target)) != row for row in range(len(target))]
        own = [_least_squares(target[keep] - fixed[keep], fitted[keep]) for keep in others]
        fixed = fixed + np.reshape(own, (-1, 1)) * fitted
    predicted = pd.DataFrame(fixed, index=actual.index, columns=COLUMNS)
    return predicted.reindex(columns=actual.columns)


def coefficient(name: str, specialists: pd.DataFrame, actual: pd.DataFrame) -> float:
    """A fitted predictor's coefficient on all rows of one seed, for reporting only.

    NaN for a predictor without one, and with nothing to fit on. Arguments as of `predict`.
    """
    fixed, fitted = _parts(name, specialists, actual)
    return math.nan if fitted is None else _least_squares(values_of(actual) - fixed, fitted)


def _parts(
    name: str, specialists: pd.DataFrame, actual: pd.DataFrame
) -> tuple[Floats, Floats | None]:
    """A predictor's fixed and fitted part, each (rows, 7), NaN where a specialist is missing."""
    if name not in PREDICTORS:
        raise unknown("predictor", name, PREDICTORS)
    predictor, rows = PREDICTORS[name], _rows(specialists, list(actual.index))

    def stacked(part: Callable[[Row], Floats]) -> Floats:
        # Not every formula hands a NaN on (a weight may be 0), so it is put in here for all.
        cells = [np.where(np.isnan(row.v).any(axis=0), np.nan, part(row)) for row in rows]
        return np.reshape(cells, (-1, len(COLUMNS)))

    return stacked(predictor.fixed), predictor.fitted and stacked(predictor.fitted)


def _rows(specialists: pd.DataFrame, fts: Sequence[str]) -> list[Row]:
    for ft in fts:
        if ft not in FINETUNINGS:
            raise unknown("model row", ft, FINETUNINGS)
    families = {has_warmup_rows(ft): specialists_of(TASK_NAMES, ft) for ft in fts}
    profiles = {
        family: values_of(specialists.reindex(list(names))) for family, names in families.items()
    }
    similarity = {family: similarities(values) for family, values in profiles.items()}
    trained = {ft: [TASK_NAMES.index(task) for task in FINETUNINGS[ft]] for ft in fts}
    return [
        Row(
            profiles[has_warmup_rows(ft)][trained[ft]], similarity[has_warmup_rows(ft)][trained[ft]]
        )
        for ft in fts
    ]


def values_of(matrix: pd.DataFrame) -> Floats:
    """A matrix as numbers (rows, 7), the tasks in order."""
    return matrix.reindex(columns=COLUMNS).to_numpy(dtype=float)


def _least_squares(target: Floats, term: Floats) -> float:
    """The c that minimises the sum of (target - c * term)^2 = <term, target> / <term, term>."""
    there = ~np.isnan(target) & ~np.isnan(term)
    y, x = target[there], term[there]
    square = float(x @ x)
    return float(x @ y) / square if square > 0 else math.nan
