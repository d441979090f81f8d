"""Rules that predict a multi-task model from the single-task specialists of its tasks.

A model fine-tuned on the tasks S and tested on task t is predicted from its specialists' normalised
improvements on t, v_s for s in S. Six rules are plain formulas; two have one coefficient, fitted on
the other models of the same seed. A prediction with a missing specialist is NaN.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from analysis.statistics.matrices import COLUMNS, specialists_of, trained_mask
from worldrep.digests import random_stream
from worldrep.errors import InputError, check_name, unknown
from worldrep.names import FINETUNINGS, TASK_NAMES

FEWEST_FOR_R = 3  # any two points lie on a line
FEW_SEEDS = 5  # with fewer, all resamples of the seeds are enumerated
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
ROUNDING = 1e-12  # smaller differences are rounding errors
MEANS = ["mae", "rmse", "r", "bias", "trained_mae", "transfer_mae", "coefficient"]
SCORE_COLUMNS = [
    "predictor", "n_seeds", "n", "missing", "mae", "mae_low", "mae_high", "rmse", "r", "r_low",
    "r_high", "bias", "trained_mae", "transfer_mae", "coefficient", "differs_from_best",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
# Of one model with k tasks: its specialists' improvements v, and the similarity of trained to
# tested tasks, both (k, 7) -> the prediction (7,).
Formula = Callable[[Floats, Floats], Floats]
Prediction = tuple[pd.DataFrame, float]  # of one seed: values, fitted coefficient
Predictions = Mapping[str, Mapping[int, Prediction]]  # predictor -> seed -> prediction


def _similarity_weighted_mean(v: Floats, similarity: Floats) -> Floats:
    """Return sum w_s v_s with w_s proportional to similarity(s, t); equal weights if all are 0."""
    total = similarity.sum(axis=0)
    weights = np.divide(similarity, total, out=np.full_like(v, 1 / len(v)), where=total > 0)
    return (weights * v).sum(axis=0)


@dataclass(frozen=True)
class Predictor:
    """Prediction = fixed + coefficient * fitted, with a least-squares coefficient."""

    description: str
    fixed: Formula
    fitted: Formula | None = None


PREDICTORS: dict[str, Predictor] = {
    "maximum": Predictor("The best specialist decides.", lambda v, _: v.max(axis=0)),
    "mean": Predictor("All specialists count the same.", lambda v, _: v.mean(axis=0)),
    "minimum": Predictor("The worst specialist decides.", lambda v, _: v.min(axis=0)),
    "geometric_mean": Predictor(
        "Specialists multiply: a low one pulls down, a 0 gives 0.",
        lambda v, _: scipy.stats.gmean(v.clip(0), axis=0),
    ),
    "harmonic_mean": Predictor(
        "A low specialist pulls down further still, and a 0 gives 0.",
        lambda v, _: scipy.stats.hmean(v.clip(0), axis=0),
    ),
    "similarity_weighted_mean": Predictor(
        "Specialists count by how alike their task and the tested one are (correlation of the two "
        "tasks' specialists over the seven tasks, negative ones as 0).",
        _similarity_weighted_mean,
    ),
    "maximum_with_decay": Predictor(
        "The best specialist times alpha, fitted on the seed's other models.",
        lambda v, _: np.zeros_like(v[0]),
        lambda v, _: v.max(axis=0),
    ),
    "mean_with_interference": Predictor(
        "The mean plus beta times (maximum - minimum), beta fitted on the seed's other models.",
        lambda v, _: v.mean(axis=0),
        lambda v, _: np.ptp(v, axis=0),
    ),
}


def predict(name: str, specialists: pd.DataFrame, actual: pd.DataFrame) -> Prediction:
    """Predict the rows of one seed; a fitted rule predicts each row from the other rows.

    specialists: normalised, rows ftwb1-1..7 (ft1-1..7 for ft rows), columns the seven tasks;
    actual: normalised, rows such as ftwb2-13, its values matter to fitted rules only. Returns
    predictions in the shape of actual, NaN where a specialist is missing or the other rows leave
    nothing to fit on; and the coefficient fitted on all rows, for reporting, or NaN. Raises
    InputError if the predictor or a model is unknown.
    """
    check_name("predictor", name, PREDICTORS)
    rule, rows, coefficient = PREDICTORS[name], _rows(specialists, actual.index), math.nan
    predicted = _evaluate(rule.fixed, rows)
    if rule.fitted:
        term, rest = _evaluate(rule.fitted, rows), values_of(actual) - predicted
        coefficient = _least_squares(rest, term)
        others = ~np.eye(len(rows), dtype=bool)
        own = [_least_squares(rest[keep], term[keep]) for keep in others]
        predicted = predicted + np.reshape(own, (-1, 1)) * term
    values = pd.DataFrame(predicted, index=actual.index, columns=COLUMNS)
    return values.reindex(columns=actual.columns), coefficient


def _evaluate(formula: Formula, rows: Sequence[tuple[Floats, Floats]]) -> Floats:
    # Not every formula propagates NaN (a weight may be 0).
    cells = [np.where(np.isnan(v).any(axis=0), np.nan, formula(v, alike)) for v, alike in rows]
    return np.reshape(cells, (-1, len(COLUMNS)))


def _rows(specialists: pd.DataFrame, fts: Sequence[str]) -> list[tuple[Floats, Floats]]:
    """Return the input of a formula for each model."""
    if strange := [ft for ft in fts if ft not in FINETUNINGS]:
        raise unknown("model row", strange[0], FINETUNINGS)
    rows = []
    for ft in fts:
        profiles = values_of(specialists.reindex(specialists_of(TASK_NAMES, ft)))
        own = [TASK_NAMES.index(task) for task in FINETUNINGS[ft]]
        rows.append((profiles[own], similarities(profiles)[own]))
    return rows


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
    square = np.nansum(np.where(np.isnan(target), np.nan, term) ** 2)
    return float(np.nansum(target * term) / square) if square > 0 else math.nan


def score(predicted: pd.DataFrame, actual: pd.DataFrame) -> dict[str, float]:
    """Compare one seed's predictions with its actual matrix; both rows x seven tasks.

    n: cells that have both values; missing: the others; mae: mean absolute error; rmse: root of the
    mean squared error; bias: mean of predicted - actual; r: Pearson correlation, NaN for fewer than
    three cells or without variance; trained_mae, transfer_mae: mae of the tasks that the row's
    model was fine-tuned on, and of the others. NaN without a cell. Raises InputError if the two do
    not have the same rows in the same order.
    """
    if list(predicted.index) != list(actual.index):
        raise InputError("predicted and actual matrix need the same rows in the same order")
    trained = trained_mask(list(actual.index)).to_numpy().ravel()
    guess, truth = values_of(predicted).ravel(), values_of(actual).ravel()
    known = pd.DataFrame({"guess": guess, "truth": truth, "trained": trained}).dropna()
    error = known["guess"] - known["truth"]
    varied = len(known) >= FEWEST_FOR_R and known[["guess", "truth"]].agg(np.ptp).min() >= ROUNDING
    return {
        "n": len(known),
        "missing": len(truth) - len(known),
        "mae": error.abs().mean(),
        "rmse": math.sqrt((error**2).mean()),
        "bias": error.mean(),
        "r": known["guess"].corr(known["truth"]) if varied else math.nan,
        "trained_mae": error[known["trained"]].abs().mean(),
        "transfer_mae": error[~known["trained"]].abs().mean(),
    }


def scores_over_seeds(predictions: Predictions, actual: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per predictor, the lowest mae first, with SCORE_COLUMNS.

    MEANS are over the seeds with a cell to compare, which n_seeds counts; n and missing are sums of
    cells; a number that one of these seeds lacks is NaN. mae_low to mae_high and r_low to r_high:
    95% percentile bootstrap over seeds, NaN for one seed. All n^n resamples are enumerated for
    fewer than five seeds, else RESAMPLES are drawn, the same for every predictor. With two or three
    seeds the interval is their range, which covers the true mean far less often than 95%.

    differs_from_best: whether the same interval of the per-seed difference in mae from the first
    row, which was chosen for being best on these seeds, excludes 0; None with fewer than two seeds
    in common. Raises InputError without seeds, or if a predictor has others than `actual`.
    """
    for by_seed in predictions.values():
        if not actual or set(by_seed) != set(actual):
            raise InputError(
                "specialists and actual matrices need the same seeds, at least one; they have "
                f"{sorted(by_seed)} and {sorted(actual)}"
            )
    tables = {
        name: pd.DataFrame(
            {s: score(own[s][0], actual[s]) | {"coefficient": own[s][1]} for s in sorted(actual)}
        ).T
        for name, own in predictions.items()
    }
    rows = [{"predictor": name} | _summary(table) for name, table in tables.items()]
    # Rounded, so that values which differ by rounding only stay in the order of PREDICTORS.
    frame = pd.DataFrame(rows).sort_values(
        "mae", kind="stable", ignore_index=True, key=lambda mae: mae.round(12)
    )
    best = tables[frame["predictor"].iloc[0]]["mae"]
    differs = [_excludes_zero(tables[name]["mae"] - best) for name in frame["predictor"]]
    return frame.assign(differs_from_best=pd.Series(differs, dtype=object))[SCORE_COLUMNS]


def _summary(table: pd.DataFrame) -> dict[str, float]:
    scored = table[table["n"] > 0]
    row = table[["n", "missing"]].sum().astype(int).to_dict() | {"n_seeds": len(scored)}
    for name in ("mae", "r"):
        row[f"{name}_low"], row[f"{name}_high"] = _interval(scored[name].to_numpy())
    return row | scored[MEANS].mean(skipna=False).to_dict()


def _excludes_zero(difference: pd.Series) -> bool | None:
    low, high = _interval(difference.dropna().to_numpy())
    return None if math.isnan(low) else bool(low > ROUNDING or high < -ROUNDING)


def _interval(values: Floats) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of values, one for each seed."""
    n = len(values)
    if n < 2 or np.isnan(values).any():
        return math.nan, math.nan
    if n < FEW_SEEDS:
        resamples = np.array([*itertools.product(range(n), repeat=n)])
    else:
        resamples = random_stream(0, "prediction", "seeds", n).integers(n, size=(RESAMPLES, n))
    # Bounds are means that occur: interpolated ones would be narrower still with few seeds.
    low, high = np.percentile(values[resamples].mean(axis=1), INTERVAL, method="inverted_cdf")
    return float(low), float(high)
