"""How far the predictions of multi-task models are off, over seeds, and which rule is best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.statistics.matrices import trained_mask
from analysis.statistics.prediction import (
    FEWEST_FOR_R,
    PREDICTORS,
    Floats,
    coefficient,
    predict,
    values_of,
)
from worldrep.digests import random_stream
from worldrep.errors import InputError

FEW_SEEDS = 5  # with fewer, all resamples of the seeds are enumerated
INTERVAL = (2.5, 97.5)
ROUNDING = 1e-12  # smaller differences are of arithmetic, not of models


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
    guess, truth = values_of(predicted), values_of(actual)
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
