"""Errors of the predictions of multi-task models over seeds, and which rule is best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.predictors.rules import FEWEST_FOR_R, Floats, Prediction, values_of
from analysis.statistics.matrices import trained_mask
from worldrep.digests import random_stream
from worldrep.errors import InputError

FEW_SEEDS = 5  # with fewer, all resamples of the seeds are enumerated
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
ROUNDING = 1e-12  # smaller differences are rounding errors
MEANS = ("mae", "rmse", "r", "bias", "trained_mae", "transfer_mae", "coefficient")
COLUMNS = [
    "predictor", "n_seeds", "n", "missing", "mae", "mae_low", "mae_high", "rmse", "r", "r_low",
    "r_high", "bias", "trained_mae", "transfer_mae", "coefficient", "differs_from_best",
]  # fmt: skip

Predictions = Mapping[str, Mapping[int, Prediction]]  # predictor -> seed -> prediction


@dataclass(frozen=True)
class Score:
    """Errors of predictions over the `n` cells that have both a prediction and an actual value.

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


def score(predicted: pd.DataFrame, actual: pd.DataFrame) -> Score:
    """Compare one seed's predictions with its actual matrix; both rows x seven tasks.

    Raises:
        InputError: The two do not have the same rows in the same order.
    """
    if list(predicted.index) != list(actual.index):
        raise InputError("predicted and actual matrix need the same rows in the same order")
    guess, truth = values_of(predicted), values_of(actual)
    trained = trained_mask(list(actual.index)).to_numpy(dtype=bool).reshape(guess.shape)
    error = guess - truth
    known = ~np.isnan(error)
    return Score(
        n=int(known.sum()),
        missing=int((~known).sum()),
        mae=_mean(np.abs(error[known])),
        rmse=math.sqrt(_mean(error[known] ** 2)),
        bias=_mean(error[known]),
        r=_pearson(guess[known], truth[known]),
        trained_mae=_mean(np.abs(error[known & trained])),
        transfer_mae=_mean(np.abs(error[known & ~trained])),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _pearson(x: Floats, y: Floats) -> float:
    if len(x) < FEWEST_FOR_R or min(np.ptp(x), np.ptp(y)) < ROUNDING:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def scores_over_seeds(predictions: Predictions, actual: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per predictor, the lowest mae first, with COLUMNS.

    The MEANS are over the seeds; n and missing are sums of cells. A seed in which a predictor has
    no cell to compare is left out of its means and of n_seeds; a number that one of the remaining
    seeds lacks is NaN.

    mae_low to mae_high and r_low to r_high: 95% percentile bootstrap over seeds, NaN for one seed.
    All n^n resamples are enumerated for fewer than five seeds, else RESAMPLES are drawn, the same
    for every predictor. With two or three seeds the interval is their range, which covers the true
    mean far less often than 95% of the time.

    differs_from_best: whether the same interval of the per-seed difference in mae from the first
    row excludes 0; None with fewer than two seeds in common. The first row was chosen for being
    best on these seeds, and with two or three seeds agreement in sign is enough.

    Raises:
        InputError: There are no seeds, or a predictor has other seeds than the actual matrices.
    """
    for by_seed in predictions.values():
        if not actual or set(by_seed) != set(actual):
            raise InputError(
                "specialists and actual matrices need the same seeds, at least one; they have "
                f"{sorted(by_seed)} and {sorted(actual)}"
            )
    tables = {name: _by_seed(own, actual) for name, own in predictions.items()}
    rows = [{"predictor": name} | _summary(table) for name, table in tables.items()]
    # Rounded, so that values which differ by rounding only stay in the order of PREDICTORS.
    frame = pd.DataFrame(rows).sort_values(
        "mae", kind="stable", ignore_index=True, key=lambda mae: mae.round(12)
    )
    best = tables[frame["predictor"].iloc[0]]["mae"]
    differs = [_excludes_zero(tables[name]["mae"] - best) for name in frame["predictor"]]
    return frame.assign(differs_from_best=pd.Series(differs, dtype=object))[COLUMNS]


def _by_seed(own: Mapping[int, Prediction], actual: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return one predictor's scores and coefficient, a row for each seed in order."""
    rows = [
        asdict(score(own[seed].values, actual[seed])) | {"coefficient": own[seed].coefficient}
        for seed in sorted(actual)
    ]
    return pd.DataFrame(rows, index=pd.Index(sorted(actual), name="seed"))


def _summary(table: pd.DataFrame) -> dict[str, float]:
    scored = table[table["n"] > 0]
    row: dict[str, float] = {"n_seeds": len(scored)}
    row |= {name: int(table[name].sum()) for name in ("n", "missing")}
    row |= {name: _mean(scored[name].to_numpy()) for name in MEANS}
    for name in ("mae", "r"):
        row[f"{name}_low"], row[f"{name}_high"] = _interval(scored[name].to_numpy())
    return row


def _excludes_zero(difference: pd.Series) -> bool | None:
    low, high = _interval(difference.dropna().to_numpy())
    return None if math.isnan(low) else bool(low > ROUNDING or high < -ROUNDING)


def _interval(values: Floats) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of values, one for each seed."""
    if len(values) < 2 or np.isnan(values).any():
        return math.nan, math.nan
    means = values[_resamples(len(values))].mean(axis=1)
    # Bounds are means that occur: interpolated ones would be narrower still with few seeds.
    low, high = np.percentile(means, INTERVAL, method="inverted_cdf")
    return float(low), float(high)


def _resamples(n: int) -> npt.NDArray[np.int64]:
    """Return the seeds of each resample, (resamples, n): all of them if the seeds are few."""
    if n < FEW_SEEDS:
        return np.array(list(itertools.product(range(n), repeat=n)))
    return random_stream(0, "prediction", "seeds", n).integers(n, size=(RESAMPLES, n))
