"""Spread over seeds and paired comparisons, against a store whose every number is known."""

import json
import math

import pandas as pd
import pytest
from click.testing import CliRunner
from drawn_text import clashes
from drivers import invoke
from synthetic import BASE_ACCURACIES, BASE_ERRORS, part, values

from analysis import exp1_heatmaps as heatmaps
from analysis.options import Options
from analysis.seeds import main, seeds, spreads
from analysis.statistics.comparison import (
    comparisons,
    detectable_difference,
    is_share,
    seeds_needed,
    spread_bounds,
)
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, ModelName
from worldrep.tracking import Store


def every_metric(improvements, standard=0.5, atlantis=None) -> dict[str, float]:
    """A whole evaluation: Atlantis values of these improvements, elsewhere the same everywhere."""
    found = {
        f"{split}/{task}/mean": standard for split in ("standard", "multi") for task in TASK_NAMES
    }
    found |= values(improvements) if atlantis is None else dict.fromkeys(values(0), atlantis)
    suites = [name.removesuffix("/mean") for name in found]
    return found | {f"{suite}/valid_ratio": 1.0 for suite in suites}


def base(synthetic, seed=1, **changed):
    """A base with all its metrics; its training's run id."""
    run = synthetic.run("pretrain", "pt1", seed, **changed)
    metrics = every_metric(0.0)
    for task in TASK_NAMES:
        on_atlantis, ordinary = BASE_ACCURACIES if TASKS[task].accuracy else BASE_ERRORS
        metrics |= {f"atlantis/{task}/mean": on_atlantis, f"standard/{task}/mean": ordinary}
    synthetic.evaluate("pt1", seed, run, metrics, **changed)
    return run


def tuned(synthetic, ft, base_run, improvements, seed=1, metrics=None, **changed):
    """A fine-tuned model with all its metrics; its evaluation's run id."""
    model = str(ModelName("pt1", ft))
    run = synthetic.run("finetune", model, seed, tags={"base_run_id": base_run}, **changed)
    found = every_metric(improvements) | (metrics or {})
    return synthetic.evaluate(model, seed, run, found, base_run, **changed)


def study(synthetic, models: dict[str, list[float]]) -> None:
    """Bases of seeds 1, 2, ..., and models with one improvement for each."""
    for i in range(max(map(len, models.values()))):
        run = base(synthetic, i + 1)
        for ft, improvements in models.items():
            if i < len(improvements):
                tuned(synthetic, ft, run, improvements[i], i + 1)


def result(models="all", against="none", difference=0.05, **options):
    source = Source(Store.connect())
    return seeds(source, Options(out="unused", **options), models, against, difference)


def spread(result, model, quantity):
    table = result.tables["spread"]
    return table[(table["model"] == model) & (table["quantity"] == quantity)].iloc[0]


def compared(result, quantity) -> pd.DataFrame:
    table = result.tables["comparisons"]
    return table[table["quantity"] == quantity].set_index(["first", "second"])


# Spread


def test_spreads_equal_hand_computed_ones(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4, 0.9]})
    row = spread(result(), "pt1_ftwb1-1", "improvement/transfer")
    assert (row["mean"], row["n"], row["missing"]) == (pytest.approx(0.5), 3, 0)
    assert row["std"] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * row["std"] / math.sqrt(3))
    assert row["parts"] == pytest.approx((0.2, 0.4, 0.9)) and row["seeds"] == "1 2 3"


def test_every_metric_and_improvement_has_a_row(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4]})
    table = result().tables["spread"]
    counts = table.groupby("model")["quantity"].nunique()
    assert counts.to_dict() == {"pt1": 42, "pt1_ftwb1-1": 42 + 9}
    accuracy = spread(result(), "pt1_ftwb1-1", "atlantis/compass/mean")
    assert accuracy["parts"] == pytest.approx((0.2 + 0.7 * 0.2, 0.2 + 0.7 * 0.4))
    assert spread(result(), "pt1", "standard/distance/valid_ratio")["mean"] == 1.0


def test_trained_and_transfer_means_are_those_of_the_names(synthetic):
    by_task = dict(zip(TASK_NAMES, (1.0, 0.1, 0.2, 0.3, 0.4, 0.8, 0.0), strict=True))
    run = base(synthetic)
    tuned(synthetic, "ftwb2-13", run, by_task)  # distance + perimeter
    found = result()
    assert spread(found, "pt1_ftwb2-13", "improvement/trained")["mean"] == pytest.approx(0.9)
    assert spread(found, "pt1_ftwb2-13", "improvement/transfer")["mean"] == pytest.approx(0.2)
    assert spread(found, "pt1_ftwb2-13", "improvement/inside")["mean"] == pytest.approx(0.4)


def test_a_mean_with_a_missing_cell_is_missing(synthetic):
    run = base(synthetic)
    evaluation = tuned(
        synthetic, "ftwb1-1", run, 0.5, metrics={"atlantis/angle/mean": float("nan")}
    )
    found = result()
    names = set(found.tables["spread"]["quantity"])
    assert "improvement/trained" in names and "improvement/transfer" not in names
    assert "improvement/angle" not in names
    missing = found.missing.set_index("matrix")
    reason = f"evaluation {evaluation} has no number atlantis/angle/mean"
    assert missing["reason"].to_dict() == {"values": reason, "improvement": reason}
    assert missing["command"].str.startswith(f"mlflow runs delete --run-id {evaluation}").all()


def test_one_seed_has_no_spread_and_no_test(synthetic):
    study(synthetic, {"ftwb1-1": [0.2], "ftwb1-2": [0.5]})
    found = result()
    row = spread(found, "pt1_ftwb1-1", "improvement/transfer")
    assert row["n"] == 1 and all(math.isnan(row[name]) for name in ("std", "low", "high"))
    pair = compared(found, "improvement/transfer").loc[("pt1_ftwb1-2", "pt1_ftwb1-1")]
    assert pair["difference"] == pytest.approx(0.3) and pair["n"] == 1
    unknown = ["std", "low", "high", "p", "p_holm", "detectable", "seeds_needed"]
    assert pair[unknown].isna().all()
    assert "seed 1 is the only one: there is no spread and no test" in found.caveats
    chart = part(found, "differences")
    assert set(chart.table["corrected_p"]) == {"no test"} and "seed 1 only" in chart.title


def test_a_model_with_fewer_seeds_shows_n_and_what_is_missing(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4, 0.9], "ftwb1-2": [0.1, 0.3]})
    found = result()
    row = spread(found, "pt1_ftwb1-2", "improvement/trained")
    assert (row["n"], row["missing"]) == (2, 1)
    labels = set(part(found, "improvement").table["label"])
    assert labels == {"pt1_ftwb1-1", "pt1_ftwb1-2 (n = 2)"}
    (missing,) = found.missing.to_dict("records")
    assert (missing["model"], missing["seed"]) == ("pt1_ftwb1-2", 3)
    assert missing["reason"] == "the model is not evaluated"
    assert missing["command"].startswith("mlflow run . -e finetune -P ft=ftwb1-2 -P seed=3")
    pair = compared(found, "improvement/trained").loc[("pt1_ftwb1-2", "pt1_ftwb1-1")]
    assert (pair["n"], pair["missing"], pair["seeds"]) == (2, 1, "1 2")
    assert pair["difference"] == pytest.approx(-0.1)


# Comparisons


def test_models_are_compared_seed_by_seed(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4, 0.9], "ftwb1-2": [0.3, 0.6, 1.2]})
    found = result(difference=0.1)
    table = compared(found, "improvement/transfer")
    assert list(table.index) == [
        ("pt1_ftwb1-1", "pt1"), ("pt1_ftwb1-2", "pt1"), ("pt1_ftwb1-2", "pt1_ftwb1-1"),
    ]  # fmt: skip
    pair = table.loc[("pt1_ftwb1-2", "pt1_ftwb1-1")]  # differences 0.1, 0.2, 0.3
    assert (pair["difference"], pair["std"]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert pair["p"] == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(2 + 12))
    assert pair["seeds_needed"] == seeds_needed(0.1, 0.1) == 10
    assert pair["detectable"] == pytest.approx(detectable_difference(0.1, 3))
    assert pair["parts"] == pytest.approx((0.1, 0.2, 0.3))
    against_base = table.loc[("pt1_ftwb1-1", "pt1")]  # whose improvement is 0
    assert against_base["difference"] == pytest.approx(0.5)
    assert set(table["tests"]) == {3}
    smallest = table["p"].min()
    assert table["p_holm"].min() == pytest.approx(3 * smallest)


def test_metrics_are_compared_too(synthetic):
    run = base(synthetic)
    tuned(synthetic, "ftwb1-1", run, 0.5, metrics={"standard/angle/mean": 4.0})
    pair = compared(result(), "standard/angle/mean").loc[("pt1_ftwb1-1", "pt1")]
    assert pair["difference"] == 3.0


def test_seeds_are_counted_for_shares_alone():
    series = {
        (model, quantity): dict(enumerate(column))
        for quantity in ("standard/angle/mean", "standard/compass/mean")
        for model, column in (("a", [0.3, 0.5, 0.6]), ("b", [0.1, 0.1, 0.1]))
    }
    names = ("standard/angle/mean", "standard/compass/mean")
    angle, compass = comparisons(pd.DataFrame(series).T, [("a", "b")], names, 0.1).to_dict(
        "records"
    )
    assert math.isnan(angle["seeds_needed"]) and compass["seeds_needed"] > 2
    assert angle["detectable"] == compass["detectable"] > 0
    assert is_share("improvement/angle") and is_share("multi/angle/valid_ratio")


def test_equal_differences_promise_nothing():
    series = {
        ("a", "improvement/trained"): {1: 0.5, 2: 0.75},
        ("b", "improvement/trained"): {1: 0.25, 2: 0.5},
    }
    (row,) = comparisons(
        pd.DataFrame(series).T, [("a", "b")], ("improvement/trained",), 0.1
    ).to_dict("records")
    assert row["difference"] == 0.25 and row["std"] == 0 and row["tests"] == 0
    assert all(math.isnan(row[name]) for name in ("p", "p_holm", "detectable", "seeds_needed"))


def test_spread_bounds_of_three_values():
    # chi2 with 2 degrees: quantiles -2 ln(1 - q), by hand
    low, high = spread_bounds(3)
    assert low == pytest.approx(math.sqrt(2 / (-2 * math.log(0.025))))
    assert high == pytest.approx(math.sqrt(2 / (-2 * math.log(0.975))))


def test_spreads_of_a_table():
    rows = [("m", "f", seed, "q", value) for seed, value in ((2, 3.0), (1, 1.0))]
    names = ["model", "family", "seed", "quantity", "value"]
    (row,) = spreads(pd.DataFrame(rows, columns=names), (1, 2, 3)).to_dict("records")
    assert (row["mean"], row["n"], row["missing"], row["parts"]) == (2.0, 2, 1, (1.0, 3.0))


def test_many_models_are_compared_with_the_base(synthetic):
    run = base(synthetic)
    for k in range(1, 13):
        tuned(synthetic, f"ftwb2-{k}", run, 0.5)
    table = compared(result(), "improvement/trained")
    assert len(table) == 12 and set(table.index.get_level_values("second")) == {"pt1"}
    models = "pt1_ftwb2-1..12"
    few = compared(result(models=models), "improvement/trained")
    assert len(few) == 66
    named = compared(result(models=models, against="pt1_ftwb2-3"), "improvement/trained")
    assert len(named) == 11 and set(named.index.get_level_values("second")) == {"pt1_ftwb2-3"}


def test_the_other_model_of_a_comparison_is_read_with_those_asked_for(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4], "ftwb1-2": [0.3, 0.6], "ftwb1-3": [0.3, 0.6]})
    found = result(models="pt1_ftwb1-1", against="pt1_ftwb1-3")
    assert list(compared(found, "improvement/transfer").index) == [("pt1_ftwb1-1", "pt1_ftwb1-3")]
    assert set(found.runs_used["model"]) == {"pt1", "pt1_ftwb1-1", "pt1_ftwb1-3"}
    with pytest.raises(StateError, match="pt1_ftwb1-7 is not evaluated"):
        result(against="pt1_ftwb1-7")


# Which runs


def test_only_evaluations_of_this_kind_count(synthetic):
    study(synthetic, {"ftwb1-1": [0.5]})
    for other in ({"world": "scattered"}, {"scale": "smoke"}):
        run = base(synthetic, 2, **other)
        tuned(synthetic, "ftwb1-1", run, 0.9, 2, **other)
    for status in ("FAILED", "RUNNING"):
        synthetic.evaluate("pt1_ftwb1-1", 3, "m", every_metric(0.9), status=status)
    synthetic.evaluate("pt1_ftwb1-1", 3, "m", every_metric(0.9), tags={"checkpoints": "all"})
    synthetic.evaluate("pt1@wide_ftwb1-1", 3, "m", every_metric(0.9))
    found = result()
    assert list(found.seeds) == [1] and len(found.runs_used) == 2
    assert spread(found, "pt1_ftwb1-1", "improvement/trained")["parts"] == pytest.approx((0.5,))
    assert len(found.missing) == 0


def test_the_newest_of_several_evaluations_is_used_and_named(synthetic):
    run = base(synthetic)
    older = tuned(synthetic, "ftwb1-1", run, 0.2)
    newer = tuned(synthetic, "ftwb1-1", run, 0.6)
    found = result()
    assert spread(found, "pt1_ftwb1-1", "improvement/trained")["mean"] == pytest.approx(0.6)
    assert newer in found.runs_used.index and older not in found.runs_used.index
    assert any("pt1_ftwb1-1 seed 1 has 2 finished evaluations" in c for c in found.caveats)


def test_one_of_several_bases_of_a_seed_is_shown(synthetic):
    first = base(synthetic)
    base(synthetic, epochs=999)
    tuned(synthetic, "ftwb1-1", first, 0.5)
    found = result()
    assert spread(found, "pt1", "standard/angle/mean")["n"] == 1
    assert any(caveat.startswith("pt1 seed 1 has 2 bases") for caveat in found.caveats)
    assert spread(found, "pt1_ftwb1-1", "improvement/trained")["mean"] == pytest.approx(0.5)


def test_a_model_without_its_base_has_metrics_but_no_improvement(synthetic):
    tuned(synthetic, "ftwb1-1", "gone", 0.5)
    found = result()
    assert spread(found, "pt1_ftwb1-1", "atlantis/compass/mean")["mean"] == pytest.approx(0.55)
    assert not found.tables["spread"]["quantity"].str.startswith("improvement").any()
    assert set(found.missing["reason"]) == {"its base is not evaluated"}
    assert [chart.name for chart in found.parts] == ["standard"]


def test_other_pretrainings_have_metrics_only(synthetic):
    for seed in (1, 2):
        for model in ("pt1-1", "pt1-2", "pt2-1_ftwb1-1"):
            stage = "finetune" if "_" in model else "pretrain"
            run = synthetic.run(stage, model, seed)
            metrics = every_metric(0.0, standard=0.25 * seed + (model == "pt1-2"))
            synthetic.evaluate(model, seed, run, metrics)
    found = result()
    names = found.tables["spread"]["quantity"]
    assert not names.str.startswith("improvement").any()
    assert [chart.name for chart in found.parts] == ["standard", "differences"]
    pair = compared(found, "standard/angle/mean").loc[("pt1-2", "pt1-1")]
    assert (pair["difference"], pair["n"]) == (1.0, 2)
    assert len(found.missing) == 0 and len(found.runs_used) == 6


def test_seeds_and_models_can_be_chosen(synthetic):
    study(synthetic, {"ftwb1-1": [0.2, 0.4, 0.9], "ftwb1-2": [0.3, 0.6, 1.2]})
    found = result(models="pt1_ftwb1-2", seeds=(1, 3))
    assert set(found.tables["values"]["model"]) == {"pt1_ftwb1-2"}
    row = spread(found, "pt1_ftwb1-2", "improvement/trained")
    assert row["parts"] == pytest.approx((0.3, 1.2))
    used = found.runs_used[["model", "seed"]].to_numpy().tolist()
    assert used == [["pt1", 1], ["pt1_ftwb1-2", 1], ["pt1", 3], ["pt1_ftwb1-2", 3]]
    asked = result(models="pt1_ftwb1-2..3", seeds=(1, 5)).missing
    lacking = set(zip(asked["model"], asked["seed"], strict=True))
    assert lacking == {("pt1_ftwb1-2", 5), ("pt1_ftwb1-3", 1), ("pt1_ftwb1-3", 5)}


# The command and the figures


def test_the_command_writes_and_says_what_came_out(synthetic, tmp_path):
    study(synthetic, {"ftwb1-1": [0.2, 0.4, 0.9], "ftwb1-2": [0.3, 0.6, 1.2]})
    code, text, _ = invoke(main, "--out", str(tmp_path / "f"), "--difference", "0.1")
    assert code == 0
    assert "improvement: pt1_ftwb1-1: trained 0.5 [" in text and "(n = 3)" in text
    assert "a difference of 0.1 takes" in text
    files = {path.name for path in (tmp_path / "f").iterdir()}
    names = ("improvement", "standard", "differences", "values", "spread", "comparisons")
    assert {f"{name}.csv" for name in names} < files
    statistics = json.loads((tmp_path / "f" / "statistics.json").read_text())["statistics"]
    own = statistics["improvement"]["pt1_ftwb1-1"]["improvement/trained"]
    assert own["mean"] == pytest.approx(0.5) and own["n"] == 3
    assert statistics["differences"]["improvement/transfer"]["tests"] == 3
    (run,) = Store.connect().find(stage="analysis")
    assert run.tag("against") == "each other" and run.tag("runs_used") == "9"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--difference", "0"], "must be a number above 0"),
        (["--difference", "nan"], "must be a number above 0"),
        (["--difference", "x"], "not a valid float"),
        (["--models", "pt1_ftwb9-1"], "unknown ft 'ftwb9-1'"),
        (["--against", "pt1_ftwb1-1..2"], "is not the name of one model"),
        (["--against", "pt9"], "unknown pretrain 'pt9'"),
    ],
)
def test_what_was_typed_wrongly_ends_with_code_2(synthetic, arguments, text):
    base(synthetic)
    code, _, error = invoke(main, *arguments, "--out", "never")
    assert code == 2 and text in error


def test_nothing_to_show_ends_with_one_sentence(synthetic):
    code, _, error = invoke(main, "--no-log")
    assert code == 1 and error.count("\n") == 1 and "has no finished evaluation" in error
    base(synthetic)
    code, _, error = invoke(main, "--no-log", "--models", "pt2-1")
    assert code == 1 and error.count("\n") == 1 and "it has pt1 with seeds 1" in error
    with pytest.raises(StateError, match="it has pt1 with seeds 1"):
        result(seeds=(5,))
    with pytest.raises(InputError):
        result(difference=-1)


@pytest.mark.parametrize("n", [1, 3])
def test_no_text_is_cut_off_or_overlaps_another(synthetic, n):
    study(
        synthetic,
        {
            "ftwb1-1": [0.2, 0.4, 0.9][:n],
            "ftwb2-21": [0.3, 0.6, 1.2][: max(1, n - 1)],
            "ftwb3-7": [0.8, 0.81, 0.82][:n],
        },
    )
    for chart in result().parts:
        assert clashes(chart.draw("scale mini, width base; " + "x" * 60)) == [], chart.name


def test_the_largest_seeds_are_seeds_like_others(synthetic, tmp_path):
    largest = 2**63 - 1
    for seed, improvement in ((1, 0.2), (largest - 1, 0.4), (largest, 0.9)):
        tuned(synthetic, "ftwb1-1", base(synthetic, seed), improvement, seed)
    too_large = {"seed": str(largest + 1)}  # a run of another program
    synthetic.evaluate("pt1_ftwb1-1", 2, "none", every_metric(0.9), tags=too_large)
    source = Source(Store.connect())
    row = spread(seeds(source, Options(out="none")), "pt1_ftwb1-1", "improvement/transfer")
    assert row["n"] == 3 and row["seeds"] == f"1 {largest - 1} {largest}"
    assert source.caveats == ["1 finished run does not say of which model and seed: left out"]
    arguments = ["--scale", "mini", "--seeds", f"1,{largest}", "--out", str(tmp_path), "--no-log"]
    written = CliRunner().invoke(heatmaps.main, arguments, catch_exceptions=False)
    assert written.exit_code == 0, written.output
    assert {"ftwb1_seed1.csv", f"ftwb1_seed{largest}.csv"} <= {p.name for p in tmp_path.iterdir()}
