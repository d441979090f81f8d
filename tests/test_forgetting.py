"""What fine-tuning forgets, against a store whose every number is known."""

import math

import numpy as np
import pandas as pd
import pytest
from drawn_text import clashes
from hypothesis import given
from hypothesis import strategies as st
from synthetic import part, score, values

from analysis.forgetting import forgetting
from analysis.forgetting.charts import MOST_LABELS, gain_against_loss
from analysis.forgetting.reading import EVALUATED, VALIDATED
from analysis.forgetting.statistics import (
    ALL_TASKS,
    NO_LOGARITHM,
    halfway_summary,
    halfway_table,
    mean_over_seeds,
    pareto_front,
)
from analysis.options import Options
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import StateError
from worldrep.names import TASK_NAMES, ModelName
from worldrep.tracking import Store

LN10 = math.log(10)
# Standard values: the base's are 0.9 and 1, so that these are changes of -4 and -ln 10.
FORGOTTEN = {task: 0.5 if TASKS[task].accuracy else 10.0 for task in TASK_NAMES}
CHANGES = [-4 if TASKS[task].accuracy else -LN10 for task in TASK_NAMES]
MEAN_CHANGE = (-3 * 4 - 4 * LN10) / 7


def result(**options):
    return forgetting(Source(Store.connect()), Options(out="unused", **options))


def standard(numbers) -> dict[str, float]:
    return {f"standard/{task}/mean": value for task, value in numbers.items()}


def tuned(synthetic, ft, base, numbers=FORGOTTEN, gain=0.5, seed=1, **changed):
    """A fine-tuned and evaluated model; its training's run id."""
    model_run = synthetic.tuned(ft, base, gain, seed, evaluated=False, **changed)
    metrics = values(gain) | standard(numbers)
    synthetic.evaluate(str(ModelName("pt1", ft)), seed, model_run, metrics, base, **changed)
    return model_run


def evaluate_steps(synthetic, ft, model_run, base, steps, seed=1, checkpoints="all", **changed):
    """An evaluation of several checkpoints. steps: step -> (standard values, gain)."""
    model = str(ModelName("pt1", ft))
    tags = {"checkpoints": checkpoints}
    run_id = synthetic.evaluate(model, seed, model_run, {}, base, tags, **changed)
    _log(synthetic, run_id, steps)
    return run_id


def _log(synthetic, run_id, steps, prefix=""):
    for task in TASK_NAMES:
        points = {step: numbers[task] for step, (numbers, _) in steps.items()}
        synthetic.curve(run_id, f"{prefix}standard/{task}/mean", points)
        points = {step: score(task, gain) for step, (_, gain) in steps.items()}
        synthetic.curve(run_id, f"{prefix}atlantis/{task}/mean", points)


def standing(accuracy, error) -> dict[str, float]:
    return {task: accuracy if TASKS[task].accuracy else error for task in TASK_NAMES}


BASE = standing(0.9, 1.0)


# The change at the end


def test_changes_of_one_seed_equal_hand_computed_ones(synthetic):
    tuned(synthetic, "ftwb1-1", synthetic.base())
    found = result()
    matrix = part(found, "change_ftwb1_seed1").values
    assert list(matrix.columns) == list(TASK_NAMES) and len(matrix) == 7
    assert matrix.loc["ftwb1-1"].tolist() == pytest.approx(CHANGES)
    assert matrix.loc["ftwb1-2"].isna().all()
    facts = found.all_statistics["change_ftwb1_seed1"]
    assert facts["trained"] == {"mean": pytest.approx(-LN10), "std": 0, "n": 1, "missing": 6}
    assert facts["transfer"]["mean"] == pytest.approx((-12 - 3 * LN10) / 6)
    assert (facts["transfer"]["n"], facts["transfer"]["missing"]) == (6, 36)

    cells = found.tables["values"].set_index(["ft", "task"])
    assert cells.loc[("ftwb1-1", "distance"), "raw_change"] == 9
    assert cells.loc[("ftwb1-1", "inside"), "raw_change"] == pytest.approx(-0.4)
    assert cells.loc[("ftwb1-1", "trianglearea"), "unit"] == "0.01 square degree"
    raw = found.tables["raw_change"].set_index("model")
    assert list(raw.columns)[1:] == [f"{task} ({TASKS[task].unit})" for task in TASK_NAMES]
    assert raw.loc["pt1_ftwb1-1", "angle (degree)"] == 9
    trained = found.all_statistics["raw_change"]["ftwb1"]["distance"]["trained"]
    assert trained == {"mean": 9.0, "std": 0.0, "n": 1, "missing": 0}


def test_the_aggregate_and_the_raw_change_have_their_spread_over_seeds(synthetic):
    for seed, error in ((1, 10.0), (2, 1000.0)):
        tuned(synthetic, "ftwb1-1", synthetic.base(seed), standing(0.9, error), seed=seed)
    found = result()
    panel = part(found, "change_ftwb1_aggregate")
    assert panel.matrix.mean.loc["ftwb1-1", "distance"] == pytest.approx(-2 * LN10)
    assert panel.matrix.spread.loc["ftwb1-1", "distance"] == pytest.approx(LN10)  # ddof=0
    assert panel.matrix.mean.loc["ftwb1-1", "compass"] == 0
    raw = found.tables["raw_change_over_seeds"].set_index(["model", "task"])
    distance = raw.loc[("pt1_ftwb1-1", "distance")]
    assert distance["mean"] == 504 and distance["std"] == pytest.approx(990 / math.sqrt(2))
    assert (distance["n"], distance["missing"]) == (2, 0)


def test_every_model_is_compared_with_the_very_base_that_it_started_from(synthetic):
    old = synthetic.base(epochs=1)
    worse = {f"standard/{task}/mean": value for task, value in standing(0.6, 5.0).items()}
    newer = synthetic.base(evaluated=False)
    atlantis = {f"atlantis/{task}/mean": score(task, 0) for task in TASK_NAMES}
    synthetic.evaluate("pt1", 1, newer, atlantis | worse)
    tuned(synthetic, "ftwb1-1", old)
    tuned(synthetic, "ftwb1-2", newer)
    found = result()
    matrix = part(found, "change_ftwb1_seed1").values
    assert matrix.loc["ftwb1-1"].tolist() == pytest.approx(CHANGES)
    other = [-0.25 if TASKS[task].accuracy else -math.log(2) for task in TASK_NAMES]
    assert matrix.loc["ftwb1-2"].tolist() == pytest.approx(other)
    assert any("seed 1 has 2 bases" in caveat for caveat in found.caveats)


def test_other_worlds_scales_and_several_checkpoints_do_not_enter_the_final_values(synthetic):
    base = synthetic.base()
    model = tuned(synthetic, "ftwb1-1", base)
    scattered = synthetic.base(world="scattered")
    tuned(synthetic, "ftwb1-1", scattered, standing(0.1, 99.0), world="scattered")
    evaluate_steps(synthetic, "ftwb1-1", model, base, {7: (standing(0.1, 99.0), 1.0)})
    only_steps = synthetic.tuned("ftwb1-2", base, 0.5, evaluated=False)
    evaluate_steps(synthetic, "ftwb1-2", only_steps, base, {7: (standing(0.1, 99.0), 1.0)})
    found = result()
    matrix = part(found, "change_ftwb1_seed1").values
    assert matrix.loc["ftwb1-1"].tolist() == pytest.approx(CHANGES)
    assert matrix.loc["ftwb1-2"].isna().all()
    reasons = found.missing.set_index(["matrix", "model"])["reason"]
    assert set(reasons[("change_ftwb1", "ftwb1-2")]) == {"the model is not evaluated"}


def test_what_is_missing_has_its_reason_and_command(synthetic):
    base = synthetic.base()
    lacking = {task: value for task, value in FORGOTTEN.items() if task != "angle"}
    tuned(synthetic, "ftwb1-1", base, lacking)
    bare = synthetic.base(2, splits=("atlantis",))
    tuned(synthetic, "ftwb1-1", bare, seed=2)
    unknown = synthetic.base(evaluated=False, epochs=1)
    tuned(synthetic, "ftwb1-3", unknown)
    found = result()
    missing = found.missing[found.missing["matrix"] == "change_ftwb1"]
    missing = missing.set_index(["seed", "model", "task"])[["reason", "command"]]
    assert "has no number standard/angle/mean" in missing.loc[(1, "ftwb1-1", "angle"), "reason"]
    again = missing.loc[(1, "ftwb1-1", "angle"), "command"]
    assert again.startswith("mlflow runs delete") and "-e evaluate -P run_id=" in again
    assert (1, "ftwb1-1", "distance") not in missing.index
    assert len(missing.loc[(2, "ftwb1-1")]) == 7
    assert f"(run {unknown}) is not evaluated" in missing.loc[(1, "ftwb1-3", "angle"), "reason"]
    evaluate = missing.loc[(1, "ftwb1-3", "angle"), "command"]
    assert evaluate == f"mlflow run . -e evaluate -P run_id={unknown} --env-manager local"
    untrained = missing.loc[(1, "ftwb1-4", "angle"), "command"]
    assert untrained.startswith("mlflow run . -e finetune -P ft=ftwb1-4 -P seed=1")
    for seed in (1, 2):
        facts = found.all_statistics[f"change_ftwb1_seed{seed}"]["all"]
        assert facts["missing"] == len(missing.loc[seed])


def test_an_error_of_zero_and_a_perfect_base_are_said(synthetic):
    base = synthetic.base(evaluated=False)
    atlantis = {f"atlantis/{task}/mean": score(task, 0) for task in TASK_NAMES}
    synthetic.evaluate("pt1", 1, base, atlantis | standard(standing(1.0, 1.0) | {"angle": 0.0}))
    tuned(synthetic, "ftwb1-1", base)
    found = result()
    row = part(found, "change_ftwb1_seed1").values.loc["ftwb1-1"]
    assert math.isnan(row["angle"]) and row["compass"] == -0.5
    cells = found.tables["values"].set_index(["ft", "task"])
    cell = cells.loc[("ftwb1-1", "angle")]
    assert (cell["raw_change"], cell["reason"], cell["command"]) == (10, NO_LOGARITHM, "")
    assert f"angle of seeds 1: {NO_LOGARITHM}" in found.caveats
    assert any(caveat.startswith("compass of seeds 1; inside of") for caveat in found.caveats)
    assert found.all_statistics["gain_against_loss"]["models"]["ftwb1-1"]["n"] == 0


def test_families_of_the_store_are_drawn_and_the_others_named(synthetic):
    base = synthetic.base()
    tuned(synthetic, "ft3-2", base)
    synthetic.tuned("ftwb2-1", base, 0.5, evaluated=False)
    found = result()
    names = {part.name for part in found.parts}
    assert {"change_ft3_seed1", "change_ftwb2_seed1"} < names
    assert "change_ftwb1_seed1" not in names
    assert "ftwb1, ftwb3, ft1, ft2: left out, the store has no such model" in found.caveats
    assert part(found, "change_ft3_aggregate").title.endswith("seed 1 only: no spread")


# The plane


def test_the_plane_has_mean_points_their_spread_and_the_seeds(synthetic):
    for seed, gain in ((1, 0.2), (2, 0.4)):
        base = synthetic.base(seed)
        tuned(synthetic, "ftwb1-1", base, gain=gain, seed=seed)
        tuned(synthetic, "ftwb1-2", base, standing(0.9, 1.0), gain=0.1, seed=seed)
        tuned(synthetic, "ftwb2-1", base, standing(0.4, 20.0), gain=0.1, seed=seed)
    tuned(synthetic, "ftwb1-3", base, gain=0.1, seed=2)
    found = result()
    chart = part(found, "gain_against_loss")
    means = chart.table[~chart.table["one_seed"]].set_index("label")
    first = means.loc["ftwb1-1"]
    assert first["change"] == pytest.approx(MEAN_CHANGE) and first["gain"] == pytest.approx(0.3)
    assert first["gain_std"] == pytest.approx(0.2 / math.sqrt(2)) and first["n"] == 2
    assert first["change_std"] == pytest.approx(0)
    assert means.index[means["on_front"]].tolist() == ["ftwb1-1", "ftwb1-2"]
    single = means.loc["ftwb1-3"]
    assert (single["n"], single["missing"]) == (1, 1) and math.isnan(single["gain_std"])
    assert math.isnan(means.loc["ftwb1-7", "gain"])
    seeds = chart.table[chart.table["one_seed"] & (chart.table["label"] == "ftwb1-1")]
    assert seeds["gain"].tolist() == pytest.approx([0.2, 0.4])
    assert "1 of the models lack some of the seeds: their means are of the others" in chart.notes
    assert any("24 of the models have no point" in note for note in chart.notes)
    assert found.all_statistics["gain_against_loss"]["front"] == ["ftwb1-1", "ftwb1-2"]


def strategies(n: int, seeds=(1, 2)) -> pd.DataFrame:
    """Points of n models in two groups: the more gain, the more loss."""
    return pd.DataFrame(
        [
            {
                "strategy": "replay" if i % 2 else "none", "label": f"model {i}",
                "model": f"m{i}", "seed": seed, "run_id": "r",
                "change": -i * 0.5 - 0.02 * seed, "gain": i / n + 0.01 * seed,
            }
            for i in range(n)
            for seed in seeds
        ]
    )  # fmt: skip


def test_the_plane_takes_any_groups():
    chart = gain_against_loss("strategies_by_model", strategies(3), "strategy")
    assert list(chart.styles) == ["none", "replay"]
    assert chart.statistics["strategies_by_model"]["front"] == ["model 0", "model 1", "model 2"]
    assert chart.table["text"].tolist()[:3] == ["model 0", "model 1", "model 2"]
    one_seed = gain_against_loss("strategies_by_model", strategies(3, (5,)), "strategy")
    assert any(note.endswith("of one seed: no spread") for note in one_seed.notes)


def test_in_a_crowd_only_the_front_is_named():
    points = strategies(MOST_LABELS + 2)
    points.loc[points["label"] != "model 3", "gain"] = 0.0
    points["change"] = np.where(points["label"] == "model 3", 0.0, -1.0)
    chart = gain_against_loss("strategies_by_model", points, "strategy")
    assert [text for text in chart.table["text"] if text] == ["model 3"]


def test_the_front_of_hand_made_points():
    change = [0.0, -1.0, -2.0, -2.0, -1.0, math.nan, -1.0]
    gain = [0.1, 0.5, 0.4, 0.9, 0.5, 5.0, 0.4]
    assert pareto_front(change, gain).tolist() == [True, True, False, True, True, False, False]
    assert pareto_front([], []).tolist() == []


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.floats(-9, 9)).map(lambda p: (round(p[0]), round(p[1]))),
        min_size=1,
    )
)
def test_the_front_is_not_dominated_and_dominates_the_rest(points):
    front = pareto_front(*zip(*points, strict=True))
    assert front.any()
    for i, (x, y) in enumerate(points):
        above = [(a, b) for a, b in points if a >= x and b >= y and (a, b) != (x, y)]
        assert front[i] == (not above)


def test_a_seed_without_both_values_is_counted_not_averaged():
    points = strategies(1, (1, 2, 3))
    points.loc[2, "gain"] = math.nan
    (row,) = mean_over_seeds(points, ["strategy", "label"]).to_dict("records")
    assert (row["n"], row["missing"]) == (2, 1)
    assert row["change"] == pytest.approx(-0.03) and row["gain"] == pytest.approx(0.015)


# Curves


def test_a_curve_starts_at_its_base_and_half_of_it_is_found(synthetic):
    base = synthetic.base()
    model = tuned(synthetic, "ftwb1-1", base, gain=1.0)
    steps = {
        100: (standing(0.8, math.exp(2)), 0.25),
        200: (standing(0.4, math.exp(3)), 0.75),
        400: (standing(0.5, math.exp(4)), 1.0),
    }
    run_id = evaluate_steps(synthetic, "ftwb1-1", model, base, steps)
    found = result()
    table = part(found, "course_standard").table
    own = table[table["task"] == "distance"]
    assert own["step"].tolist() == [0, 100, 200, 400]
    assert own["value"].tolist() == pytest.approx([1, math.exp(2), math.exp(3), math.exp(4)])
    assert own["normalised"].tolist() == pytest.approx([0, -2, -3, -4])
    assert set(own["measured_by"]) == {EVALUATED} and set(own["run_id"]) == {run_id}
    halfway = found.tables["halfway"].set_index(["split", "task"])
    assert halfway.loc[("standard", "distance"), "halfway_step"] == pytest.approx(100)
    e = math.exp
    raw = 200 + 200 * ((e(4) + 1) / 2 - e(3)) / (e(4) - e(3))
    assert halfway.loc[("standard", "distance"), "halfway_step_raw"] == pytest.approx(raw)
    # An accuracy falls from 0.9 by 0.1, then by 0.4, and ends 0.4 lower: half at 0.7.
    assert halfway.loc[("standard", "compass"), "halfway_step"] == pytest.approx(125)
    assert halfway.loc[("atlantis", "angle"), "halfway_step"] == pytest.approx(150)
    gain = halfway.loc[("atlantis", ALL_TASKS)]
    assert gain["halfway_step"] == pytest.approx(150) and gain["halfway_share"] == 150 / 400
    assert run_id in found.runs_used.index
    assert "course" not in set(found.missing["matrix"])
    assert not any("validations" in caveat for caveat in found.caveats)
    facts = found.all_statistics["halfway"]["ftwb1"]["atlantis"]["angle"]
    assert facts["mean"] == pytest.approx(150) and (facts["n"], facts["std"] > 0) == (1, False)


def test_validations_stand_in_where_no_checkpoints_are_evaluated(synthetic):
    base = synthetic.base()
    evaluated, validated = (tuned(synthetic, ft, base) for ft in ("ftwb1-1", "ftwb1-2"))
    steps = {10: (standing(0.6, 5.0), 0.3), 20: (FORGOTTEN, 0.5)}
    evaluate_steps(synthetic, "ftwb1-1", evaluated, base, steps)
    own_start = {0: (standing(0.8, 2.0), 0.0)}
    for run_id in (evaluated, validated):
        _log(synthetic, run_id, own_start | steps, "val/")
    found = result()
    table = part(found, "course_standard").table
    kinds = table.groupby("ft")["measured_by"].unique()
    assert kinds["ftwb1-1"].tolist() == [EVALUATED] and kinds["ftwb1-2"].tolist() == [VALIDATED]
    own = table[(table["ft"] == "ftwb1-2") & (table["task"] == "compass")]
    assert own["value"].tolist() == [0.8, 0.6, 0.5]  # its own value at step 0, not the base's
    assert own["normalised"].tolist() == pytest.approx([0, -1, -1.5])
    assert set(table["the task was"]) == {
        f"{kind}; {rows}"
        for kind in ("trained", "not trained")
        for rows in ("500 test questions", "100 validation questions")
    }
    (row,) = found.missing[found.missing["matrix"] == "course"].to_dict("records")
    assert (row["model"], row["seed"]) == ("ftwb1-2", 1)
    assert row["command"] == (
        "mlflow run . -e evaluate -P model=pt1_ftwb1-2 -P seed=1 -P checkpoints=all -P scale=mini "
        "--env-manager local"
    )
    assert any("1 of 2 models and seeds are of the validations" in c for c in found.caveats)
    assert validated in found.runs_used.index and base not in found.runs_used.index


def test_a_list_of_steps_ends_with_the_last_checkpoint(synthetic):
    base = synthetic.base()
    model = synthetic.tuned("ftwb1-1", base, 0.5, evaluated=False)
    last = synthetic.evaluate("pt1_ftwb1-1", 1, model, {}, base)
    _log(synthetic, last, {40: (FORGOTTEN, 0.5)})
    evaluate_steps(synthetic, "ftwb1-1", model, base, {10: (BASE, 0.1)}, checkpoints="10")
    table = part(result(), "course_standard").table
    assert table[table["task"] == "angle"]["step"].tolist() == [0, 10, 40]
    assert table[table["task"] == "angle"]["value"].tolist() == [1, 1, 10]


def test_of_several_evaluations_the_one_with_most_steps_is_used(synthetic):
    base = synthetic.base()
    model = tuned(synthetic, "ftwb1-1", base)
    steps = {10: (BASE, 0.1), 20: (FORGOTTEN, 0.5)}
    longest = evaluate_steps(synthetic, "ftwb1-1", model, base, steps)
    evaluate_steps(synthetic, "ftwb1-1", model, base, {10: (BASE, 0.1)}, checkpoints="10")
    other = synthetic.tuned("ftwb1-1", base, 0.5, evaluated=False, epochs=99)
    evaluate_steps(synthetic, "ftwb1-1", other, base, steps | {30: (FORGOTTEN, 0.9)})
    found = result()
    assert set(part(found, "course_standard").table["run_id"]) == {longest}
    why = found.runs_used.loc[longest, "why"]
    assert why == "curve: checkpoints all, the one with most steps of 2"


def test_checkpoints_without_their_base_fall_back_and_are_missing(synthetic):
    base, other = synthetic.base(evaluated=False), synthetic.base(epochs=1)
    tuned(synthetic, "ftwb1-2", other)
    model = synthetic.tuned("ftwb1-1", base, 0.5, evaluated=False)
    evaluate_steps(synthetic, "ftwb1-1", model, base, {10: (FORGOTTEN, 0.5)})
    _log(synthetic, model, {0: (BASE, 0.0), 10: (FORGOTTEN, 0.5)}, "val/")
    found = result()
    assert set(part(found, "course_standard").table["measured_by"]) == {VALIDATED}
    curves = found.missing[found.missing["matrix"] == "course"].set_index("model")
    assert "not the base that they started from" in curves.loc["ftwb1-1", "reason"]
    assert f"-P run_id={base}" in curves.loc["ftwb1-1", "command"]
    assert "no validations from step 0" in curves.loc["ftwb1-2", "reason"]


def test_a_store_without_curves_says_so(synthetic):
    tuned(synthetic, "ftwb1-1", synthetic.base())
    found = result()
    assert not any(part.name.startswith(("course", "halfway")) for part in found.parts)
    assert "no model has a curve: neither evaluated checkpoints nor validations by step" in (
        found.caveats
    )
    (row,) = found.missing[found.missing["matrix"] == "course"].to_dict("records")
    assert "-P checkpoints=all" in row["command"]


def curve(value_by_step, normalised, **changed) -> pd.DataFrame:
    known = {
        "model": "m", "ft": "ftwb1-1", "seed": 1, "split": "standard", "task": "angle",
        "trained": False, "measured_by": "", "rows": "8", "run_id": "r", "model_run_id": "t",
    }  # fmt: skip
    steps = {"step": list(value_by_step), "value": list(value_by_step.values())}
    return pd.DataFrame({**steps, "normalised": normalised}).assign(**(known | changed))


def test_only_what_was_forgotten_has_a_halfway_step():
    kept = curve({0: 4.0, 10: 2.0}, [0, math.log(2)])
    no_logarithm = curve({0: 0.0, 10: 6.0, 20: 6.0}, [0, math.nan, math.nan], seed=2)
    lost = curve({0: 1.0, 10: 3.0, 20: 9.0}, [0, -math.log(3), -math.log(9)], seed=3)
    table = halfway_table(pd.concat([kept, no_logarithm, lost])).set_index("seed")
    assert table["happened"].tolist() == [False, True, True]
    assert table["halfway_step"].isna().tolist() == [True, True, False]
    assert table.loc[3, "halfway_step"] == pytest.approx(10)
    assert table.loc[3, "halfway_step_raw"] == pytest.approx(10 + 10 / 3)
    assert table.loc[2, "halfway_step_raw"] == pytest.approx(5)
    (row,) = halfway_summary(table.reset_index()).to_dict("records")
    assert (row["n_models"], row["n_happened"], row["n_early"], row["n"]) == (3, 1, 1, 1)
    assert row["mean"] == pytest.approx(10) and math.isnan(row["low"])


# Figures


def test_no_text_is_cut_off_or_overlaps_another(synthetic):
    for seed in (1, 42):
        base = synthetic.base(seed)
        for k, ft in enumerate(("ftwb1-1", "ftwb1-2", "ftwb2-13", "ft3-1")):
            end = standing(0.8 - 0.1 * k, 3.0 * 10**k), 0.3 + 0.1 * k + 0.01 * seed
            model = tuned(synthetic, ft, base, *end, seed=seed)
            steps = {0: (BASE, 0.0), 30_000: (standing(0.85, 2.0), 0.1), 56_670: end}
            _log(synthetic, model, steps, "val/")
        del steps[0]
        evaluate_steps(synthetic, ft, model, base, steps, seed)
    for found in (own for own in result().parts if "_seed" not in own.name):
        figure = found.draw("scale mini, width base, world standard; " + "x" * 60)
        assert clashes(figure) == [], found.name


def test_what_came_out_is_said_and_has_its_figures(synthetic):
    model = tuned(synthetic, "ftwb1-1", synthetic.base())
    _log(synthetic, model, {0: (BASE, 0.0), 10: (FORGOTTEN, 0.5)}, "val/")
    found = result(seeds=(1,))
    said = "\n".join(line for part in found.parts for line in part.said)
    assert "change_ftwb1_seed1: trained -2.303 ± 0.000 (n = 1, missing 6)" in said
    assert "not dominated: ftwb1-1 (change -3.03, gain 0.50) (of 1 models)" in said
    names = {part.name for part in found.parts}
    assert {"change_ftwb1_seed1", "gain_against_loss", "course_standard", "course_atlantis"} < names
    assert {"course_mean", "halfway_by_task"} < names
    assert set(found.tables) == {"values", "raw_change", "raw_change_over_seeds", "halfway"}
    assert found.all_statistics["halfway"]["ftwb1"]["standard"]["angle"]["mean"] == 5


def test_a_store_with_nothing_to_show_says_what_it_lacks(synthetic):
    with pytest.raises(StateError, match="no finished evaluation"):
        result()
    tuned(synthetic, "ftwb1-1", "gone")
    with pytest.raises(StateError, match="seeds with a base: none"):
        result()


def test_one_validation_curve_is_no_mean_over_tasks(synthetic):
    base = synthetic.base()
    model = synthetic.run("finetune", "pt1_ftwb1-1", 1, tags={"base_run_id": base})
    synthetic.evaluate("pt1_ftwb1-1", 1, model, {"atlantis/angle/mean": 3.0}, base)
    synthetic.curve(model, "val/standard/distance/mean", {0: 1.0, 10: 2.0, 20: 3.0})
    names = {part.name for part in result().parts}
    assert "course_standard" in names and "course_mean" not in names


def test_evaluations_of_other_questions_are_not_joined(synthetic):
    """Checkpoints evaluated with 100 questions do not begin at a base evaluated with 200."""
    base = synthetic.base()
    steps = {10: (standing(0.5, 3.0), 0.2), 20: (standing(0.2, 9.0), 0.4)}
    model = tuned(synthetic, "ftwb1-1", base, standing(0.2, 9.0), 0.4)
    evaluate_steps(synthetic, "ftwb1-1", model, base, steps, 1, test_rows=100)
    found = result()
    missing = found.missing[found.missing["matrix"] == "course"]
    assert missing["reason"].str.contains("with another number of questions than the base").all()
    assert len(missing) == 1 and "checkpoints=all" in missing["command"].iloc[0]
