"""CKA against transfer, on a store in which both are known."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from click.testing import CliRunner
from drawn_text import clashes

from analysis.cka import cka
from analysis.cka_generalization import associate, cka_generalization, main
from analysis.exp1_heatmaps import exp1_heatmaps
from analysis.options import Options
from analysis.replication import Tables, alike_and_carried_over
from analysis.statistics.similarity import linear_cka
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES
from worldrep.tracking import Store

CITIES = 44  # of scale mini


def table_of(task: int, seed: int) -> np.ndarray:
    """Tasks whose numbers are close share most of their features."""
    rng = np.random.default_rng(0)
    components = rng.normal(size=(9, CITIES + 12, 6))
    own = np.random.default_rng(100 * task + seed).normal(size=(CITIES + 12, 6))
    return (components[task] + components[task + 1] + 0.3 * own).astype(np.float32)


def gain(row: int, column: int, seed: int) -> float:
    """The normalised improvement of ftwb1-row on a task, both counted from 1."""
    return 0.9 / (1 + abs(row - column)) + 0.02 * seed + 0.01 * column


def extracted(synthetic, tasks=range(1, 8), seeds=(1,)):
    for task, seed in itertools.product(tasks, seeds):
        run = synthetic.trained(f"pt1-{task}", seed)
        synthetic.extract(f"pt1-{task}", seed, run, {2: table_of(task, seed)})


def tuned(synthetic, tasks=range(1, 8), seeds=(1,)):
    for seed in seeds:
        base = synthetic.base(seed)
        for task in tasks:
            gains = {name: gain(task, k, seed) for k, name in enumerate(TASK_NAMES, start=1)}
            synthetic.tuned(f"ftwb1-{task}", base, gains, seed)


def result(layer="default", **options):
    return cka_generalization(Source(Store.connect()), Options(out="unused", **options), layer)


def cka_of(one, other) -> float:
    return linear_cka(*(table_of(*model)[:CITIES] for model in (one, other)))


def test_points_and_correlation_of_one_seed(synthetic):
    extracted(synthetic)
    tuned(synthetic)
    every, without = result().parts
    points = every.table.set_index("label")
    assert len(points) == 42 and len(without.table) == 30
    assert {"D->T", "T->D", "C->X", "I->P"} < set(points.index)
    assert not any("X" in label for label in without.table["label"])
    assert points["cka"]["D->A"] == pytest.approx(cka_of((1, 1), (3, 1)), abs=1e-6)
    assert points["cka"]["D->A"] == points["cka"]["A->D"]
    assert points["normalised"]["D->A"] == pytest.approx(gain(1, 3, 1))
    assert points["normalised"]["A->D"] == pytest.approx(gain(3, 1, 1))
    assert points["task_tested"]["D->C"] == "accuracy task" == points["task_tested"]["D->X"]
    assert points["task_tested"]["C->D"] == "error task"
    assert points["cka_std"].isna().all() and any("no spread" in line for line in every.lines)

    for chart in (every, without):
        x, y = chart.table["cka"], chart.table["normalised"]
        line = scipy.stats.linregress(x, y)
        facts = chart.statistics[chart.name]
        assert facts["r"] == pytest.approx(line.rvalue) and facts["p"] == pytest.approx(line.pvalue)
        assert facts["n"] == len(x) and facts["missing"] == 0
        assert chart.fit == pytest.approx((line.slope, line.intercept))
        assert facts["r"] > 0.5 and facts["permutation_p"] < 0.05
        assert facts["p"] < facts["permutation_p"]  # it takes the points for independent
    assert every.statistics["cka_generalization"]["n_permutations"] == 5040
    assert without.statistics["cka_generalization_without_crossing"]["n_permutations"] == 720


def test_both_sides_are_means_over_their_own_seeds(synthetic):
    extracted(synthetic, tasks=(2, 4, 5), seeds=(1, 2, 3))
    tuned(synthetic, tasks=(2, 4, 5), seeds=(2, 3))
    found = result()
    point = found.parts[0].table.set_index("label").loc["T->C"]
    between = [cka_of((2, s), (4, t)) for s in (1, 2, 3) for t in (1, 2, 3)]
    gains = [gain(2, 4, seed) for seed in (2, 3)]
    assert point["cka"] == pytest.approx(np.mean(between), abs=1e-6)
    assert point["cka_std"] == pytest.approx(np.std(between, ddof=1), abs=1e-6)
    assert point["normalised"] == pytest.approx(np.mean(gains))
    assert point["normalised_std"] == pytest.approx(np.std(gains, ddof=1))
    assert (point["n_seed_pairs"], point["n_seeds"]) == (9, 2)
    assert found.seeds == (1, 2, 3)
    assert any("CKA rests on seeds 1, 2, 3, the improvement on seeds 2, 3" in c
               for c in found.caveats)  # fmt: skip
    assert "seeds 1, 2, 3" in found.parts[0].lines[2] and "seeds 2, 3." in found.parts[0].lines[2]
    assert result(seeds=(2,)).parts[0].table["n_seed_pairs"].sum() == 6


def test_the_page_of_replication_computes_the_same_correlation(synthetic, tmp_path):
    extracted(synthetic, tasks=range(1, 5))
    tuned(synthetic, tasks=range(1, 5), seeds=(1, 2))
    source, options = Source(Store.connect()), Options(out="unused")
    (tmp_path / "cka").mkdir()
    cka(source, options).tables["pairs"].to_csv(tmp_path / "cka/pairs.csv")
    (tmp_path / "exp1_heatmaps").mkdir()
    (tmp_path / "exp1_heatmaps/statistics.json").write_text('{"seeds": [1, 2]}')
    for panel in exp1_heatmaps(source, options).parts:
        panel.values.to_csv(tmp_path / f"exp1_heatmaps/{panel.name}.csv", index_label="model")
    found = alike_and_carried_over(Tables(tmp_path))
    facts = result().parts[1].statistics["cka_generalization_without_crossing"]
    assert found.value == pytest.approx(facts["r"]) and found.p == facts["permutation_p"]
    assert found.n == "12 pairs of tasks, 1 seed of CKA, 2 of transfer"


def test_missing_points_are_counted_and_listed(synthetic):
    extracted(synthetic, tasks=(1, 2, 3, 4, 5, 6))  # crossing is not extracted
    tuned(synthetic, tasks=(2, 3, 4, 5, 6, 7))  # distance is not fine-tuned on
    found = result()
    every, without = (part.statistics[part.name] for part in found.parts)
    assert (every["n"], every["missing"]) == (25, 17)  # 12 with crossing, 5 from distance
    assert (without["n"], without["missing"]) == (25, 5)
    note = found.parts[1].notes[-1]
    assert note.startswith("Missing: 5 of 30 points (D->T, D->A, D->C, D->I, D->P)")
    missing = found.missing
    assert set(missing["matrix"]) == {"cka_pt1_layer2", "ftwb1"}
    transfer = missing[missing["matrix"] == "ftwb1"]
    assert sorted(transfer["task"]) == sorted(TASK_NAMES[1:])  # not the task itself
    assert any("-P ft=ftwb1-1" in command for command in found.missing["command"])
    assert any("-P model=pt1-7" in command for command in found.missing["command"])


def test_fewer_than_three_points_have_no_correlation(synthetic):
    extracted(synthetic, tasks=(1, 2))
    tuned(synthetic, tasks=(1, 2))
    found = result()
    facts = found.parts[0].statistics["cka_generalization"]
    assert facts["n"] == 2 and np.isnan(facts["r"]) and found.parts[0].fit is None
    assert found.parts[0].notes[0] == (
        "cka_generalization: no correlation, which needs 3 points that differ (n = 2, missing 40)"
    )
    found.parts[0].draw("")


def test_association_by_hand():
    rows = [
        {"fine_tuned_on": one, "tested_on": other, "cka": x, "normalised": y}
        for (one, other), x, y in zip(
            itertools.permutations("abc", 2), [1, 2, 1, 3, 2, 3], [1, 2, 2, 3, 2, 2], strict=True
        )
    ]
    fit = associate(pd.DataFrame(rows), ["a", "b", "c"])
    assert fit.n == 6 and fit.slope == pytest.approx(0.5)  # sum of dx * dy = 2, of dx * dx = 4
    assert fit.r == pytest.approx(2 / np.sqrt(4 * 2))
    assert fit.intercept == pytest.approx(1) and fit.n_permutations == 6


def test_a_store_without_one_of_the_sides_ends_with_one_sentence(synthetic):
    with pytest.raises(StateError, match="pretrained on one task"):
        result()
    extracted(synthetic, tasks=(1, 2))
    with pytest.raises(StateError, match="no finished evaluation"):
        result()
    tuned(synthetic, tasks=(7,))
    with pytest.raises(StateError, match="no pair of tasks with both"):
        result()
    with pytest.raises(InputError, match="is for the analysis cka"):
        result("all")


def test_the_command_writes_both_charts_without_clipped_or_overlapping_text(synthetic, tmp_path):
    extracted(synthetic, seeds=(1, 2))
    tuned(synthetic, seeds=(1, 2))
    out = tmp_path / "f"
    done = CliRunner().invoke(main, ["--out", str(out), "--no-log"])
    assert done.exit_code == 0, done.output
    assert "cka_generalization: Pearson r = " in done.stdout
    assert "(n = 30, missing 0)" in done.stdout and "permutation p = " in done.stdout
    facts = json.loads((out / "statistics.json").read_text())["statistics"]
    assert set(facts) == {"cka_generalization", "cka_generalization_without_crossing"}
    assert facts["cka_generalization"]["seeds_of_cka"] == [1, 2]
    table = pd.read_csv(out / "cka_generalization.csv")
    assert len(table) == 42 and table.loc[0, "label"] == "D->T"

    for part in result().parts:
        figure = part.draw("scale mini, width base, world standard, experiment worldrep")
        labels = [text.get_text() for text in figure.axes[0].texts]
        assert sum("->" in label for label in labels) == len(part.table)
        assert not clashes(figure)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--layer", "all"], "one layer, or 'default'"), (["--layer", "1.5"], "layer='1.5' is")],
)
def test_what_was_typed_wrongly_ends_with_code_2(synthetic, arguments, text):
    extracted(synthetic, tasks=(1,))
    done = CliRunner().invoke(main, [*arguments, "--no-log"])
    assert done.exit_code == 2 and text in done.stderr and done.stderr.count("\n") == 1
