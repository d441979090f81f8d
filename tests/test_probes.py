"""Probes of representations whose errors are known beforehand."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import scipy.spatial
from click.testing import CliRunner
from drawn_text import clashes
from mlflow import MlflowClient
from synthetic import part

from analysis.figures.chart import Chart
from analysis.figures.heatmap import MANY_COLUMNS
from analysis.options import Options
from analysis.probes import main, probes
from analysis.probes.charts import DISPARITY
from analysis.probes.models import (
    BASE,
    GROUPS,
    WITH,
    WITHOUT,
    comparison,
    map_limits,
    pair_masks,
    shown_models,
)
from analysis.statistics.similarity import procrustes_table
from analysis.store.extractions import parse_layer
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import FINETUNINGS
from worldrep.tracking import Store

MINI_LAYER = 2  # the default of a model of three layers


def result(layer="default", **options):
    return probes(Source(Store.connect()), Options(out="unused", **options), layer)


def moved(world, distance, turn=None):
    """Representations off which every world city is read exactly, and Atlantis `distance` away."""
    places = world.positions + np.where(world.is_atlantis[:, None], [0.6, 0.8], 0) * distance
    x, y = places.T / 1000
    table = np.stack([x, y, x * y / 10, 0.1 * np.abs(x)], axis=1)
    if turn is not None:
        table = table @ np.linalg.qr(np.random.default_rng(turn).normal(size=(4, 4)))[0]
    return table.astype("float32")


def extracted(synthetic, distances, seed=1, base=200.0, layer=MINI_LAYER, **changed):
    """A base and fine-tuned models that read Atlantis so far off; the run ids of extractions."""
    world = synthetic.world(**changed)
    trained = synthetic.trained("pt1", seed, **changed)
    table = {layer: moved(world, base)}
    found = {"none": synthetic.extract("pt1", seed, trained, table, **changed)}
    for ft, distance in distances.items():
        model = synthetic.trained(f"pt1_{ft}", seed, trained, **changed)
        table = {layer: moved(world, distance, turn=seed)}
        run = synthetic.extract(f"pt1_{ft}", seed, model, table, trained, **changed)
        found[ft] = run
    return found


def rows(found):
    return found.tables["probes"].set_index(["ft", "seed"])


# Numbers


def test_errors_are_the_distances_that_atlantis_was_moved(synthetic):
    runs = extracted(synthetic, {"ftwb1-1": 50.0, "ftwb1-2": 10.0, "ftwb2-13": 80.0, "ft3-2": 20.0})
    table = rows(result())
    errors = table["atlantis_error"].droplevel("seed")
    assert errors.to_dict() == pytest.approx(
        {"none": 200, "ft3-2": 20, "ftwb1-1": 50, "ftwb1-2": 10, "ftwb2-13": 80}, rel=0.02
    )
    assert (table["world_error"] < 0.01).all()
    assert table["fine_tuned"].droplevel("seed").to_dict() == {
        "none": BASE, "ft3-2": WITHOUT, "ftwb1-1": WITH, "ftwb1-2": WITHOUT, "ftwb2-13": WITH,
    }  # fmt: skip
    assert table["run_id"].droplevel("seed").to_dict() == runs
    world = synthetic.world()
    n = int((~world.is_atlantis).sum())
    first = table.iloc[0]
    assert first["n_fitted"] == round(0.8 * n) and first["n_baseline"] == n - first["n_fitted"]
    assert first["n_atlantis"] == world.is_atlantis.sum() and first["n_features"] == 4
    assert first["tasks"].startswith("distance,trianglearea") and first["with_distance"] is None


def test_groups_are_compared_by_rank_of_the_means_over_seeds(synthetic):
    extracted(synthetic, {"ftwb1-1": 50.0, "ftwb2-13": 80.0, "ftwb1-2": 10.0, "ftwb1-3": 60.0})
    extracted(synthetic, {"ftwb1-1": 70.0, "ftwb2-13": 90.0, "ftwb1-2": 20.0, "ftwb1-3": 40.0}, 2)
    found = result().all_statistics
    facts = found["atlantis_error"]
    each = facts["each model and seed"]
    assert "mann_whitney" not in each  # seeds of one model are not independent
    assert each[WITH]["median"] == pytest.approx(75, rel=0.02) and each[WITH]["n"] == 4
    assert each[BASE]["n"] == 2
    means = facts["each model, mean over its seeds"]
    # 60 and 85 against 15 and 50: the most extreme of the six ways to divide four models.
    assert means["mann_whitney"]["u"] == 4 and means["mann_whitney"]["n_second"] == 2
    assert means["mann_whitney"]["p"] == pytest.approx(2 / 6)
    on_world = found["world_error"]["each model, mean over its seeds"]
    assert on_world["mann_whitney"]["n_first"] == 2
    assert means[WITHOUT]["median"] == pytest.approx(32.5, rel=0.02)


def test_a_models_error_is_the_mean_of_its_seeds(synthetic):
    for seed, distance in ((1, 40.0), (2, 60.0)):
        extracted(synthetic, {"ftwb1-1": distance}, seed)
    table = part(result(), "atlantis_by_model").table.set_index("ft")
    row = table.loc["ftwb1-1"]
    assert row["atlantis_error"] == pytest.approx(50, rel=0.02)
    assert row["std"] == pytest.approx(200**0.5, rel=0.02)  # ddof=1
    assert row["high"] - row["atlantis_error"] == pytest.approx(12.706 * 10, rel=0.02)
    assert row["seeds"] == (1, 2) and row["n_seeds"] == 2
    assert list(table.index) == ["ftwb1-1", "none"]  # the smallest first


def test_the_reference_says_the_mean_position_for_every_city(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    found = result()
    world = synthetic.world()
    map_ = part(found, "position_map").table
    held_out = set(map_.loc[map_["region"] != "Atlantis", "city_id"])
    is_held_out = world.cities["city_id"].isin(held_out).to_numpy()
    middle = world.positions[~is_held_out & ~world.is_atlantis].mean(axis=0)
    expected = np.hypot(*(world.positions[world.is_atlantis] - middle).T).mean()
    assert found.all_statistics["guessed"]["atlantis_error"] == pytest.approx(expected)
    assert part(found, "atlantis_histogram").reference == pytest.approx(expected)


def test_true_and_probed_positions_are_in_degrees(synthetic):
    extracted(synthetic, {"ftwb1-1": 100.0})
    table = part(result(), "position_map").table
    atlantis = table[(table["city"] == "Atlantis") & (table["model"] == "pt1_ftwb1-1")]
    cities = synthetic.world().cities.set_index("city_id").loc[atlantis["city_id"]]
    assert atlantis["lon"].to_numpy() == pytest.approx(cities["x"].to_numpy() / 10)
    assert (atlantis["predicted_lon"] - atlantis["lon"]).mean() == pytest.approx(6, rel=0.05)
    assert (atlantis["predicted_lat"] - atlantis["lat"]).mean() == pytest.approx(8, rel=0.05)


def test_map_limits_keep_true_positions_and_stay_on_the_map():
    table = pd.DataFrame({"lon": [-35.0, 120.0], "lat": [35.0, -20.0]})
    table = table.assign(predicted_lon=[5000.0, 100.0], predicted_lat=[-4000.0, 0.0])
    (left, right), (bottom, top) = map_limits(table)
    assert left <= -35 and 120 < right < 200 and -100 < bottom <= -20 and top > 35
    assert (top - bottom) >= 0.5 * (right - left) - 1e-9


def test_predictions_outside_the_axes_are_counted(synthetic):
    extracted(synthetic, {"ftwb1-1": 10.0}, base=5000.0)
    chart = part(result(), "position_map")
    n = int(synthetic.world().is_atlantis.sum())
    assert chart.statistics["position_map"]["outside"] == n
    assert any(f"{n} of {len(chart.table)} probed positions" in note for note in chart.notes)


def test_components_are_of_all_cities(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    chart = part(result(), "pca_map")
    own = chart.table[chart.table["model"] == "pt1_ftwb1-1"]
    assert len(own) == len(synthetic.world().cities)
    assert own[["pc1", "pc2", "pc3"]].mean().to_numpy() == pytest.approx([0] * 3, abs=1e-6)
    shares = chart.statistics["pca_map"]["pt1_ftwb1-1"]
    centred = moved(synthetic.world(), 40.0).astype(float)
    centred -= centred.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False) ** 2
    assert list(shares.values()) == pytest.approx(singular[:3] / singular.sum(), rel=1e-4)
    assert list(chart.styles)[-1] == "Atlantis"


def test_procrustes_is_between_models_of_one_seed(synthetic):
    for seed in (1, 2):
        extracted(synthetic, {"ftwb1-1": 40.0, "ftwb1-2": 40.0, "ftwb2-1": 900.0}, seed, base=40.0)
    found = result()
    panel = part(found, "procrustes")
    assert list(panel.values.index) == ["pt1", "ftwb1-1", "ftwb1-2", "ftwb2-1"]
    # Turned representations have the same shape.
    assert panel.values.loc["pt1", "ftwb1-2"] == pytest.approx(0, abs=1e-6)
    tables = {
        run_id: own[["pc1", "pc2", "pc3"]].to_numpy()
        for run_id, own in part(found, "pca_map").table.groupby("model")
    }
    expected = scipy.spatial.procrustes(tables["pt1_ftwb1-1"], tables["pt1_ftwb2-1"])[2]
    assert found.tables["procrustes_seed1"].loc["ftwb1-1", "ftwb2-1"] == pytest.approx(expected)
    assert panel.statistics["procrustes"]["distance-distance"]["n"] == 1
    assert panel.statistics["procrustes"]["base"]["n"] == 3
    pairs = found.all_statistics["procrustes_pairs"]
    assert pairs["different models, same seed"]["n"] == 12
    assert pairs["same model, different seeds"]["n"] == 4
    assert pairs["same model, different seeds"]["mean"] == pytest.approx(0, abs=1e-6)


def test_the_procrustes_table_equals_scipy_pair_by_pair():
    configurations = np.random.default_rng(0).normal(size=(5, 30, 3)) * [[[3, 2, 1]]]
    table = procrustes_table(list(configurations))
    for i, j in itertools.combinations(range(5), 2):
        expected = scipy.spatial.procrustes(configurations[i], configurations[j])[2]
        assert table[i, j] == table[j, i] == pytest.approx(expected)
    assert (np.diag(table) == 0).all()


def test_pairs_are_counted_once_by_whether_distance_was_trained():
    names = ["pt1", "ftwb1-1", "ftwb2-13", "ftwb1-2", "ftwb1-3", "ftwb1-4"]
    masks = pair_masks(pd.DataFrame(np.zeros((6, 6)), index=names, columns=names))
    counts = {kind: int(mask.sum()) for kind, mask in masks.items()}
    expected = {"distance-distance": 1, "other-other": 3, "distance-other": 6, "base": 5}
    assert counts == expected | {"all": 15}
    assert set(DISPARITY.shown) == set(expected)


def test_the_best_and_the_worst_of_both_groups_are_shown_once_each():
    table = pd.DataFrame(
        {
            "run_id": list("abcdef"),
            "atlantis_error": [9.0, 5.0, 3.0, 1.0, 2.0, 4.0],
            "fine_tuned": pd.Categorical([BASE, WITH, WITH, *[WITHOUT] * 3], GROUPS.categories),
        }
    )
    assert shown_models(table) == {
        "a": "base",
        "c": "best with distance",
        "b": "worst with distance",
        "d": "best without distance",
        "f": "worst without distance",
    }
    more = pd.concat([table, table.iloc[[4]].assign(run_id="g", atlantis_error=3.5)])
    assert shown_models(more)["c"] == "best with distance"
    only = table[table["fine_tuned"] == WITHOUT]
    assert shown_models(only)["e"] == "median"


def test_a_group_that_is_empty_has_no_test():
    table = pd.DataFrame({"fine_tuned": [WITH, WITH], "atlantis_error": [1.0, 2.0]})
    facts = comparison(table, "atlantis_error")
    assert np.isnan(facts["mann_whitney"]["u"]) and facts[WITHOUT]["mean"] is None


# What must not be mixed in


def test_models_that_lack_representations_are_listed_with_their_command(synthetic):
    runs = extracted(synthetic, {"ftwb1-1": 40.0, "ftwb1-2": 20.0})
    trained = synthetic.trained("pt1", 2)
    synthetic.trained("pt1_ftwb1-1", 2, trained)
    synthetic.extract("pt1", 2, trained, {MINI_LAYER: moved(synthetic.world(), 90.0)})
    found = result()
    missing = found.missing.set_index("model")
    assert set(missing.index) == {"pt1_ftwb1-1", "pt1_ftwb1-2"} and set(missing["seed"]) == {2}
    assert missing.loc["pt1_ftwb1-1", "command"].startswith(
        "mlflow run . -e extract -P model=pt1_ftwb1-1 -P seed=2"
    )
    assert missing.loc["pt1_ftwb1-2", "command"].startswith("mlflow run . -e finetune")
    assert any("2 of 3 models" in caveat for caveat in found.caveats)
    assert "pt1_ftwb1-1 (1)" in part(found, "atlantis_by_model").notes[0]
    assert set(runs.values()) < set(found.runs_used.index) and len(found.runs_used) == 4


def test_other_worlds_widths_layers_and_unfinished_extractions_do_not_count(synthetic):
    runs = extracted(synthetic, {"ftwb1-1": 40.0})
    extracted(synthetic, {"ftwb1-1": 500.0}, world="scattered")
    extracted(synthetic, {"ftwb1-1": 500.0}, layer=1)
    model, world = synthetic.trained("pt1_ftwb1-1", 1), synthetic.world()
    table = {MINI_LAYER: moved(world, 500.0)}
    failed = synthetic.extract("pt1_ftwb1-1", 1, model, table)
    MlflowClient().set_terminated(failed, "FAILED")
    wide = synthetic.trained("pt1@wide_ftwb1-1", 1)
    synthetic.extract("pt1@wide_ftwb1-1", 1, wide, table)
    found = result()
    assert set(found.runs_used.index) == set(runs.values())
    scattered = result(world="scattered")
    assert len(scattered.runs_used) == 2 and not set(scattered.runs_used.index) & set(runs.values())


def test_representations_of_other_cities_are_left_out_and_said_to_be(synthetic):
    runs = extracted(synthetic, {"ftwb1-1": 40.0, "ftwb1-2": 20.0})
    other = synthetic.trained("pt1_ftwb1-3", 1, n_cities=30)
    table = {MINI_LAYER: moved(synthetic.world(n_cities=30), 1.0)}
    synthetic.extract("pt1_ftwb1-3", 1, other, table, n_cities=30)
    found = result()
    assert set(found.runs_used.index) == set(runs.values())
    assert found.missing["reason"].tolist() == ["extracted from other cities"]
    assert any("pt1_ftwb1-3 seed 1: left out" in caveat for caveat in found.caveats)


def test_the_newest_of_several_extractions_is_used_and_said_to_be(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    model = synthetic.trained("pt1_ftwb1-1", 1)
    table = {MINI_LAYER: moved(synthetic.world(), 70.0)}
    newest = synthetic.extract("pt1_ftwb1-1", 1, model, table)
    found = result()
    assert rows(found).loc[("ftwb1-1", 1), "atlantis_error"] == pytest.approx(70, rel=0.02)
    assert any(newest in caveat and "newest of 2" in caveat for caveat in found.caveats)


def test_a_model_of_another_base_is_named(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    other = synthetic.trained("pt1", 1)
    model = synthetic.trained("pt1_ftwb1-2", 1, other)
    table = {MINI_LAYER: moved(synthetic.world(), 70.0)}
    synthetic.extract("pt1_ftwb1-2", 1, model, table, other)
    caveats = [caveat for caveat in result().caveats if "started from base" in caveat]
    assert len(caveats) == 1 and caveats[0].startswith("pt1_ftwb1-2 seed 1") and other in caveats[0]


@pytest.mark.parametrize(
    ("fill", "reason"),
    [(np.nan, "holds NaN or infinity at layer"), (1.0, "is the same for every city at layer")],
)
def test_representations_without_cities_in_them_are_missing(synthetic, fill, reason):
    runs = extracted(synthetic, {"ftwb1-1": 40.0})
    model, world = synthetic.trained("pt1_ftwb1-2", 1), synthetic.world()
    table = {MINI_LAYER: np.full((len(world.cities), 4), fill, dtype="float32")}
    broken = synthetic.extract("pt1_ftwb1-2", 1, model, table)
    found = result()
    assert set(found.runs_used.index) == set(runs.values())
    assert found.missing["reason"].item().startswith(f"extraction {broken} {reason}")
    assert found.missing["command"].item().startswith(f"mlflow runs delete --run-id {broken}")


def test_few_cities_for_many_features_are_a_caveat(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    assert not any("least norm" in caveat for caveat in result().caveats)
    rng, world = np.random.default_rng(0), synthetic.world()
    wide = {MINI_LAYER: rng.normal(size=(len(world.cities), 60)).astype("float32")}
    model = synthetic.trained("pt1_ftwb1-2", 1)
    synthetic.extract("pt1_ftwb1-2", 1, model, wide)
    found = result()
    assert any("60 features" in caveat and "least norm" in caveat for caveat in found.caveats)
    assert rows(found).loc[("ftwb1-2", 1), "fitted_error"] < 1e-6


def test_one_seed_has_no_spread_and_says_so(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0, "ftwb1-2": 20.0})
    found = result()
    assert any(caveat.startswith("one seed only (1)") for caveat in found.caveats)
    assert list(found.all_statistics["atlantis_error"]) == ["each model and seed"]
    assert part(found, "atlantis_by_model").table["low"].isna().all()


def test_seeds_and_layers_can_be_chosen(synthetic):
    extracted(synthetic, {"ftwb1-1": 40.0})
    extracted(synthetic, {"ftwb1-1": 60.0}, 2)
    extracted(synthetic, {"ftwb1-1": 90.0}, 2, layer=1)
    found = result(seeds=(2,))
    assert list(found.seeds) == [2] and set(found.tables["probes"]["seed"]) == {2}
    other = result("1")
    assert rows(other)["atlantis_error"][("ftwb1-1", 2)] == pytest.approx(90, rel=0.02)
    assert list(other.seeds) == [2] and set(other.tables["probes"]["layer"]) == {1}
    with_absent = result(seeds=(1, 7))
    assert "seed 7 has no representations" in with_absent.caveats
    assert set(with_absent.missing["seed"]) == {7}


def test_a_base_alone_is_drawn_without_a_comparison(synthetic):
    extracted(synthetic, {})
    found = result()
    assert {part.name for part in found.parts} == {
        "atlantis_histogram", "probe_errors", "atlantis_by_model", "position_map", "pca_map",
    }  # fmt: skip
    assert "no test" in part(found, "atlantis_histogram").notes[0]


# Bad input


def test_an_empty_store_and_other_layers_end_in_a_sentence(synthetic):
    with pytest.raises(StateError, match="has no representations of scale mini"):
        result()
    extracted(synthetic, {"ftwb1-1": 40.0})
    with pytest.raises(StateError, match="of layer 1 .*it has layers 2 of seeds 1; `-e extract"):
        result("1")
    with pytest.raises(StateError, match="for seeds 9"):
        result(seeds=(9,))


@pytest.mark.parametrize("text", ["x", "-1", "1,2", "", "1.5", "²"])
def test_a_layer_is_a_number_or_the_default(text):
    with pytest.raises(InputError, match="layer="):
        parse_layer(text)


def test_the_default_layer_has_no_number():
    assert parse_layer("default") == "default" and parse_layer("0") == 0


# The command and the figures


def test_the_command_writes_figures_tables_and_statistics(synthetic, tmp_path):
    for seed in (1, 2):
        extracted(synthetic, {"ftwb1-1": 40.0, "ftwb1-2": 20.0}, seed)
    out = tmp_path / "figures"
    ended = CliRunner().invoke(main, ["--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert "Mann-Whitney U = 1" in ended.output
    facts = json.loads((out / "statistics.json").read_text())
    assert facts["runs_used"] == 6 and facts["missing"] == 0
    means = facts["statistics"]["atlantis_error"]["each model, mean over its seeds"]
    assert means["mann_whitney"]["u"] == 1
    table = pd.read_csv(out / "probes.csv")
    assert {"model", "seed", "tasks", "with_distance", "run_id", "n_baseline"} <= set(table.columns)


def test_a_wrong_layer_is_told_before_anything_is_written(synthetic, tmp_path):
    out = tmp_path / "figures"
    ended = CliRunner().invoke(main, ["--out", str(out), "--layer", "deep", "--no-log"])
    assert ended.exit_code == 2 and "layer='deep'" in ended.output
    assert not out.exists()


@pytest.mark.parametrize("many", [False, True])
def test_no_text_is_cut_off_or_overlaps_another(synthetic, many):
    fts = [ft for ft in FINETUNINGS if ft.startswith("ftwb")][: MANY_COLUMNS + 3 if many else 6]
    for seed in (1, 2) if many else (1,):
        distances = {ft: 10.0 * (i + 1) ** (3 if many else 1) for i, ft in enumerate(fts)}
        extracted(synthetic, distances, seed)
    for drawn in result().parts:
        figure = drawn.draw("scale mini, width base, world standard, experiment worldrep; 5 runs")
        assert clashes(figure) == [], drawn.name


def test_groups_keep_their_colour_whichever_of_them_occur():
    values = pd.Categorical([WITHOUT, BASE], GROUPS.categories)
    some = Chart(name="a", title="A", table=pd.DataFrame({"group": values}), group="group")
    everything = pd.DataFrame({"group": pd.Categorical([BASE, WITHOUT, WITH], GROUPS.categories)})
    complete = Chart(name="a", title="A", table=everything, group="group")
    assert list(complete.styles) == [WITH, WITHOUT, BASE] and list(some.styles) == [WITHOUT, BASE]
    assert some.styles[BASE] == complete.styles[BASE]
