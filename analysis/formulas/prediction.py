"""How well the single-task specialists predict what a multi-task model reaches.

A model fine-tuned on the tasks S and tested on task t is predicted from its specialists' normalised
improvements on t, v_s for s in S. Six predictors are plain formulas; two have one coefficient,
fitted on the other models of the same seed. A prediction with a missing specialist is NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.formulas.matrices import COLUMNS, specialists_of, trained_mask
from worldrep.digests import random_stream
from worldrep.errors import InputError, unknown
from worldrep.names import FINETUNINGS, TASK_NAMES, has_warmup_rows

Floats = npt.NDArray[np.float64]

FEWEST_FOR_R = 3  # any two points lie on a line
FEW_SEEDS = 5  # with fewer, all resamples of the seeds are enumerated
INTERVAL = (2.5, 97.5)
ROUNDING = 1e-12  # smaller differences are of arithmetic, not of models


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
        target = _values(actual)
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
    return math.nan if fitted is None else _least_squares(_values(actual) - fixed, fitted)


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
        family: _values(specialists.reindex(list(names))) for family, names in families.items()
    }
    similarity = {family: similarities(values) for family, values in profiles.items()}
    trained = {ft: [TASK_NAMES.index(task) for task in FINETUNINGS[ft]] for ft in fts}
    return [
        Row(
            profiles[has_warmup_rows(ft)][trained[ft]], similarity[has_warmup_rows(ft)][trained[ft]]
        )
        for ft in fts
    ]


def _values(matrix: pd.DataFrame) -> Floats:
    return matrix.reindex(columns=COLUMNS).to_numpy(dtype=float)


def _least_squares(target: Floats, term: Floats) -> float:
    """The c that minimises the sum of (target - c * term)^2 = <term, target> / <term, term>."""
    there = ~np.isnan(target) & ~np.isnan(term)
    y, x = target[there], term[there]
    square = float(x @ x)
    return float(x @ y) / square if square > 0 else math.nan


@dataclass(frozen=True)
class Score:
    """How far predictions are from actual values, over the `n` cells that have both.

    missing: the other cells; mae: mean absolute error; rmse: root of the mean squared error; bias:
    mean of predicted - actual; r: Pearson correlation, NaN for fewer than three cells or without
    variance; trained_mae, transfer_mae: mae of the tasks that the row's model was fine-tuned on,
    and of the others. All in normalised improvement (no unit), NaN without a cell.
    """

    n: int
    missing: int
    mae: float
    rmse: float
    bias: float
    r: float
    trained_mae: float
    transfer_mae: float


MEASURES = ("mae", "rmse", "bias", "r", "trained_mae", "transfer_mae")


def score(predicted: pd.DataFrame, actual: pd.DataFrame) -> Score:
    """Compare one seed's predictions with its actual matrix; both rows x seven tasks.

    Raises InputError if the two do not have the same rows in the same order.
    """
    if list(predicted.index) != list(actual.index):
        raise InputError("predicted and actual matrix need the same rows in the same order")
    guess, truth = _values(predicted), _values(actual)
    trained = trained_mask(list(actual.index)).to_numpy(dtype=bool).reshape(guess.shape)
    error = guess - truth
    there = ~np.isnan(error)
    return Score(
        n=int(there.sum()),
        missing=int((~there).sum()),
        mae=_mean(np.abs(error[there])),
        rmse=math.sqrt(_mean(error[there] ** 2)),
        bias=_mean(error[there]),
        r=_pearson(guess[there], truth[there]),
        trained_mae=_mean(np.abs(error[there & trained])),
        transfer_mae=_mean(np.abs(error[there & ~trained])),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _pearson(x: Floats, y: Floats) -> float:
    if len(x) < FEWEST_FOR_R or min(np.ptp(x), np.ptp(y)) < ROUNDING:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def scores_over_seeds(
    specialists: Mapping[int, pd.DataFrame],
    actual: Mapping[int, pd.DataFrame],
    n_bootstrap: int = 2000,
    rng_seed: int = 0,
) -> pd.DataFrame:
    """All predictors over the seeds, one row each, the lowest mae first.

    specialists, actual: seed -> matrix, as of `predict`, for the same seeds.

    mae, rmse, bias, r, trained_mae, transfer_mae and coefficient are means over the seeds; n and
    missing are sums of cells. A seed in which a predictor has no cell to compare is left out of
    that predictor's means and counted by n_seeds, which is lower then; a number that one of the
    remaining seeds lacks is NaN.

    mae_low to mae_high and r_low to r_high: 95% percentile bootstrap over seeds, NaN for one seed.
    All n^n resamples are enumerated for fewer than five seeds, else `n_bootstrap` are drawn, the
    same ones for every predictor. A resample holds no more than the seeds do: with two or three
    the interval is their range, which covers the true mean far less often than 95% of the time.

    differs_from_best: whether the same interval of the per-seed difference in mae from the first
    row excludes 0; None with fewer than two seeds in common. The first row was chosen for being
    best on these seeds, and with two or three seeds agreement in sign is enough.

    Raises InputError without seeds or if the two have different ones.
    """
    if not actual or set(specialists) != set(actual):
        raise InputError(
            "specialists and actual matrices need the same seeds, at least one; they have "
            f"{sorted(specialists)} and {sorted(actual)}"
        )
    seeds = sorted(actual)
    draws = _Resamples(n_bootstrap, rng_seed)
    tables = {name: _per_seed(name, specialists, actual, seeds) for name in PREDICTORS}
    rows = [{"predictor": name} | _summary(table, draws) for name, table in tables.items()]
    # Rounded: what is equal but for arithmetic stays in the order of the registry.
    frame = pd.DataFrame(rows).sort_values(
        "mae", kind="stable", ignore_index=True, key=lambda mae: mae.round(12)
    )
    best = tables[frame["predictor"].iloc[0]]["mae"]
    differs = [_differs(tables[name]["mae"] - best, draws) for name in frame["predictor"]]
    return frame.assign(differs_from_best=pd.Series(differs, dtype=object))


def _per_seed(
    name: str,
    specialists: Mapping[int, pd.DataFrame],
    actual: Mapping[int, pd.DataFrame],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """One predictor's scores and coefficient, a row for each seed."""
    rows = [
        asdict(score(predict(name, specialists[seed], actual[seed]), actual[seed]))
        | {"coefficient": coefficient(name, specialists[seed], actual[seed])}
        for seed in seeds
    ]
    return pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))


def _summary(table: pd.DataFrame, draws: _Resamples) -> dict[str, float]:
    scored = table[table["n"] > 0]
    mean_of = {column: _mean(scored[column].to_numpy()) for column in (*MEASURES, "coefficient")}
    mae_low, mae_high = draws.interval(scored["mae"].to_numpy())
    r_low, r_high = draws.interval(scored["r"].to_numpy())
    return {
        "n_seeds": len(scored),
        "n": int(table["n"].sum()),
        "missing": int(table["missing"].sum()),
        "mae": mean_of["mae"],
        "mae_low": mae_low,
        "mae_high": mae_high,
        "rmse": mean_of["rmse"],
        "r": mean_of["r"],
        "r_low": r_low,
        "r_high": r_high,
        "bias": mean_of["bias"],
        "trained_mae": mean_of["trained_mae"],
        "transfer_mae": mean_of["transfer_mae"],
        "coefficient": mean_of["coefficient"],
    }


def _differs(difference: pd.Series, draws: _Resamples) -> bool | None:
    low, high = draws.interval(difference.dropna().to_numpy())
    return None if math.isnan(low) else bool(low > ROUNDING or high < -ROUNDING)


@dataclass(frozen=True)
class _Resamples:
    """Resamples of seeds: all of them if the seeds are few, else a fixed random choice."""

    n_bootstrap: int
    rng_seed: int

    def interval(self, values: Floats) -> tuple[float, float]:
        """95% percentile interval of the mean of `values`, one for each seed."""
        if len(values) < 2 or np.isnan(values).any():
            return math.nan, math.nan
        means = values[self._choices(len(values))].mean(axis=1)
        # Bounds are means that occur: interpolated ones would be narrower still with few seeds.
        low, high = np.percentile(means, INTERVAL, method="inverted_cdf")
        return float(low), float(high)

    def _choices(self, n: int) -> npt.NDArray[np.int64]:
        """Which seeds each resample consists of: (resamples, n)."""
        if n < FEW_SEEDS:
            return np.array(list(itertools.product(range(n), repeat=n)))
        stream = random_stream(self.rng_seed, "prediction", "seeds", n)
        return stream.integers(n, size=(self.n_bootstrap, n))
