"""Rules that predict a multi-task model from the single-task specialists of its tasks.

A model fine-tuned on the tasks S and tested on task t is predicted from its specialists' normalised
improvements on t, v_s for s in S. Six rules are plain formulas; two have one coefficient, fitted on
the other models of the same seed. A prediction with a missing specialist is NaN.
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
    """Input of a rule for one model with k tasks, for all seven tested tasks at once.

    v: (k, 7), normalised improvements of the specialists of its tasks; similarity: (k, 7), of
    trained to tested tasks.
    """

    v: Floats
    similarity: Floats


Formula = Callable[[Row], Floats]


def _maximum(row: Row) -> Floats:
    return row.v.max(axis=0)


def _mean(row: Row) -> Floats:
    return row.v.mean(axis=0)


def _geometric_mean(row: Row) -> Floats:
    """Return exp(mean(ln v_s)); 0, its limit, where any v_s is 0 or below."""
    positive = row.v.min(axis=0) > 0
    return np.where(positive, np.exp(np.log(np.where(positive, row.v, 1)).mean(axis=0)), 0)


def _harmonic_mean(row: Row) -> Floats:
    """Return k / sum(1 / v_s); 0, its limit, where any v_s is 0 or below."""
    positive = row.v.min(axis=0) > 0
    safe = np.where(positive, row.v, 1)
    lowest = safe.min(axis=0)  # the unit, so that a tiny value does not overflow
    return np.where(positive, lowest / (lowest / safe).mean(axis=0), 0)


def _similarity_weighted_mean(row: Row) -> Floats:
    """Return sum w_s v_s with w_s proportional to similarity(s, t); equal weights if all are 0."""
    total = row.similarity.sum(axis=0)
    equal = np.full_like(row.v, 1 / len(row.v))
    weights = np.divide(row.similarity, total, out=equal, where=total > 0)
    return (weights * row.v).sum(axis=0)


@dataclass(frozen=True)
class Predictor:
    """Prediction = fixed + coefficient * fitted, with a least-squares coefficient."""

    description: str
    fixed: Formula
    fitted: Formula | None = None


PREDICTORS: dict[str, Predictor] = {
    "maximum": Predictor("The best specialist decides.", _maximum),
    "mean": Predictor("All specialists count the same.", _mean),
    "minimum": Predictor("The worst specialist decides.", lambda row: row.v.min(axis=0)),
    "geometric_mean": Predictor(
        "Specialists multiply: a low one pulls down, a 0 gives 0.", _geometric_mean
    ),
    "harmonic_mean": Predictor(
        "A low specialist pulls down further still, and a 0 gives 0.", _harmonic_mean
    ),
    "similarity_weighted_mean": Predictor(
        "Specialists count by how alike their task and the tested one are (correlation of the two "
        "tasks' specialists over the seven tasks, negative ones as 0).",
        _similarity_weighted_mean,
    ),
    "maximum_with_decay": Predictor(
        "The best specialist times alpha, fitted on the seed's other models.",
        lambda row: np.zeros_like(row.v[0]),
        _maximum,
    ),
    "mean_with_interference": Predictor(
        "The mean plus beta times (maximum - minimum), beta fitted on the seed's other models.",
        _mean,
        lambda row: np.ptp(row.v, axis=0),
    ),
}


class Prediction(NamedTuple):
    """One seed's predictions in the shape of the actual matrix.

    coefficient: fitted on all rows, for reporting; NaN without one, and with nothing to fit on.
    """

    values: pd.DataFrame
    coefficient: float


def predict(name: str, specialists: pd.DataFrame, actual: pd.DataFrame) -> Prediction:
    """Predict the rows of one seed; a fitted rule predicts each row from the other rows.

    Args:
        name: Key of PREDICTORS.
        specialists: Normalised, rows ftwb1-1..7 (ft1-1..7 for ft rows), columns the seven tasks.
        actual: Normalised, rows such as ftwb2-13; its values matter to fitted rules only.

    Returns:
        NaN where a specialist is missing or where the other rows leave nothing to fit on.

    Raises:
        InputError: The predictor or a model is unknown.
    """
    if name not in PREDICTORS:
        raise unknown("predictor", name, PREDICTORS)
    rule, rows, coefficient = PREDICTORS[name], _rows(specialists, list(actual.index)), math.nan
    predicted = _evaluate(rule.fixed, rows)
    if rule.fitted:
        term, rest = _evaluate(rule.fitted, rows), values_of(actual) - predicted
        coefficient = _least_squares(rest, term)
        others = [np.arange(len(rows)) != i for i in range(len(rows))]
        own = [_least_squares(rest[keep], term[keep]) for keep in others]
        predicted = predicted + np.reshape(own, (-1, 1)) * term
    values = pd.DataFrame(predicted, index=actual.index, columns=COLUMNS)
    return Prediction(values.reindex(columns=actual.columns), coefficient)


def _evaluate(formula: Formula, rows: Sequence[Row]) -> Floats:
    """Return a formula's values (rows, 7), NaN where a specialist is missing."""
    # Not every formula propagates NaN (a weight may be 0).
    cells = [np.where(np.isnan(row.v).any(axis=0), np.nan, formula(row)) for row in rows]
    return np.reshape(cells, (-1, len(COLUMNS)))


def _rows(specialists: pd.DataFrame, fts: Sequence[str]) -> list[Row]:
    for ft in fts:
        if ft not in FINETUNINGS:
            raise unknown("model row", ft, FINETUNINGS)
    families: dict[bool, Row] = {}
    for ft in fts:
        profiles = values_of(specialists.reindex(specialists_of(TASK_NAMES, ft)))
        families.setdefault(has_warmup_rows(ft), Row(profiles, similarities(profiles)))
    trained = [[TASK_NAMES.index(task) for task in FINETUNINGS[ft]] for ft in fts]
    return [
        Row(*(table[own] for table in families[has_warmup_rows(ft)]))
        for ft, own in zip(fts, trained, strict=True)
    ]


def similarities(profiles: Floats) -> Floats:
    """Return how alike the tasks are by their specialists alone: (7, 7), from 0 to 1.

    profiles: (7, 7), row s = the normalised improvements of the specialist of task s. The
    similarity of two tasks is the Pearson correlation of their rows over the tested tasks that
    both have; 0 if it is negative or undefined (fewer than three such tasks, or a constant row).
    A task is similar to itself by 1.
    """
    correlation = pd.DataFrame(profiles).T.corr(min_periods=FEWEST_FOR_R).to_numpy(copy=True)
    similarity = np.nan_to_num(correlation).clip(0, 1)
    np.fill_diagonal(similarity, 1)
    return similarity


def values_of(matrix: pd.DataFrame) -> Floats:
    """Return a matrix as numbers (rows, 7), the tasks in order."""
    return matrix.reindex(columns=COLUMNS).to_numpy(dtype=float)


def _least_squares(target: Floats, term: Floats) -> float:
    """Return the c that minimises the sum of (target - c * term)^2, over cells that have both."""
    known = ~np.isnan(target) & ~np.isnan(term)
    y, x = target[known], term[known]
    square = float(x @ x)
    return float(x @ y) / square if square > 0 else math.nan
