"""CKA matrices between pretrained models, on stores whose representations are known."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from drawn_text import clashes
from drivers import invoke
from synthetic import part

from analysis.cka import cka, main
from analysis.cka.families import Likeness, chance_of, pair_table, task_permutation_test
from analysis.options import Options
from analysis.statistics.matrices import summary
from analysis.statistics.similarity import linear_cka
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, parse_model
from worldrep.tracking import Store

CITIES, ATLANTIS = 44, 12  # of scale mini


def features(*parts, cities=CITIES, atlantis=ATLANTIS) -> np.ndarray:
    """(cities + atlantis, 8): a mixture of the random features that the parts name."""
    total = sum(
        weight * np.random.default_rng(part).normal(size=(cities + atlantis, 8))
        for part, weight in parts
    )
    return total.astype(np.float32)


def table_of(task: int, seed: int) -> np.ndarray:
    return features((task, 1.0), (1000 + 10 * task + seed, 0.5))


def fill(synthetic, tasks=(1, 2), seeds=(1, 2), family="pt1", layers=(2,), **changed):
    """Extractions of some models: (task, seed) -> run id."""
    found = {}
    for task, seed in itertools.product(tasks, seeds):
        run = synthetic.trained(f"{family}-{task}", seed, **changed)
        tables = {layer: table_of(task, seed) for layer in layers}
        found[task, seed] = synthetic.extract(f"{family}-{task}", seed, run, tables, **changed)
    return found


def result(layer="default", **options):
    return cka(Source(Store.connect()), Options(out="unused", **options), layer)


def world_cka(one, other) -> float:
    """By the kernels themselves, of the world cities alone."""
    kernels = []
    for task, seed in (one, other):
        table = table_of(task, seed)[:CITIES].astype(float)
        table -= table.mean(axis=0)
        kernels.append(table @ table.T)
    k, l_ = kernels
    return float((k * l_).sum() / np.linalg.norm(k) / np.linalg.norm(l_))


# Numbers


def test_cells_are_means_over_pairs_of_seeds_of_the_world_cities(synthetic):
    fill(synthetic, tasks=(1, 2), seeds=(1, 2, 42))
    matrix = part(result(), "cka_pt1_layer2").matrix
    assert list(matrix.mean.index) == list(matrix.mean.columns) == list(TASK_NAMES)
    seeds = (1, 2, 42)
    between = [world_cka((1, s), (2, t)) for s in seeds for t in seeds]
    within = [world_cka((1, s), (1, t)) for s, t in itertools.combinations(seeds, 2)]
    for row, column in (("distance", "trianglearea"), ("trianglearea", "distance")):
        assert matrix.mean.loc[row, column] == pytest.approx(np.mean(between), abs=1e-5)
        assert matrix.spread.loc[row, column] == pytest.approx(np.std(between), abs=1e-5)
        assert matrix.n.loc[row, column] == 9
    assert matrix.mean.loc["distance", "distance"] == pytest.approx(np.mean(within), abs=1e-5)
    assert matrix.spread.loc["distance", "distance"] == pytest.approx(np.std(within), abs=1e-5)
    assert matrix.n.loc["distance", "distance"] == 3
    assert matrix.partial == 0 and matrix.mean["angle"].isna().all()


def test_what_atlantis_looks_like_does_not_matter(synthetic):
    rng = np.random.default_rng(0)
    for task in (1, 2):
        table = table_of(1, 1).copy()
        table[CITIES:] = 1000 * rng.normal(size=(ATLANTIS, 8))
        run = synthetic.trained(f"pt1-{task}", 1)
        synthetic.extract(f"pt1-{task}", 1, run, {2: table})
    pairs = result().tables["pairs"]
    assert pairs["cka"].tolist() == pytest.approx([1.0], abs=1e-5)


def test_every_pair_is_in_the_table_with_its_runs(synthetic):
    runs = fill(synthetic)
    pairs = result().tables["pairs"]
    assert len(pairs) == 6  # of 4 models
    found = {
        (row.run_id, row.other_run_id): (row.cka, row.same_model, row.same_seed)
        for row in pairs.itertuples()
    }
    value, same_model, same_seed = found[runs[1, 1], runs[2, 2]]
    assert value == pytest.approx(world_cka((1, 1), (2, 2)), abs=1e-5)
    assert (same_model, same_seed) == (False, False)
    assert found[runs[1, 1], runs[1, 2]][1:] == (True, False)
    assert found[runs[1, 1], runs[2, 1]][1:] == (False, True)
    assert set(pairs["layer"]) == {2} and set(pairs["model"]) == {"pt1-1", "pt1-2"}


def test_statistics_of_pairs_compare_different_seeds_with_different_seeds(synthetic):
    fill(synthetic)
    facts = result().all_statistics["cka_pt1_layer2_pairs"]
    same = [world_cka((k, 1), (k, 2)) for k in (1, 2)]
    other = [world_cka((1, 1), (2, 2)), world_cka((1, 2), (2, 1))]
    shared = [world_cka((1, s), (2, s)) for s in (1, 2)]
    for kind, values, full in (
        ("same tasks", same, 7),
        ("different tasks, different seeds", other, 42),
        ("different tasks, same seed", shared, 42),
        ("different tasks", other + shared, 84),
    ):
        assert facts[kind]["mean"] == pytest.approx(np.mean(values), abs=1e-5), kind
        assert facts[kind]["n"] == len(values) and facts[kind]["missing"] == full - len(values)
    difference = np.mean(same) - np.mean(other)
    assert facts["comparison"]["difference"] == pytest.approx(difference, abs=1e-5)
    assert facts["comparison"]["p"] == 1  # two models of two seeds: both orders are as far
    assert facts["n_cities"] == 44 and facts["n_features"] == [8]


def permutation_test(tables):
    """The permutation test of tables of world cities: (task, seed) -> table."""
    names = {f"{task}/{seed}": (f"pt1-{task}", seed) for task, seed in tables}
    runs = pd.DataFrame.from_dict(names, orient="index", columns=["model", "seed"])
    pairs = pair_table(runs.rename_axis("run_id"), [*tables.values()], 2)
    seeds = tuple(sorted(set(runs["seed"])))
    models = tuple(parse_model(name) for name in sorted(set(runs["model"])))
    none = summary(np.array([]))
    return task_permutation_test(Likeness("pt1", 2, models, seeds, pairs, CITIES, (8,), none))


def tables_of(models, shared):
    """Tables whose common part is that of shared(task, seed)."""
    return {
        (task, seed): features((shared(task, seed), 1.0), (1000 + 10 * task + seed, 0.5))
        for task, seed in models
    }


@pytest.mark.parametrize(
    "shared",
    [lambda task, seed: task, lambda task, seed: 1, lambda task, seed: (task + seed) % 3],
    ids=["of the task", "the same everywhere", "of other tasks"],
)
def test_the_permutation_of_tasks_equals_all_permutations_counted(shared):
    tasks, seeds = (1, 2, 3), (1, 2, 3)
    tables = tables_of(itertools.product(tasks, seeds), shared)
    cka = {pair: linear_cka(*map(tables.get, pair)) for pair in itertools.permutations(tables, 2)}

    def mean_of_same(orders):
        return np.mean([
            cka[(orders[i][k], seeds[i]), (orders[j][k], seeds[j])]
            for i, j in itertools.combinations(range(3), 2) for k in range(3)
        ])  # fmt: skip

    orders = [*itertools.permutations(tasks)]
    means = [mean_of_same(own) for own in itertools.product(orders, repeat=3)]
    distance = np.abs(np.array(means) - np.mean(means))
    exact = (distance >= distance[0] - 1e-9).mean()
    found = permutation_test(tables)
    assert found["p"] == pytest.approx(exact, abs=0.02)
    assert np.sign(found["difference"]) == np.sign(means[0] - np.mean(means))


def test_seeds_that_lack_models_are_permuted_among_those_they_have():
    models = [*itertools.product(range(1, 8), (1,)), *itertools.product(range(1, 6), (2,)), (3, 3)]
    found = permutation_test(tables_of(models, lambda task, seed: task))
    assert found["difference"] > 0 and 0 < found["p"] < 0.05
    found = permutation_test(tables_of(models, lambda task, seed: 1))
    assert found["p"] > 0.05
    found = permutation_test(tables_of(models[:7], lambda task, seed: task))
    assert found == {"difference": None, "p": None}


def test_statistics_of_cells(synthetic):
    fill(synthetic)
    facts = result().all_statistics["cka_pt1_layer2"]
    assert (facts["same task"]["n"], facts["same task"]["missing"]) == (2, 5)
    assert (facts["different tasks"]["n"], facts["different tasks"]["missing"]) == (2, 40)


def test_shuffled_cities_show_the_bias_of_few_cities(synthetic):
    """With as many cities as features or fewer, unrelated tables are far from 0."""
    rng = np.random.default_rng(0)
    for seed in (1, 2, 3):
        run = synthetic.trained("pt1-1", seed)
        table = rng.normal(size=(CITIES + ATLANTIS, 128)).astype(np.float32)
        synthetic.extract("pt1-1", seed, run, {2: table})
    found = result()
    chance = found.all_statistics["cka_pt1_layer2_pairs"]["cities shuffled"]
    assert chance["n"] == 3 and 0.6 < chance["mean"] < 0.85
    assert any("44 cities are fewer than 128 features" in caveat for caveat in found.caveats)
    assert result().all_statistics == found.all_statistics  # the same draws each time


def test_cka_by_chance_is_drawn_over_all_models():
    """Unrelated tables of one feature are near 0, those with more features than cities far."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(30, 1 if k < 7 else 60)) for k in range(21)]
    of_one_feature, of_all = chance_of(tables[:7]), chance_of(tables)
    assert of_all["n"] == 8
    assert of_one_feature["mean"] < 0.1 < 0.3 < of_all["mean"]


def test_no_caveat_about_bias_with_more_cities_than_features(synthetic):
    fill(synthetic)
    assert not any("biased" in caveat for caveat in result().caveats)


def test_pairs_of_one_table_are_none():
    runs = pd.DataFrame({"model": ["pt1-1"], "seed": [1]}, index=pd.Index(["a"], name="run_id"))
    assert pair_table(runs, [features((1, 1.0))], 3).empty


# Mixtures of tasks


def test_families_that_the_store_has_are_drawn_and_the_others_named(synthetic):
    fill(synthetic, family="pt2", tasks=(1, 4, 6))  # 1 and 4 share distance; 6 is apart
    found = result()
    assert [panel.name for panel in found.parts] == ["cka_pt2_layer2"]
    assert [caveat for caveat in found.caveats if "left out" in caveat] == [
        f"{name} is left out: the store has no representations of its models"
        for name in ("pt1", "pt3")
    ]
    facts = found.all_statistics["cka_pt2_layer2"]
    counts = {kind: (fact["n"], fact["missing"]) for kind, fact in facts.items()}
    assert counts["same mixture"] == (3, 5)
    assert counts["overlapping mixtures"][0] == 2 and counts["disjoint mixtures"][0] == 4
    assert sum(counts["all"]) == 64
    figure = part(found, "cka_pt2_layer2").draw("")
    labels = [label.get_text().split() for label in figure.axes[0].get_yticklabels()]
    assert labels[3] == ["crossing", "+", "distance", "pt2-4"]


# What is missing


def test_missing_extractions_are_hatched_and_listed(synthetic):
    fill(synthetic, tasks=(1, 2), seeds=(1, 2))
    synthetic.trained("pt1-3", 1)
    synthetic.extract("pt1-3", 1, synthetic.trained("pt1-3", 1), {2: table_of(3, 1)})
    found = result()
    rows = found.missing.set_index(["model", "seed"])
    assert len(rows) == 9 and ("pt1-3", 2) in rows.index and ("pt1-3", 1) not in rows.index
    assert set(rows["matrix"]) == {"cka_pt1_layer2"}
    command = rows["command"]["pt1-3", 2]
    assert command == (
        "mlflow run . -e pretrain -P pretrain=pt1-3 -P seed=2 -P scale=mini --env-manager local && "
        "mlflow run . -e extract -P model=pt1-3 -P seed=2 -P layers=2 -P scale=mini "
        "--env-manager local"
    )
    matrix = part(found, "cka_pt1_layer2").matrix
    assert np.isnan(matrix.mean.loc["angle", "angle"]) and matrix.n.loc["angle", "distance"] == 2
    assert matrix.partial == 4
    texts = [text.get_text() for text in part(found, "cka_pt1_layer2").draw("").texts]
    assert "only n of the pairs of seeds (4; 1 on the" in " ".join(texts).replace("\n", " ")


def test_one_seed_has_no_diagonal_and_no_spread(synthetic):
    fill(synthetic, tasks=range(1, 8), seeds=(42,))
    found = result()
    panel = part(found, "cka_pt1_layer2")
    assert np.isnan(np.diag(panel.values)).all() and panel.values.notna().to_numpy().sum() == 42
    assert panel.title.endswith("seed 42 only: no spread")
    assert set(found.missing["reason"]) == {"the diagonal compares two seeds, and there is one"}
    assert "-e extract -P model=pt1-7 -P seed=1" in found.missing["command"].iloc[6]
    facts = found.all_statistics["cka_pt1_layer2_pairs"]
    assert facts["comparison"] == {"difference": None, "p": None}
    assert any("not compared" in line for line in panel.said)


def test_only_finished_extractions_of_this_kind_count(synthetic):
    fill(synthetic)
    fill(synthetic, tasks=(3,), world="scattered")
    for model in ("pt1-3@wide", "pt1-3_ftwb1-1"):
        run = synthetic.trained(model, 1)
        synthetic.extract(model, 1, run, {2: table_of(3, 1)})
    for run in fill(synthetic, tasks=(4,)).values():
        synthetic.client.set_terminated(run, "FAILED")
    found = result()
    assert len(found.runs_used) == 4 and len(found.tables["pairs"]) == 6


def test_representations_of_other_cities_are_left_out(synthetic):
    fill(synthetic)
    changed = {"n_cities": 30}
    run = synthetic.trained("pt1-3", 1, **changed)
    table = features((3, 1.0), cities=30)
    synthetic.extract("pt1-3", 1, run, {2: table}, **changed)
    found = result()
    assert any("from other cities" in caveat for caveat in found.caveats)
    missing = found.missing.set_index(["model", "seed"])["reason"]
    assert missing["pt1-3", 1] == "extracted from other cities"
    assert len(found.tables["pairs"]) == 6


def test_the_newest_of_several_extractions_is_used_and_named(synthetic):
    fill(synthetic)
    run = synthetic.trained("pt1-1", 1)
    newer = synthetic.extract("pt1-1", 1, run, {2: table_of(5, 1)})
    found = result()
    assert newer in found.runs_used.index and len(found.runs_used) == 4
    assert any(newer in caveat and "pt1-1 seed 1" in caveat for caveat in found.caveats)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table: table * np.nan, "holds NaN or infinity"),
        (lambda table: np.ones_like(table), "is the same for every city"),
        (lambda table: table[:-1], "does not hold layer 2 of all its cities"),
    ],
)
def test_a_table_without_cka_is_missing_with_its_reason(synthetic, spoil, reason):
    fill(synthetic)
    run = synthetic.trained("pt1-3", 1)
    bad = synthetic.extract("pt1-3", 1, run, {2: spoil(table_of(3, 1))})
    found = result()
    row = found.missing.set_index(["model", "seed"]).loc[("pt1-3", 1)]
    assert reason in row["reason"] and f"mlflow runs delete --run-id {bad} && " in row["command"]
    assert bad not in found.runs_used.index and found.tables["pairs"]["cka"].notna().all()


def test_models_of_other_settings_are_named(synthetic):
    fill(synthetic)
    run = synthetic.trained("pt1-3", 1, epochs=999)
    synthetic.extract("pt1-3", 1, run, {2: table_of(3, 1)}, epochs=999)
    caveats = result().caveats
    assert any(caveat.startswith("the bases differ in epochs") for caveat in caveats)
    assert any("pt1-3 seed 1 is not trained as the name alone" in caveat for caveat in caveats)


def test_a_model_whose_training_is_gone_is_left_out_and_said_to_be(synthetic):
    fill(synthetic)
    synthetic.extract("pt1-3", 1, "gone", {2: table_of(3, 1)})
    found = result()
    assert set(found.runs_used["model"]) == {"pt1-1", "pt1-2"}
    (caveat,) = [caveat for caveat in found.caveats if caveat.startswith("pt1-3 seed 1: left out")]
    assert "a training that is not finished or not in the store" in caveat
    missing = found.missing.set_index(["model", "seed"]).loc[("pt1-3", 1)]
    assert missing["reason"].startswith("extracted from a training that is not finished")


def test_a_store_that_does_not_answer_is_no_family_that_is_left_out(synthetic, monkeypatch):
    fill(synthetic)
    source = Source(Store.connect())

    def silent(*_):
        raise StateError("cannot read the cities")

    monkeypatch.setattr(source, "path", silent)
    with pytest.raises(StateError, match="cannot read the cities"):
        cka(source, Options(out="unused"))


# Layers


def test_a_layer_can_be_chosen(synthetic):
    fill(synthetic, layers=(1, 2))
    assert [panel.name for panel in result("1").parts] == ["cka_pt1_layer1"]
    assert [panel.name for panel in result().parts] == ["cka_pt1_layer2"]


def test_all_layers_are_those_that_all_have(synthetic):
    fill(synthetic, tasks=(1, 2), layers=(0, 1, 2))
    run = synthetic.trained("pt1-3", 1)
    synthetic.extract("pt1-3", 1, run, {1: table_of(3, 1), 2: table_of(3, 1)})
    newer = synthetic.extract("pt1-1", 1, synthetic.trained("pt1-1", 1), {2: table_of(1, 1)})
    found = result("all")
    assert [part.name for part in found.parts] == [
        "cka_pt1_layer1", "cka_pt1_layer2", "cka_pt1_by_layer",
    ]  # fmt: skip
    assert newer not in found.runs_used.index  # an older one has more layers
    why = found.runs_used.set_index(["model", "seed"])["why"]
    assert why["pt1-1", 1] == "the only finished extraction with most layers"
    assert why["pt1-1", 2] == "the only finished extraction"
    lacking = found.missing[found.missing["matrix"] == "cka_pt1"]
    assert lacking["reason"].tolist() == ["no representations of layers 0"]
    assert "-P layers=all" in lacking["command"].iloc[0]
    curves = part(found, "cka_pt1_by_layer").table.set_index(["pairs_of_models", "layer"])
    facts = found.all_statistics["cka_pt1_layer1_pairs"]
    assert curves.loc[("same tasks", 1), "mean"] == facts["same tasks"]["mean"]
    assert curves.loc[("same tasks", 1), "n"] == 2


# Figures


def test_no_text_is_cut_off_or_overlaps_another(synthetic):
    fill(synthetic, tasks=(1, 2, 3), seeds=(1, 2), layers=(1, 2))
    fill(synthetic, tasks=range(1, 9), seeds=(1,), layers=(1, 2), family="pt3")
    for shown in result("all").parts:
        figure = shown.draw("scale mini, width base, world with_atlantis; " + "x" * 60)
        assert not clashes(figure)


# The command


def test_the_command_writes_and_says_what_came_out(synthetic, tmp_path):
    fill(synthetic)
    out = tmp_path / "f"
    code, text, _ = invoke(main, "--out", str(out))
    assert (
        code == 0
        and "cka_pt1_layer2: same task " in text
        and "by permutation of the tasks within seeds" in text
    )
    assert "44 world cities, 8 features" in (out / "cka_pt1_layer2.svg").read_text()
    tables = {f"cka_pt1_layer2{end}.csv" for end in ("", "_std", "_n")} | {"pairs.csv"}
    assert tables < {path.name for path in out.iterdir()}
    table = pd.read_csv(out / "cka_pt1_layer2.csv", index_col=0)
    assert table.shape == (7, 7)
    expected = np.mean([world_cka((1, s), (2, t)) for s in (1, 2) for t in (1, 2)])
    assert table.loc["distance", "trianglearea"] == pytest.approx(expected, abs=1e-5)
    facts = json.loads((out / "statistics.json").read_text())
    assert facts["statistics"]["cka_pt1_layer2_pairs"]["same tasks"]["n"] == 2
    (run,) = Store.connect().find(stage="analysis")
    assert run.tags["worldrep.pretrain"] == "pt1"


@pytest.mark.parametrize(
    ("layer", "code", "text"),
    [
        ("x", 2, "layer='x' is neither 'default', 'all' nor a number"),
        ("-1", 2, "is neither"),
        ("9", 2, "layer=9 is too deep: these models have layers 0 to 3"),
        ("1", 1, "has no representations of layer 1, only of 2"),
    ],
)
def test_a_layer_that_is_not_there_ends_with_one_sentence(synthetic, tmp_path, layer, code, text):
    fill(synthetic, seeds=(1,))
    found, _, error = invoke(main, "--out", str(tmp_path / "f"), "--layer", layer)
    assert found == code and text in error and error.count("\n") == 1
    assert not (tmp_path / "f").exists()


def test_nothing_to_compare_ends_with_one_sentence(synthetic):
    with pytest.raises(StateError, match="has none at all"):
        result()
    fill(synthetic, tasks=(1,), seeds=(1,))
    with pytest.raises(StateError, match="a single model of pt1-1, ... pt1-7 at layer 2"):
        result()
    with pytest.raises(StateError, match="it has pt1-1 with seeds 1"):
        result(seeds=(7,))
    with pytest.raises(InputError):
        result("deep")
