"""Predictors of multi-task models: every formula by hand, fits that never see their own row."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics import prediction
from analysis.statistics.matrices import expected_matrix
from analysis.statistics.prediction import PREDICTORS, score, similarities
from worldrep.errors import InputError
from worldrep.names import TASK_NAMES

TWO = [f"ftwb2-{k}" for k in range(1, 22)]
FITTED = ["maximum_with_decay", "mean_with_interference"]
UNFITTED = [name for name in PREDICTORS if name not in FITTED]


def predict(*arguments) -> pd.DataFrame:
    return prediction.predict(*arguments)[0]


def coefficient(*arguments) -> float:
    return prediction.predict(*arguments)[1]


def scores_over_seeds(specialists, actual) -> pd.DataFrame:
    predictions = {
        name: {
            seed: prediction.predict(name, own, actual.get(seed, own.iloc[:0]))
            for seed, own in specialists.items()
        }
        for name in PREDICTORS
    }
    return prediction.scores_over_seeds(predictions, actual)


def matrix(values, rows):
    return pd.DataFrame(np.asarray(values, dtype=float), index=rows, columns=list(TASK_NAMES))


def random_specialists(seed=0, family="ftwb1"):
    values = np.random.default_rng(seed).uniform(0, 1.5, (7, 7))
    return matrix(values, [f"{family}-{k}" for k in range(1, 8)])


def random_actual(seed=0, rows=TWO):
    return matrix(np.random.default_rng([seed, 1]).uniform(0, 1.5, (len(rows), 7)), rows)


def flat(rows, value=0.5):
    return matrix(np.full((len(rows), 7), value), rows)


def one_cell(name, first, second):
    """The prediction for ftwb2-1 (distance, trianglearea) on crossing from its two specialists."""
    specialists = random_specialists()
    specialists.loc["ftwb1-1", "crossing"] = first
    specialists.loc["ftwb1-2", "crossing"] = second
    return predict(name, specialists, flat(["ftwb2-1"])).loc["ftwb2-1", "crossing"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maximum", 0.8),
        ("mean", 0.5),
        ("minimum", 0.2),
        ("geometric_mean", 0.4),  # sqrt(0.2 * 0.8)
        ("harmonic_mean", 0.32),  # 2 / (5 + 1.25)
    ],
)
def test_plain_predictors_by_hand(name, expected):
    assert one_cell(name, 0.2, 0.8) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["geometric_mean", "harmonic_mean"])
def test_a_zero_or_less_gives_zero(name):
    assert one_cell(name, 0.0, 0.8) == 0
    assert one_cell(name, 0.0, 0.0) == 0
    assert one_cell(name, -0.1, 0.8) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("maximum", 0.8),
        ("mean", 0.5),
        ("minimum", 0.1),
        ("geometric_mean", (0.1 * 0.6 * 0.8) ** (1 / 3)),
        ("harmonic_mean", 3 / (10 + 1 / 0.6 + 1 / 0.8)),
    ],
)
def test_triples_by_hand(name, expected):
    specialists = random_specialists()
    specialists.loc[["ftwb1-1", "ftwb1-2", "ftwb1-3"], "inside"] = [0.1, 0.6, 0.8]
    predicted = predict(name, specialists, flat(["ftwb3-1"]))
    assert predicted.loc["ftwb3-1", "inside"] == pytest.approx(expected)


def weighted(similarity):
    v = np.array([[0.2] * 7, [0.8] * 7])
    return PREDICTORS["similarity_weighted_mean"].fixed(v, np.asarray(similarity, float))[0]


def test_similarity_weights_by_hand():
    assert weighted([[1.0] * 7, [0.5] * 7]) == pytest.approx((0.2 + 0.5 * 0.8) / 1.5)
    assert weighted([[0.0] * 7, [0.5] * 7]) == pytest.approx(0.8)
    assert weighted([[0.0] * 7, [0.0] * 7]) == pytest.approx(0.5)  # nothing known: equal weights


def test_similarities_by_hand():
    up, other = np.arange(7.0), np.array([0, 2, 1, 3, 4, 5, 6.0])
    gap = up.copy()
    gap[:5] = np.nan  # two tasks are too few to correlate
    result = similarities(np.array([up, 2 * up + 1, -up, np.ones(7), other, gap, up]))
    assert np.diag(result) == pytest.approx(1)
    assert result[0, 1:] == pytest.approx([1, 0, 0, 27 / 28, 0, 1])  # covariance 27, variance 28
    assert np.array_equal(result, result.T)


def test_similarity_weighted_mean_of_a_model_by_hand():
    up = np.arange(7) / 10
    profiles = [up, -up + 1, up * 2, up, up, up, up[[0, 2, 1, 3, 4, 5, 6]]]
    specialists = matrix(profiles, [f"ftwb1-{k}" for k in range(1, 8)])
    predicted = predict("similarity_weighted_mean", specialists, flat(["ftwb2-1", "ftwb2-4"]))
    # crossing's profile is the opposite of trianglearea's (similarity 0): only distance counts.
    assert predicted.loc["ftwb2-1", "crossing"] == pytest.approx(0.6)
    # crossing + distance on distance: itself with 1, crossing with 27 / 28, both are 0 there.
    assert predicted.loc["ftwb2-4", "distance"] == 0
    # On trianglearea neither is alike: equal weights of 0.2 and 0.1.
    assert predicted.loc["ftwb2-4", "trianglearea"] == pytest.approx(0.15)
    # On angle (twice distance's profile): 1 for distance (0.2), 27 / 28 for crossing (0.1).
    by_hand = (0.2 + 27 / 28 * 0.1) / (1 + 27 / 28)
    assert predicted.loc["ftwb2-4", "angle"] == pytest.approx(by_hand)


def test_fitted_predictors_by_hand():
    specialists = flat([f"ftwb1-{k}" for k in range(1, 8)])
    specialists.loc["ftwb1-1"], specialists.loc["ftwb1-2"] = 0.2, 0.6
    specialists.loc["ftwb1-3"], specialists.loc["ftwb1-4"] = 0.5, 1.0
    actual = matrix([[0.3] * 7, [0.9] * 7], ["ftwb2-1", "ftwb2-2"])
    # alpha of the other row: 0.9 / 1.0 and 0.3 / 0.6
    decay = predict("maximum_with_decay", specialists, actual)
    assert decay["angle"].tolist() == pytest.approx([0.9 * 0.6, 0.5 * 1.0])
    # beta of the other row: (0.9 - 0.75) / 0.5 = 0.3 and (0.3 - 0.4) / 0.4 = -0.25
    interference = predict("mean_with_interference", specialists, actual)
    assert interference["angle"].tolist() == pytest.approx([0.4 + 0.3 * 0.4, 0.75 - 0.25 * 0.5])
    # on both: (0.6 * 0.3 + 1.0 * 0.9) / (0.36 + 1.0)
    assert coefficient("maximum_with_decay", specialists, actual) == pytest.approx(1.08 / 1.36)


@pytest.mark.parametrize("name", FITTED)
def test_a_row_does_not_enter_its_own_prediction(name):
    specialists, actual = random_specialists(), random_actual()
    changed = actual.copy()
    changed.loc["ftwb2-5"] = 1e9
    before, after = predict(name, specialists, actual), predict(name, specialists, changed)
    assert before.loc["ftwb2-5"].equals(after.loc["ftwb2-5"])
    others = before.index != "ftwb2-5"
    assert (before[others] != after[others]).to_numpy().all()


@pytest.mark.parametrize("name", UNFITTED)
def test_unfitted_predictors_ignore_actual(name):
    specialists = random_specialists()
    one, other = (predict(name, specialists, random_actual(seed)) for seed in (1, 2))
    assert one.equals(other)
    assert math.isnan(coefficient(name, specialists, random_actual()))


@pytest.mark.parametrize(("name", "planted"), [(FITTED[0], 0.7), (FITTED[1], -0.3)])
def test_a_planted_coefficient_is_found(name, planted):
    specialists, shape = random_specialists(), flat(TWO)
    largest, smallest = (predict(end, specialists, shape) for end in ("maximum", "minimum"))
    middle = predict("mean", specialists, shape)
    actual = planted * largest if name == FITTED[0] else middle + planted * (largest - smallest)
    actual.iloc[3, 2] = np.nan
    assert coefficient(name, specialists, actual) == pytest.approx(planted)
    assert score(predict(name, specialists, actual), actual)["mae"] == pytest.approx(0, abs=1e-12)


def test_the_maximum_is_what_figures_call_expected():
    for family, rows in (("ftwb1", TWO), ("ft1", ["ft2-3", "ft3-7", "ft1-2"])):
        specialists = random_specialists(family=family)
        predicted = predict("maximum", specialists, flat(rows))
        assert np.array_equal(predicted, expected_matrix(rows, specialists))


@pytest.mark.parametrize("name", PREDICTORS)
def test_families_do_not_mix_and_orders_do_not_matter(name):
    both = pd.concat([random_specialists(1), random_specialists(2, "ft1")])
    actual = random_actual(rows=["ft2-3", "ft3-1", "ftwb3-1", "ftwb2-3"])
    predicted = predict(name, both, actual)
    assert not predicted.isna().to_numpy().any()
    swapped = predict(name, both.iloc[::-1, ::-1], actual.iloc[::-1, ::-1])
    assert list(swapped.columns) == list(TASK_NAMES)[::-1]
    assert np.allclose(swapped.iloc[::-1, ::-1], predicted)
    only_ft = predict(name, random_specialists(2, "ft1"), actual)
    assert only_ft.loc[["ftwb3-1", "ftwb2-3"]].isna().to_numpy().all()


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_missing_specialist_makes_exactly_its_cells_nan(name):
    specialists, actual = random_specialists(), random_actual()
    specialists.loc["ftwb1-1", "compass"] = np.nan
    missing = predict(name, specialists, actual).isna()
    with_distance = [row for row in TWO if row in [f"ftwb2-{k}" for k in (1, 4, 8, 13, 15, 19)]]
    assert list(missing.index[missing["compass"]]) == with_distance
    assert missing.to_numpy().sum() == len(with_distance)
    without = predict(name, specialists.drop("ftwb1-1"), actual).isna()
    assert without.loc[with_distance].to_numpy().all()


@pytest.mark.parametrize("name", FITTED)
def test_fits_ignore_missing_actual_cells_and_are_nan_without_any(name):
    specialists, actual = random_specialists(), random_actual()
    actual.loc["ftwb2-2"] = np.nan
    whole = predict(name, specialists, actual)
    assert not whole.isna().to_numpy().any()  # also of the row that has no actual value
    shorter = actual.drop("ftwb2-2")
    assert np.allclose(whole.drop("ftwb2-2"), predict(name, specialists, shorter))
    assert predict(name, specialists, actual.iloc[:1]).isna().to_numpy().all()
    assert math.isnan(coefficient(name, specialists, actual.loc[["ftwb2-2"]]))
    assert predict(name, specialists, actual.iloc[:0]).shape == (0, 7)


def test_score_by_hand():
    actual, predicted = flat(["ftwb2-1"], np.nan), flat(["ftwb2-1"])
    actual.iloc[0, :4] = [0.4, 0.7, 0.1, 0.2]
    predicted.iloc[0, :4] = [0.5, 0.4, 0.1, 0.4]  # errors 0.1, -0.3 (trained), 0, 0.2
    result = score(predicted, actual)
    assert (result["n"], result["missing"]) == (4, 3)
    assert result["mae"] == pytest.approx(0.15)
    assert result["rmse"] == pytest.approx(math.sqrt(0.14 / 4))
    assert result["bias"] == pytest.approx(0.0)
    assert result["trained_mae"] == pytest.approx(0.2)
    assert result["transfer_mae"] == pytest.approx(0.1)
    # deviations (0.05, 0.35, -0.25, -0.15) and (0.15, 0.05, -0.25, 0.05)
    assert result["r"] == pytest.approx(0.08 / math.sqrt(0.21 * 0.09))


def test_score_without_enough_cells():
    nothing = score(flat(["ftwb2-1"]), flat(["ftwb2-1"], np.nan))
    assert (nothing["n"], nothing["missing"]) == (0, 7)
    assert all(map(math.isnan, (nothing["mae"], nothing["rmse"], nothing["bias"], nothing["r"])))
    two = random_actual(rows=["ftwb2-1"])
    two.iloc[0, 2:] = np.nan
    assert math.isnan(score(random_actual(1, ["ftwb2-1"]), two)["r"])
    assert math.isnan(score(flat(TWO, 0.1), random_actual())["r"])  # no variance
    assert math.isnan(score(random_actual(1, ["ftwb2-1"]), two)["transfer_mae"])


def test_wrong_input_is_named():
    with pytest.raises(InputError, match="maximum"):
        predict("maximun", random_specialists(), random_actual())
    with pytest.raises(InputError, match="ftwb2-22"):
        predict("mean", random_specialists(), flat(["ftwb2-22"]))
    with pytest.raises(InputError, match="same rows"):
        score(flat(TWO), flat(TWO[::-1]))
    with pytest.raises(InputError, match=r"\[1\] and \[1, 2\]"):
        scores_over_seeds(over_seeds([1])[0], over_seeds([1, 2])[1])
    with pytest.raises(InputError, match="at least one"):
        scores_over_seeds({}, {})


def over_seeds(seeds):
    specialists = {seed: random_specialists(seed) for seed in seeds}
    return specialists, {seed: random_actual(seed) for seed in seeds}


def around_maximum(offsets):
    """Seeds whose models are this far below the best specialist, in every cell."""
    specialists = {seed: random_specialists(seed) for seed in offsets}
    best = {seed: predict("maximum", specialists[seed], flat(TWO)) for seed in offsets}
    return specialists, {seed: best[seed] - offset for seed, offset in offsets.items()}


def test_two_seeds_are_enumerated():
    table = scores_over_seeds(*around_maximum({1: 0.01, 2: 0.03})).set_index("predictor")
    row = table.loc["maximum"]
    # The four resamples have means 0.01, 0.02, 0.02, 0.03.
    assert [row["mae_low"], row["mae"], row["mae_high"]] == pytest.approx([0.01, 0.02, 0.03])
    assert [row["r_low"], row["r"], row["r_high"]] == pytest.approx([1, 1, 1])
    assert row["bias"] == pytest.approx(0.02)
    assert (row["n_seeds"], row["n"], row["missing"]) == (2, 2 * 21 * 7, 0)
    again = scores_over_seeds(*around_maximum({2: 0.03, 1: 0.01}))
    assert again.set_index("predictor").equals(table)


def test_four_seeds_are_enumerated():
    offsets = {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.04}
    row = scores_over_seeds(*around_maximum(offsets)).set_index("predictor").loc["maximum"]
    # The fourth seed occurs i times in a resample with binomial(4, 1/4): P(0) = 0.316,
    # P(i <= 2) = 0.949 < 0.975 <= P(i <= 3): the mean is 0.01 for each time.
    assert [row["mae_low"], row["mae_high"]] == pytest.approx([0, 0.03], abs=1e-12)


def test_one_seed_has_no_interval():
    table = scores_over_seeds(*over_seeds([3]))
    assert table[["mae_low", "mae_high", "r_low", "r_high"]].isna().to_numpy().all()
    assert list(table["differs_from_best"]) == [None] * 8
    assert not table[["mae", "rmse", "r", "bias"]].isna().to_numpy().any()


def test_means_over_seeds_ordered_by_error():
    specialists, actual = over_seeds([1, 2, 3])
    table = scores_over_seeds(specialists, actual)
    assert sorted(table["predictor"]) == sorted(PREDICTORS)
    assert table["mae"].is_monotonic_increasing
    rows = table.set_index("predictor")
    for name in PREDICTORS:
        own = [score(predict(name, specialists[s], actual[s]), actual[s]) for s in (1, 2, 3)]
        for column in ("mae", "rmse", "r", "bias", "trained_mae", "transfer_mae"):
            expected = np.mean([result[column] for result in own])
            assert rows.loc[name, column] == pytest.approx(expected)
    assert rows["coefficient"].notna().to_dict() == {name: name in FITTED for name in PREDICTORS}
    alpha = np.mean([coefficient(FITTED[0], specialists[s], actual[s]) for s in (1, 2, 3)])
    assert rows.loc[FITTED[0], "coefficient"] == pytest.approx(alpha)


def test_what_differs_from_the_best():
    table = scores_over_seeds(*around_maximum({seed: 0.0 for seed in (1, 2, 3)}))
    differs = table.set_index("predictor")["differs_from_best"]
    # alpha = 1, and beta = 1/2 for pairs, make them the maximum but for rounding.
    assert list(table["predictor"][:3]) == ["maximum", *FITTED]
    assert {name for name in PREDICTORS if not differs[name]} == {"maximum", *FITTED}
    assert all(isinstance(value, bool) for value in differs)


def test_a_seed_that_decides_otherwise_leaves_it_open():
    specialists, actual = around_maximum({1: 0.0, 2: 0.0, 3: 0.0})
    actual[3] = predict("minimum", specialists[3], flat(TWO))
    differs = scores_over_seeds(specialists, actual).set_index("predictor")["differs_from_best"]
    assert not differs["maximum"] and not differs["minimum"]


def test_missing_cells_and_seeds_are_counted():
    specialists, actual = over_seeds([1, 2])
    actual[1].iloc[0, 0] = np.nan
    actual[2].iloc[:] = np.nan
    table = scores_over_seeds(specialists, actual)
    assert set(table["n_seeds"]) == {1}
    assert set(table["missing"]) == {1 + 21 * 7}
    assert not table["mae"].isna().any()
    assert table["mae_low"].isna().all()
    actual[1].iloc[:] = np.nan
    empty = scores_over_seeds(specialists, actual)
    assert list(empty["predictor"]) == list(PREDICTORS)
    assert empty["mae"].isna().all() and set(empty["n"]) == {0}


def test_many_seeds_are_drawn_reproducibly():
    seeds = over_seeds(range(6))
    one = scores_over_seeds(*seeds)
    assert one.equals(scores_over_seeds(*seeds))
    assert (one["mae_low"] <= one["mae"]).all() and (one["mae"] <= one["mae_high"]).all()


@given(st.lists(st.floats(1e-300, 1.5), min_size=2, max_size=3))
def test_means_are_ordered(values):
    row = np.tile(np.array(values)[:, None], 7), np.eye(7)[: len(values)]
    names = ["minimum", "harmonic_mean", "geometric_mean", "mean", "maximum"]
    results = [PREDICTORS[name].fixed(*row)[0] for name in names]
    for lower, higher in zip(results, results[1:], strict=False):
        assert lower <= higher * (1 + 1e-12)
    weighted_mean = PREDICTORS["similarity_weighted_mean"].fixed(*row)
    assert (weighted_mean >= results[0] * (1 - 1e-12)).all()
    assert (weighted_mean <= results[-1] * (1 + 1e-12)).all()
