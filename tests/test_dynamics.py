"""Curves of trainings and break-out steps, against a store whose every number is known."""

import itertools
import math

import pandas as pd
import pytest
from drawn_text import clashes
from mlflow.entities import Metric
from synthetic import part

from analysis.dynamics import dynamics
from analysis.dynamics.statistics import summarize_breakouts
from analysis.options import Options
from analysis.store.selection import family_of, named_models
from analysis.store.source import Source
from worldrep.data.sets import Schedule, maker_of, stack_rows, training_sets
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import PAD
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, parse_model
from worldrep.scales import resolve
from worldrep.tracking import Store

STEPS = (0, 10, 20, 30)
ERRORS, SHARES = (100.0, 80.0, 50.0, 40.0), (0.1, 0.3, 0.6, 0.9)  # both break out at 20


def learn(synthetic, run_id, splits=("standard",), loss=True, **other):
    """Curves for a training; other: a task's own values instead of those above."""
    curves = {"train/loss": ((5, 2.0), (15, 1.0), (30, 0.5))} if loss else {}
    for split, task in itertools.product(splits, TASK_NAMES):
        values = other.get(task, SHARES if TASKS[task].accuracy else ERRORS)
        curves[f"val/{split}/{task}/mean"] = zip(STEPS, values, strict=True)
    points = [
        Metric(name, value, synthetic.clock, step)
        for name, curve in curves.items()
        for step, value in curve
    ]
    synthetic.client.log_batch(run_id, points)
    return run_id


def base(synthetic, seed=1, model="pt1", curves=None, **changed):
    return learn(synthetic, synthetic.run("pretrain", model, seed, **changed), **(curves or {}))


def tuned(synthetic, ft, base_run, seed=1, curves=None, **changed):
    tags = {"base_run_id": base_run}
    run = synthetic.run("finetune", f"pt1_{ft}", seed, tags=tags, **changed)
    return learn(synthetic, run, ("standard", "atlantis"), **(curves or {}))


def result(models="all", align="step", by="none", **options):
    found = Options(out="unused", **options)
    return dynamics(Source(Store.connect()), found, models=models, align=align, by=by)


def breakouts(result, **wanted) -> pd.DataFrame:
    table = result.tables["breakout"]
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table.set_index("task")


# Break-outs


def test_break_outs_equal_hand_computed_ones(synthetic):
    never = {"inside": (0.5, 0.5, 0.6, 0.5), "angle": (100.0, 60.0, 51.0, 55.0)}
    early = {"crossing": (0.8, 0.5, 0.6, 0.9), "perimeter": (100.0, 50.0, 90.0, 90.0)}
    run = base(synthetic, curves=never | early)
    table = breakouts(result())
    assert table["breakout_step"][["distance", "trianglearea", "compass"]].tolist() == [20.0] * 3
    assert table["breakout_step"][["inside", "angle"]].isna().all()
    assert table["breakout_step"][["perimeter", "crossing"]].tolist() == [10.0, 0.0]
    assert set(table["run_id"]) == {run} and table["trained"].all()
    assert table["chance"]["compass"] == 1 / 8 and math.isnan(table["chance"]["angle"])
    assert (table["first"]["distance"], table["final"]["distance"]) == (100.0, 40.0)
    assert set(table["n_points"]) == {4} and set(table["last_step"]) == {30}


def test_accuracies_that_end_near_chance_are_marked(synthetic):
    # 100 validation rows: two standard errors of 1/2 are 0.1, of 1/8 they are 0.066
    ends = {"inside": 0.59, "crossing": 0.61, "compass": 0.19}
    base(synthetic, curves={task: (0.1, 0.1, 0.1, end) for task, end in ends.items()})
    found = result()
    table = breakouts(found)
    assert table["near_chance"][["inside", "crossing", "compass"]].tolist() == [True, False, True]
    assert not table["near_chance"]["distance"]
    assert any(
        "2 of the break-outs are of accuracies" in n for n in part(found, "breakout_pretrain").notes
    )


def test_break_outs_are_averaged_over_seeds(synthetic):
    late = (100.0, 90.0, 80.0, 10.0)
    early = (100.0, 10.0, 10.0, 10.0)
    for seed, distance in ((1, early), (2, ERRORS), (3, late), (4, (100.0,) * 4)):
        base(synthetic, seed, curves={"distance": distance})
    chart = part(result(), "breakout_pretrain")
    row = chart.table.set_index("task").loc["distance"]
    assert (row["mean"], row["std"], row["n_seeds"]) == (20.0, 10.0, 3)
    assert row["high"] - 20 == pytest.approx(4.302653 * 10 / math.sqrt(3))
    assert (row["broken_out"], row["runs"], row["parts"]) == (3, 4, (10.0, 20.0, 30.0))
    assert row["label"] == "distance (3/4)"
    assert any("1 of 28 curves never break out" in note for note in chart.notes)


def test_runs_of_one_seed_count_as_one_value():
    rows = [("finetune", "atlantis", "angle", "g", seed, step, False)
            for seed, step in ((1, 10.0), (1, 30.0), (1, math.nan), (2, 40.0))]  # fmt: skip
    names = ["stage", "split", "task", "group", "seed", "breakout_step", "near_chance"]
    (row,) = summarize_breakouts(pd.DataFrame(rows, columns=names), "breakout_step").to_dict(
        "records"
    )
    assert (row["mean"], row["n_seeds"], row["parts"]) == (30.0, 2, (20.0, 40.0))
    assert (row["broken_out"], row["runs"]) == (3, 4)


def test_fine_tunings_are_averaged_by_family_and_trained_tasks_apart(synthetic):
    start = base(synthetic)
    slow = {"curves": {"distance": (100.0, 90.0, 80.0, 10.0)}}
    tuned(synthetic, "ftwb1-1", start)
    tuned(synthetic, "ftwb1-2", start, **slow)
    tuned(synthetic, "ftwb2-1", start)
    chart = part(result(), "breakout_finetune")
    own = chart.table[chart.table["task"] == "distance"].set_index("group")
    assert own["mean"].to_dict() == {
        "ftwb1 trained": 20.0, "ftwb1 transfer": 30.0, "ftwb2 trained": 20.0,
    }  # fmt: skip
    assert set(chart.table["split"]) == {"atlantis"}
    assert "ftwb1 transfer/standard/distance" in chart.statistics["breakout_finetune"]


def test_one_seed_has_no_spread(synthetic):
    base(synthetic)
    chart = part(result(), "breakout_pretrain")
    assert chart.title.endswith("seed 1: no spread")
    assert chart.table[["std", "low", "high"]].isna().all(axis=None)


# Curves


def test_a_page_has_the_loss_and_every_suite(synthetic):
    start = base(synthetic)
    run = tuned(synthetic, "ftwb1-1", start)
    found = result()
    page = part(found, "finetune")
    assert list(page.facets) == [
        "training loss (nats per token)",
        *(facet for facet in page.facets if facet.startswith("standard: ")),
        *(facet for facet in page.facets if facet.startswith("atlantis: ")),
    ]
    assert len(page.facets) == 15 and len(part(found, "pretrain").facets) == 8
    loss = page.table[page.table["split"] == "loss"]
    assert dict(zip(loss["step"], loss["value"], strict=True)) == {5: 2.0, 15: 1.0, 30: 0.5}
    assert set(loss["run_id"]) == {run}
    assert "atlantis: distance (0.1 degree)" in page.log_y
    assert "atlantis: compass (share right)" not in page.log_y
    shares = page.table[page.table["task"] == "inside"]
    assert set(shares["chance"]) == {0.5}


def test_the_median_of_a_group_stands_out(synthetic):
    for seed, scale in ((1, 1.0), (2, 2.0), (3, 9.0)):
        base(synthetic, seed, curves={"distance": tuple(scale * value for value in ERRORS)})
    table = part(result(), "pretrain").table
    own = table[(table["task"] == "distance") & table["thick"]]
    assert own["value"].tolist() == [200.0, 160.0, 100.0, 80.0]
    assert set(own["seed"]) == {"median"} and set(own["run_id"]) == {""}
    assert not table[table["run_id"] != ""]["thick"].any()


def test_many_models_are_told_apart_by_family(synthetic):
    start = base(synthetic)
    for k in range(1, 8):
        tuned(synthetic, f"ftwb1-{k}", start)
    tuned(synthetic, "ftwb2-1", start)
    assert part(result(), "finetune").group == "label"
    tuned(synthetic, "ftwb2-2", start)
    page = part(result(), "finetune")
    assert page.group == "family" and list(page.styles) == ["ftwb1", "ftwb2"]


def test_tokens_are_close_to_those_that_a_training_reads(synthetic):
    base(synthetic, scale="smoke")
    tuned(synthetic, "ftwb1-4", "b", scale="smoke")
    found = result(align="tokens", scale="smoke")
    for model in ("pt1", "pt1_ftwb1-4"):
        settings = resolve(parse_model(model), scale="smoke")
        rows = stack_rows(maker_of(settings), training_sets(settings, maker_of(settings).world))
        steps = Schedule.of(settings, len(rows)).steps
        read = (rows != PAD).sum() * settings.epochs / steps
        own = breakouts(found, model=model, split="standard").loc["distance"]
        assert own["breakout_step"] == 20
        assert own["breakout_tokens"] == pytest.approx(20 * read, rel=0.03)
    assert part(found, "pretrain").x == "tokens"
    assert any("tokens are not logged with the steps" in caveat for caveat in found.caveats)


def test_settings_that_do_not_tell_the_tokens_leave_them_missing(synthetic):
    run = synthetic.client.create_run(
        synthetic.experiment_id,
        1_700_000_000_000,
        {
            f"worldrep.{key}": value
            for key, value in {
                "stage": "pretrain", "model": "pt1", "pretrain": "pt1", "ft": "none", "seed": "7",
                "width": "base", "world": "standard", "scale": "mini",
            }.items()
        },
    )  # fmt: skip
    learn(synthetic, run.info.run_id)
    synthetic.client.set_terminated(run.info.run_id)
    found = result(align="tokens")
    assert breakouts(found)["breakout_tokens"].isna().all()
    assert any("pt1 seed 7: how many tokens a step has is not known" in c for c in found.caveats)


# Which runs


def test_only_finished_trainings_of_this_kind_count(synthetic):
    run = base(synthetic)
    for status in ("RUNNING", "FAILED", "KILLED"):
        base(synthetic, status=status, curves={"distance": (1.0,) * 4})
    for other in ({"world": "scattered"}, {"scale": "smoke"}, {"model": "pt1@wide"}):
        base(synthetic, 2, curves={"distance": (1.0,) * 4}, **other)
    found = result()
    assert found.runs_used.index.tolist() == [run] and found.caveats == []
    assert list(found.seeds) == [1]
    assert set(part(found, "pretrain").table["run_id"]) == {run}


def test_the_current_training_of_several_is_used_and_named(synthetic):
    older = base(synthetic, curves={"distance": (100.0, 90.0, 90.0, 90.0)})
    newer = base(synthetic)
    trial = base(synthetic, curves={"distance": (1.0,) * 4}, epochs=999)
    found = result()
    assert found.runs_used.index.tolist() == [newer]
    why = "the newest of 2 finished trainings of the model as its name stands today"
    assert found.runs_used.loc[newer, "why"] == why
    (caveat,) = found.caveats
    assert caveat.startswith(f"pt1 seed 1 has 3 finished trainings: {newer} is used")
    assert older in caveat and trial in caveat


def test_a_model_of_other_settings_is_noted(synthetic):
    base(synthetic, 1)
    base(synthetic, 2, epochs=999)
    first, second = result().caveats
    assert first.startswith("pt1 seed 2 is not trained as the name alone stands for today")
    assert second.startswith("the bases differ in epochs")


def test_models_and_seeds_that_are_not_trained_are_missing(synthetic):
    tuned(synthetic, "ftwb1-1", base(synthetic, 1), 1)
    base(synthetic, 2)
    missing = result().missing
    assert missing[["model", "seed"]].to_numpy().tolist() == [["pt1_ftwb1-1", 2]]
    command = "mlflow run . -e finetune -P ft=ftwb1-1 -P seed=2 -P scale=mini --env-manager local"
    assert missing["command"].tolist() == [command]
    asked = result(models="pt1_ftwb1-1..2").missing
    assert set(zip(asked["model"], asked["seed"], strict=True)) == {("pt1_ftwb1-2", 1)}


def test_a_training_without_a_curve_is_missing(synthetic):
    run = base(synthetic, curves={"loss": False})
    (row,) = result().missing.to_dict("records")
    assert row["reason"] == f"training {run} has no curve train/loss"
    assert row["command"].startswith(
        f"mlflow runs delete --run-id {run} && mlflow run . -e pretrain"
    )


def test_trainings_of_one_model_are_compared_by_a_setting(synthetic):
    usual = base(synthetic)
    slow = {"curves": {"distance": (100.0, 90.0, 80.0, 10.0)}}
    other = base(synthetic, optimizer="adamw", **slow)
    found = result(by="optimizer")
    assert set(found.runs_used.index) == {usual, other}
    table = breakouts(found, split="standard").loc["distance"].set_index("label")
    steps = {"pt1 optimizer=muon": 20.0, "pt1 optimizer=adamw": 30.0}
    assert table["breakout_step"].to_dict() == steps
    page = part(found, "pretrain")
    assert set(page.styles) == set(steps)
    assert not any("finished trainings" in caveat for caveat in found.caveats)
    assert result().runs_used.index.tolist() == [usual]  # by name alone


def test_models_are_chosen_by_name(synthetic):
    start = base(synthetic)
    for k in (1, 2, 3):
        tuned(synthetic, f"ftwb1-{k}", start)
    found = result(models="pt1_ftwb1-2..3")
    assert [chart.name for chart in found.parts] == ["finetune", "breakout_finetune"]
    assert set(found.runs_used["model"]) == {"pt1_ftwb1-2", "pt1_ftwb1-3"}


def test_model_names_are_read_as_those_of_a_study():
    options = Options(out="unused", width="wide")
    names = list(map(str, named_models("pt1_ftwb2-2, pt1,pt1_ftwb1-1..2", options)))
    assert names == ["pt1@wide", "pt1@wide_ftwb1-1", "pt1@wide_ftwb1-2", "pt1@wide_ftwb2-2"]
    assert named_models("all", options) == ()
    for text in ("pt9", "", "pt1_ftwb1-3..1", "pt1@narrow"):
        with pytest.raises(InputError):
            named_models(text, options)


def test_families():
    names = ("pt1", "pt1-3", "pt2-1", "pt1_ftwb2-13", "pt1@wide_ft1-2", "pt2-1_ftwb1-1")
    families = [family_of(parse_model(name)) for name in names]
    assert families == ["pt1", "pt1-X", "pt2", "ftwb2", "ft1", "pt2_ftwb1"]


def test_a_model_of_an_unknown_name_is_left_out_and_said(synthetic):
    base(synthetic)
    run = base(synthetic, 2)
    synthetic.client.set_tag(run, "worldrep.model", "pt7")
    found = result()
    assert run not in found.runs_used.index
    assert "left out, as this version does not know their names: pt7" in found.caveats


# What comes out


def test_what_came_out_is_shown_and_said(synthetic):
    tuned(synthetic, "ftwb1-1", base(synthetic))
    found = result(align="tokens")
    chart = part(found, "breakout_pretrain")
    assert chart.table["label"][0] == "distance (1/1)" and chart.said == chart.notes
    names = ["pretrain", "breakout_pretrain", "finetune", "breakout_finetune"]
    assert [chart.name for chart in found.parts] == names
    distance = found.all_statistics["breakout_pretrain"]["pt1/standard/distance"]
    assert distance["runs"] == 1 and math.isnan(distance["std"])
    assert found.tags["align"] == "tokens" and len(found.runs_used) == 2


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ({"align": "time"}, "unknown align 'time'"),
        ({"by": "optimiser"}, "unknown setting 'optimiser'"),
        ({"models": "pt9"}, "unknown pretrain 'pt9'"),
        ({"models": "pt1_ftwb1-3..1"}, "run backwards"),
    ],
)
def test_what_was_typed_wrongly_is_an_input_error(synthetic, typed, text):
    base(synthetic)
    with pytest.raises(InputError, match=text):
        result(**typed)


def test_a_store_with_nothing_to_show_says_what_it_has(synthetic):
    with pytest.raises(StateError, match="has no finished training"):
        result()
    base(synthetic, scale="smoke")
    with pytest.raises(StateError, match="it has 1 of scale smoke"):
        result()
    base(synthetic)
    for asked in ({"models": "pt2-1"}, {"seeds": (5,)}):
        with pytest.raises(StateError, match="it has pt1 with seeds 1"):
            result(**asked)


# Figures


@pytest.mark.parametrize("align", ["step", "tokens"])
def test_no_text_is_cut_off_or_overlaps_another(synthetic, align):
    for seed in (1, 2):
        start = base(synthetic, seed)
        for ft in ("ftwb1-1", "ftwb2-21"):
            tuned(synthetic, ft, start, seed, curves={"trianglearea": (3_240_000.0, 9e5, 1e5, 5e4)})
    for chart in result(align=align).parts:
        assert clashes(chart.draw("scale mini, width base; " + "x" * 60)) == [], chart.name
