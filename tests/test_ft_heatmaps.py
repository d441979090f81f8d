"""Families with and without warm-up rows, widths side by side, and the prediction of pairs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from drawn_text import clashes
from drivers import invoke
from synthetic import part

from analysis import exp3_heatmaps, ft_heatmaps, predictors
from analysis.ft_heatmaps import warm_up_chart, warm_up_table
from analysis.options import ALL, Options
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import FINETUNINGS, TASK_NAMES
from worldrep.tracking import Store

ACCURACIES = ("compass", "inside", "crossing")


def source():
    return Source(Store.connect())


def a_few(synthetic, seed=1, **changed):
    """Two specialists and their pair (distance + perimeter) with and without warm-up rows."""
    base = synthetic.base(seed, **changed)
    for family, shift in (("ftwb", 0.0), ("ft", -0.1)):
        synthetic.tuned(f"{family}1-1", base, 0.8 + shift, seed, **changed)
        synthetic.tuned(f"{family}1-6", base, 0.6 + shift, seed, **changed)
        synthetic.tuned(f"{family}2-13", base, 0.9 + shift, seed, **changed)


# Families


def test_each_family_has_one_figure_of_three_matrices(synthetic):
    a_few(synthetic)
    found = ft_heatmaps.ft_heatmaps(source(), Options(out="unused"))
    strip = part(found, "ft2_seed1")
    assert [panel.heading for panel in strip.panels] == ["actual", "expected", "actual - expected"]
    actual, expected, difference = (panel.values.loc["ft2-13"] for panel in strip.panels)
    assert actual.tolist() == pytest.approx([0.8] * 7)
    assert expected.tolist() == pytest.approx([0.7] * 7)  # of ft1-1, not of ftwb1-1
    assert difference.tolist() == pytest.approx([0.1] * 7)
    assert part(found, "ftwb1_seed1").values.loc["ftwb1-6"].tolist() == pytest.approx([0.6] * 7)
    assert "ft3 is left out: none of its models is evaluated" in found.caveats
    ends = ("", "_expected", "_difference")
    of_pairs = {f"{family}{end}" for family in ("ft2", "ftwb2") for end in ends}
    assert set(found.missing["matrix"]) == {"ft1", "ftwb1"} | of_pairs


def test_a_seed_without_models_of_a_family_has_its_tables_and_no_figure(synthetic, tmp_path):
    a_few(synthetic)
    synthetic.tuned("ftwb1-1", synthetic.base(2), 0.8, 2)
    out = tmp_path / "out"
    code, *_ = invoke(ft_heatmaps.main, "--out", str(out))
    assert code == 0 and (out / "ft2_seed1.png").exists() and (out / "ft2_seed2.csv").exists()
    assert not (out / "ft2_seed2.png").exists() and not (out / "ft1_seed2.png").exists()


def test_warm_up_rows_are_compared_model_by_model(synthetic):
    a_few(synthetic)
    found = ft_heatmaps.ft_heatmaps(source(), Options(out="unused"))
    facts = found.all_statistics["warm_up"]["ftwb1 - ft1: transfer"]
    assert facts["difference"] == pytest.approx(0.1)
    assert (facts["n"], facts["missing"]) == (2, 5)
    panel = part(found, "ftwb2_minus_ft2")
    assert panel.values.loc["ftwb2-13"].tolist() == pytest.approx([0.1] * 7)


def test_the_paired_test_takes_models_as_units():
    """Three models; seeds are averaged first, and a model that lacks a cell is left out."""
    rows = [f"ftwb1-{k}" for k in range(1, 8)]
    one = pd.DataFrame(math.nan, index=rows, columns=TASK_NAMES)
    for row, value in zip(rows[:3], (0.1, 0.2, 0.6), strict=True):
        one.loc[row] = value
    one.loc["ftwb1-4"] = 9.0
    one.loc["ftwb1-4", "distance"] = math.nan
    chart = warm_up_chart(warm_up_table({"1": {1: one, 2: one + 0.2}}))
    facts = chart.statistics["warm_up"]["ftwb1 - ft1: overall"]
    assert (facts["n"], facts["missing"]) == (3, 4)
    assert facts["difference"] == pytest.approx(0.4)  # mean of 0.2, 0.3, 0.7
    t = 0.4 / (np.std([0.2, 0.3, 0.7], ddof=1) / math.sqrt(3))
    assert facts["t"] == pytest.approx(t)
    trained = chart.statistics["warm_up"]["ftwb1 - ft1: trained"]
    assert trained["n"] == 4  # the fourth model has its trained cell


def test_seeds_of_which_one_side_is_missing_do_not_empty_the_test():
    """ft models of seed 42 alone, as in ftset, beside ftwb models of more seeds."""
    rows = [f"ftwb1-{k}" for k in range(1, 8)]
    both = pd.DataFrame(0.1, index=rows, columns=TASK_NAMES)
    both.iloc[0] = 0.4
    none = pd.DataFrame(math.nan, index=rows, columns=TASK_NAMES)
    chart = warm_up_chart(warm_up_table({"1": {1: none, 42: both}}))
    facts = chart.statistics["warm_up"]["ftwb1 - ft1: overall"]
    assert (facts["n"], facts["missing"], facts["seeds"]) == (7, 0, "42")
    assert facts["seeds_missing"] == 7 and facts["difference"] == pytest.approx(1.0 / 7)
    assert "seeds 42, 7 of their seeds missing" in chart.notes[0]


def test_figures_of_three_matrices_have_room_for_every_word(synthetic):
    for seed in (1, 2):
        a_few(synthetic, seed)
    found = ft_heatmaps.ft_heatmaps(source(), Options(out="unused"))
    for name in ("ftwb2_aggregate", "warm_up"):
        assert clashes(part(found, name).draw("about " * 20)) == []


# Widths


def test_widths_stand_side_by_side_in_the_order_of_exp3(synthetic):
    for width, value in (("wide", 0.55), ("narrow", 0.9)):
        of_width(synthetic, width, 1, value)
    found = exp3_heatmaps.exp3_heatmaps(source(), Options(out="unused", width=ALL))
    strip = part(found, "ftwb2_widths")
    assert [panel.heading for panel in strip.panels] == ["wide", "narrow"]
    assert list(strip.panels[0].values.index) == [f"ftwb2-{k}" for k in (4, 13, 15, 2, 9, 12)]
    assert strip.panels[0].values.loc["ftwb2-13", "compass"] == pytest.approx(0.5)
    assert strip.panels[1].values.loc["ftwb2-13", "compass"] == pytest.approx(1.0)
    fault = "left out: no seed has both an evaluated base and a fine-tuned model"
    assert f"width base is {fault}" in found.caveats  # without the address of the store
    assert {name.split("_")[0] for name in found.missing["matrix"]} == {"wide", "narrow"}


def of_width(synthetic, width, seed, value):
    """A base and a model of distance + perimeter with this accuracy on Atlantis."""
    base = synthetic.run("pretrain", f"pt1@{width}", seed)
    metrics = {f"atlantis/{task}/mean": 0.2 for task in ACCURACIES}
    metrics |= {f"standard/{task}/mean": 0.9 for task in ACCURACIES}
    synthetic.evaluate(f"pt1@{width}", seed, base, metrics)
    model = f"pt1@{width}_ftwb2-13"
    run = synthetic.run("finetune", model, seed, tags={"base_run_id": base})
    own = {f"atlantis/{task}/mean": value for task in ACCURACIES}
    synthetic.evaluate(model, seed, run, own, base)


def test_widths_are_compared_over_the_seeds_that_all_have(synthetic):
    of_width(synthetic, "wide", 42, 0.9)
    of_width(synthetic, "narrow", 42, 0.9)
    of_width(synthetic, "narrow", 1, 0.2)
    found = exp3_heatmaps.exp3_heatmaps(source(), Options(out="unused", width=ALL))
    strip = part(found, "ftwb2_widths")
    for panel in strip.panels:
        assert panel.values.loc["ftwb2-13", "compass"] == pytest.approx(1.0)
    assert strip.title.endswith("by width, seed 42 only: no spread")
    assert "seeds that all widths have, which are compared side by side: 42" in found.caveats
    mean = part(found, "narrow_ftwb2_aggregate").values.loc["ftwb2-13", "compass"]
    assert mean == pytest.approx(0.5)


def test_one_width_can_be_chosen_and_only_here_all(synthetic, tmp_path):
    synthetic.tuned("ftwb1-1", synthetic.base(), 0.5)
    found = exp3_heatmaps.exp3_heatmaps(source(), Options(out="unused"))
    assert {part.name.split("_")[0] for part in found.parts} == {"base"}
    code, _, error = invoke(ft_heatmaps.main, "--width", "all", "--out", str(tmp_path))
    assert code == 2 and "unknown width 'all'" in error
    with pytest.raises(StateError, match="among 9.*width wide"):
        exp3_heatmaps.exp3_heatmaps(source(), Options(out="unused", width=ALL, seeds=(9,)))


# Predictors


def test_predictions_and_their_errors(synthetic, tmp_path):
    a_few(synthetic)
    out = tmp_path / "p"
    code, text, _ = invoke(predictors.main, "--out", str(out), "--no-log")
    assert code == 0
    facts = json.loads((out / "statistics.json").read_text())["statistics"]["predictors"]
    assert facts["maximum"]["mae"] == pytest.approx(0.1)  # 0.9 - 0.8
    assert facts["mean"]["mae"] == pytest.approx(0.2)
    assert facts["minimum"]["mae"] == pytest.approx(0.3)
    assert facts["maximum"]["n"] == 7 and facts["maximum"]["missing"] == 140
    assert facts["maximum"]["mae_low"] is None  # one seed
    assert facts["maximum_with_decay"]["mae"] is None  # no other model to fit it on
    assert "maximum: mean absolute error 0.100" in text
    table = pd.read_csv(out / "predictors_maximum.csv").dropna()
    assert set(table["model"]) == {"ftwb2-13"}
    assert table["predicted"].tolist() == pytest.approx([0.8] * 7)
    assert (table["cells"] == "trained").sum() == 2


def test_other_families_are_predicted_from_their_own_specialists(synthetic):
    a_few(synthetic)
    found = predictors.predictors(source(), Options(out="unused"), family="ft2")
    assert found.all_statistics["predictors"]["maximum"]["mae"] == pytest.approx(0.1)
    assert set(found.missing["matrix"]) == {"ft1", "ft2"}
    with pytest.raises(StateError, match="has no ftwb3 model beside the one-task models"):
        predictors.predictors(source(), Options(out="unused"), family="ftwb3")
    with pytest.raises(InputError, match="unknown family 'ftwb1'"):
        predictors.predictors(source(), Options(out="unused"), family="ftwb1")


def test_every_pair_is_a_row(synthetic):
    a_few(synthetic)
    found = predictors.predictors(source(), Options(out="unused"))
    table = part(found, "predictors_mean").table
    assert set(table["model"]) == {ft for ft in FINETUNINGS if ft.startswith("ftwb2-")}
