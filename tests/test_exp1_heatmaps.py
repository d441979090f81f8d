"""The first analysis against a store whose every number is known."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from drivers import invoke
from synthetic import SyntheticStore, values

from analysis.command import open_source
from analysis.exp1_heatmaps import FAMILIES, exp1_heatmaps, main
from analysis.figures.heatmap import Panel
from analysis.figures.kinds import PERFORMANCE
from analysis.options import Options, parse_seeds
from analysis.result import publish
from analysis.statistics.matrices import (
    expected_matrix,
    specialists_of,
    trained_mask,
)
from analysis.store.source import Source
from entrypoints import evaluate, finetune, study
from worldrep.errors import InputError, StateError
from worldrep.names import FINETUNINGS, TASK_NAMES, ModelName
from worldrep.scales import resolve
from worldrep.tracking import Store

ONE, TWO = FAMILIES.values()


def result(**options):
    return exp1_heatmaps(Source(Store.connect()), Options(out="unused", **options))


def matrix(result, name) -> pd.DataFrame:
    return next(panel for panel in result.parts if panel.name == name).values


def rows(result, model) -> pd.DataFrame:
    return result.tables["values"][result.tables["values"]["ft"] == model].set_index("task")


# Numbers


def test_matrices_of_one_seed_equal_hand_computed_ones(synthetic):
    base = synthetic.base()
    by_task = dict(zip(TASK_NAMES, (1.0, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0), strict=True))
    synthetic.tuned("ftwb1-1", base, by_task)
    synthetic.tuned("ftwb1-6", base, 0.7)
    synthetic.tuned("ftwb2-13", base, 0.9)  # distance + perimeter
    found = result()

    one = matrix(found, "ftwb1_seed1")
    assert list(one.index) == list(ONE) and list(one.columns) == list(TASK_NAMES)
    assert one.loc["ftwb1-1"].to_dict() == pytest.approx(by_task)
    assert one.loc["ftwb1-2"].isna().all()
    expected = matrix(found, "ftwb2_expected_seed1").loc["ftwb2-13"]
    assert expected.tolist() == pytest.approx([1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7])
    difference = matrix(found, "ftwb2_difference_seed1").loc["ftwb2-13"]
    assert difference.tolist() == pytest.approx([-0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2])
    statistics = found.all_statistics["ftwb2_difference_seed1"]
    assert statistics["trained"]["mean"] == pytest.approx(0.05)  # -0.1 and 0.2
    assert statistics["trained"]["std"] == pytest.approx(0.15)
    assert statistics["transfer"]["mean"] == pytest.approx(0.18)  # 0.1, 0.2, 0.2, 0.2, 0.2
    assert [statistics[kind]["n"] for kind in ("trained", "transfer", "all")] == [2, 5, 7]
    assert [statistics[kind]["missing"] for kind in ("trained", "transfer", "all")] == [
        40,
        100,
        140,
    ]


def test_values_are_clipped_in_matrices_and_kept_in_the_table(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-4", base, {**dict.fromkeys(TASK_NAMES, 2.0), "compass": -1.0})
    found = result()
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-4"].tolist() == [1.5, 1.5, 1.5, 0, 1.5, 1.5, 1.5]
    table = rows(found, "ftwb1-4")
    assert table["normalised_unclipped"]["compass"] == pytest.approx(-1.0)
    assert table["normalised_unclipped"]["distance"] == pytest.approx(2.0)
    assert table["value"]["distance"] == pytest.approx(0.01)
    assert table["base_atlantis"]["distance"] == 100 and table["base_standard"]["distance"] == 1
    assert table["trained"].tolist() == [task == "compass" for task in TASK_NAMES]


def test_the_aggregate_is_the_mean_of_the_seeds_matrices(synthetic):
    for seed, improvement in ((1, 0.2), (2, 0.4), (3, 0.9)):
        base = synthetic.base(seed)
        synthetic.tuned("ftwb1-1", base, improvement, seed)
        if seed != 3:
            synthetic.tuned("ftwb1-2", base, improvement, seed)
    found = result()
    assert list(found.seeds) == [1, 2, 3]
    panel = next(panel for panel in found.parts if panel.name == "ftwb1_aggregate")
    assert panel.matrix.mean.loc["ftwb1-1"].tolist() == pytest.approx([0.5] * 7)
    assert panel.matrix.spread.loc["ftwb1-1"].tolist() == pytest.approx([0.294392] * 7)
    assert panel.matrix.mean.loc["ftwb1-2"].tolist() == pytest.approx([0.3] * 7)
    assert panel.matrix.n.loc["ftwb1-2"].tolist() == [2] * 7
    assert panel.matrix.n.loc["ftwb1-3"].tolist() == [0] * 7
    assert panel.matrix.partial == 7
    assert panel.summary["trained"]["n"] == 2 and panel.summary["trained"]["missing"] == 5


def test_seeds_can_be_chosen(synthetic):
    for seed in (1, 2):
        synthetic.tuned("ftwb1-1", synthetic.base(seed), 0.1 * seed, seed)
    found = result(seeds=(2,))
    assert {panel.name.split("_")[-1] for panel in found.parts} == {"seed2", "aggregate"}
    assert matrix(found, "ftwb1_aggregate").loc["ftwb1-1", "angle"] == pytest.approx(0.2)
    titles = [panel.title for panel in found.parts if panel.name.endswith("aggregate")]
    assert all(title.endswith("seed 2 only: no spread") for title in titles)
    assert set(found.runs_used["seed"]) == {2}


# What must not be mixed in


def test_only_finished_evaluations_of_this_kind_count(synthetic):
    base = synthetic.base()
    good = synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.tuned("ftwb1-1", base, 0.9, tags={"checkpoints": "all"})
    synthetic.tuned("ftwb1-1", base, 0.9, tags={"checkpoints": "100,200"})
    for other in ({"world": "scattered"}, {"scale": "smoke"}):
        synthetic.base(**other)
        synthetic.tuned("ftwb1-1", base, 0.9, **other)
    for status in ("FAILED", "KILLED", "RUNNING"):
        synthetic.evaluate("pt1_ftwb1-1", 1, "m", values(0.9), base, status=status)
    synthetic.evaluate("pt1@wide_ftwb1-1", 1, "m", values(0.9), base)
    synthetic.evaluate("pt2-1_ftwb1-1", 1, "m", values(0.9), base)
    synthetic.tuned("ftwb3-1", base, 0.9)
    found = result()
    assert set(rows(found, "ftwb1-1")["run_id"]) == {good}
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-1"].tolist() == pytest.approx([0.5] * 7)
    assert found.caveats == []
    assert len(found.runs_used) == 2


def test_the_newest_of_several_evaluations_is_used_and_named(synthetic):
    base = synthetic.base()
    older = synthetic.tuned("ftwb1-2", base, 0.3, epochs=999)
    newer = synthetic.tuned("ftwb1-2", base, 0.6)
    found = result()
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-2", "angle"] == pytest.approx(0.6)
    (caveat,) = found.caveats
    assert "pt1_ftwb1-2 seed 1 has 2 finished evaluations" in caveat
    assert caveat.index(newer) < caveat.index(older) and "differ in epochs" in caveat
    assert "their numbers differ" in caveat
    why = "the only finished evaluation of the model as its name stands today"
    assert found.runs_used.loc[newer, "why"] == why
    assert older not in found.runs_used.index


def test_runs_without_a_name_are_counted(synthetic):
    base = synthetic.base()
    run = synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.tuned("ftwb1-2", base, 0.5)
    synthetic.client.delete_tag(run, "worldrep.seed")
    assert result().caveats == ["1 finished run does not say of which model and seed: left out"]


def test_a_trial_with_other_settings_does_not_stand_in_for_the_model(synthetic):
    base = synthetic.base()
    plain = synthetic.tuned("ftwb1-2", base, 0.3)
    again = synthetic.tuned("ftwb1-2", base, 0.3)
    synthetic.tuned("ftwb1-2", base, 0.9, epochs=999)
    found = result()
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-2", "angle"] == pytest.approx(0.3)
    why = "the newest of 2 finished evaluations of the model as its name stands today"
    assert found.runs_used.loc[again, "why"] == why and plain not in found.runs_used.index


def test_a_model_is_compared_with_the_base_that_it_started_from(synthetic):
    first = synthetic.base()
    model = synthetic.tuned("ftwb1-1", first, 0.5)
    newer = synthetic.base(n_checkpoints=999)
    synthetic.tuned("ftwb1-2", newer, 0.7)
    found = result()
    assert set(rows(found, "ftwb1-1")["base_run_id"]) == {first}
    assert set(rows(found, "ftwb1-2")["base_run_id"]) == {newer}
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-1", "angle"] == pytest.approx(0.5)
    assert any(caveat.startswith("pt1 seed 1 has 2 bases") for caveat in found.caveats)
    assert model in found.runs_used.index


def test_a_model_without_its_own_base_is_missing(synthetic):
    unevaluated = synthetic.base(evaluated=False)
    synthetic.tuned("ftwb1-1", unevaluated, 0.5)
    other = synthetic.base()
    synthetic.tuned("ftwb1-2", other, 0.5)
    found = result()
    assert matrix(found, "ftwb1_seed1").loc["ftwb1-1"].isna().all()
    missing = found.missing[(found.missing["matrix"] == "ftwb1")].set_index("model").loc["ftwb1-1"]
    assert missing["reason"].str.contains("is not evaluated, but run ").all()
    command = f"mlflow run . -e evaluate -P run_id={unevaluated} --env-manager local"
    assert set(missing["command"]) == {command}


def test_a_model_that_does_not_name_its_base_is_missing(synthetic):
    synthetic.base()
    synthetic.evaluate("pt1_ftwb1-1", 1, "m", values(0.5))
    found = result()
    assert matrix(found, "ftwb1_seed1").isna().all(axis=None)
    assert set(rows(found, "ftwb1-1")["reason"]) == {
        "the run does not say which base it started from"
    }


def test_a_base_without_its_standard_suite_leaves_cells_missing(synthetic):
    base = synthetic.base(splits=("atlantis",))
    synthetic.tuned("ftwb1-1", base, 0.5)
    found = result()
    assert matrix(found, "ftwb1_seed1").isna().all(axis=None)
    missing = found.missing.iloc[0]
    assert re.search("evaluation [0-9a-f]{32} has no number standard/distance/mean", missing.reason)
    assert "mlflow runs delete --run-id" in missing.command and base in missing.command
    assert found.all_statistics["ftwb1_seed1"]["all"] == {
        "mean": None, "std": None, "n": 0, "missing": 49,
    }  # fmt: skip


def test_a_number_that_is_none_is_missing(synthetic):
    base = synthetic.base()
    run = synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.client.log_metric(run, "atlantis/angle/mean", float("nan"), step=2)
    table = rows(result(), "ftwb1-1")
    assert np.isnan(table["normalised"]["angle"]) and table["reason"]["angle"]
    assert table["normalised"]["distance"] == pytest.approx(0.5)


def test_a_base_that_has_not_learnt_a_task_is_noted(synthetic):
    """Crossing: 0.06 more than on Atlantis, with a standard error of 0.05; compass: 0.6 more."""
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    (evaluation,) = [
        run for run in Store.connect().find(stage="evaluate") if run.tag("ft") == "none"
    ]
    numbers = {"crossing": (0.54, 0.48), "compass": (0.8, 0.2), "distance": (10.0, 11.0)}
    for task, means in numbers.items():
        for split, mean in zip(("standard", "atlantis"), means, strict=True):
            facts = {"mean": mean, "std": 0.5, "n": 200}
            for fact, value in facts.items():
                synthetic.client.log_metric(evaluation.id, f"{split}/{task}/{fact}", value, step=2)
    (caveat,) = result().caveats
    assert caveat.startswith("pt1 seed 1 is not clearly better on standard questions")
    assert "Atlantis in crossing (less" in caveat


def test_models_trained_with_other_settings_are_noted(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.tuned("ftwb1-2", base, 0.5)
    usual = resolve(ModelName("pt1", "ftwb1-3")).epochs
    synthetic.tuned("ftwb1-3", base, 0.5, epochs=usual + 1)
    currency, caveat = result().caveats
    assert currency.startswith("pt1_ftwb1-3 seed 1 is not trained as the name alone stands for")
    kinds = f"{usual} (2 models), {usual + 1} (pt1_ftwb1-3 seed 1)"
    assert caveat == f"the ftwb1 models differ in epochs: {kinds}"


# What is missing, and the commands that fill it


def test_missing_cells_come_with_the_command_that_fills_them(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.tuned("ftwb1-2", base, 0.5, evaluated=False)
    changed = synthetic.tuned("ftwb1-3", base, 0.5, evaluated=False, epochs=999)
    found = result()
    commands = found.missing.drop_duplicates(["matrix", "model"]).set_index(["matrix", "model"])
    assert set(found.missing["task"]) == set(TASK_NAMES)
    evaluate = "mlflow run . -e evaluate -P model=pt1_ftwb1-2 -P seed=1 -P scale=mini"
    assert commands.loc[("ftwb1", "ftwb1-2"), "command"] == f"{evaluate} --env-manager local"
    by_id = f"mlflow run . -e evaluate -P run_id={changed} --env-manager local"
    assert commands.loc[("ftwb1", "ftwb1-3"), "command"] == by_id
    assert commands.loc[("ftwb2", "ftwb2-3"), "command"] == (
        "mlflow run . -e finetune -P ft=ftwb2-3 -P seed=1 -P scale=mini --env-manager local && "
        "mlflow run . -e evaluate -P model=pt1_ftwb2-3 -P seed=1 -P scale=mini --env-manager local"
    )
    assert "epochs=999" not in commands.loc[("ftwb1", "ftwb1-4"), "command"]  # two are usual
    assert ("ftwb1", "ftwb1-1") not in commands.index
    expected = commands.loc[("ftwb2_expected", "ftwb2-1")]  # distance + trianglearea
    assert expected["reason"] == "ftwb1-2: the model is not evaluated"
    assert expected["command"] == f"{evaluate} --env-manager local"
    assert "ftwb2-1:" in commands.loc[("ftwb2_difference", "ftwb2-1"), "reason"]
    counts = found.missing.groupby("matrix").size()
    for name in ("ftwb1", "ftwb2", "ftwb2_expected", "ftwb2_difference"):
        assert counts[name] == found.all_statistics[f"{name}_seed1"]["all"]["missing"]


def test_a_seed_without_a_base_is_missing_as_a_whole(synthetic):
    synthetic.tuned("ftwb1-1", synthetic.base(1), 0.5, 1)
    synthetic.tuned("ftwb1-1", synthetic.base(2, evaluated=False), 0.5, 2)
    synthetic.base(3)
    found = result()
    assert list(found.seeds) == [1, 2]
    assert matrix(found, "ftwb1_seed2").isna().all(axis=None)
    assert "seed 2 has no evaluated base" in found.caveats
    assert "seed 3 is left out: only its base is evaluated" in found.caveats
    assert matrix(found, "ftwb1_aggregate").loc["ftwb1-1", "angle"] == pytest.approx(0.5)


def test_commands_name_a_world_and_an_experiment_of_their_own(store_uri):
    synthetic = SyntheticStore(store_uri, "mine two")
    base = synthetic.base(world="scattered")
    synthetic.tuned("ftwb1-1", base, 0.5, world="scattered")
    found = exp1_heatmaps(
        Source(Store.connect("mine two")), Options(out="unused", world="scattered")
    )
    command = found.missing["command"].iloc[0]
    assert command.startswith(
        "mlflow run . -e finetune -P ft=ftwb1-2 -P seed=1 -P scale=mini -P world=scattered "
        "--experiment-name 'mine two' --env-manager local && "
    )


# Pure functions


def test_trained_cells_are_those_of_the_names():
    mask = trained_mask(TWO)
    assert mask.to_numpy().sum() == 42
    for ft in TWO:
        assert set(mask.columns[mask.loc[ft]]) == set(FINETUNINGS[ft])


def test_specialists_have_warm_up_rows_if_the_model_has():
    assert specialists_of(FINETUNINGS["ftwb2-13"], "ftwb2-13") == ("ftwb1-1", "ftwb1-6")
    assert specialists_of(FINETUNINGS["ft3-7"], "ft3-7") == ("ft1-5", "ft1-6", "ft1-7")


def test_expected_is_missing_if_any_specialist_is():
    specialists = pd.DataFrame(0.5, index=ONE, columns=TASK_NAMES)
    specialists.loc["ftwb1-6", "angle"] = np.nan
    expected = expected_matrix(TWO, specialists)
    assert np.isnan(expected.loc["ftwb2-13", "angle"])
    assert expected.loc["ftwb2-13", "distance"] == 0.5
    assert expected.loc["ftwb2-1"].tolist() == [0.5] * 7


def test_statistics_count_what_is_missing():
    values = pd.DataFrame(1.0, index=["ftwb1-1", "ftwb1-2"], columns=TASK_NAMES)
    values.loc["ftwb1-1", ["distance", "angle"]] = np.nan
    statistics = Panel("m", "M", PERFORMANCE, values).summary
    assert statistics["trained"] == {"mean": 1.0, "std": 0.0, "n": 1, "missing": 1}
    assert statistics["transfer"] == {"mean": 1.0, "std": 0.0, "n": 11, "missing": 1}


@pytest.mark.parametrize("text", ["", "1,", "a", "1;2", "-1", "1.5", "1-3", "²"])
def test_seeds_that_do_not_parse_are_refused(text):
    with pytest.raises(InputError, match="seed="):
        parse_seeds(text)


def test_seeds_parse():
    assert parse_seeds("3, 1") == (3, 1) and parse_seeds("all") == ()
    assert Options(out="o", seeds=(3, 1, 3)).seeds == (1, 3)


# The command


def draw(options, parent=None):
    with open_source(options) as source:
        return publish(exp1_heatmaps(source, options), source.store, parent=parent)


def test_files_figures_and_run_of_a_drawn_store(synthetic, tmp_path):
    base = synthetic.base()
    model = synthetic.tuned("ftwb1-1", base, 0.25)
    study = synthetic.run("study", "pt1", 1, status="RUNNING")
    out = draw(Options(tmp_path / "figures", seeds=(1,)), study)

    stems = ["ftwb1", "ftwb2", "ftwb2_expected", "ftwb2_difference"]
    names = {f"{stem}_{which}" for stem in stems for which in ("seed1", "aggregate")}
    files = {path.name for path in out.iterdir()}
    assert {f"{name}.csv" for name in names} < files
    drawn = {"ftwb1_seed1", *(f"{stem}_aggregate" for stem in stems)}  # ftwb2 has no values
    assert {path.stem for path in out.glob("*.png")} == drawn
    assert {path.stem for path in out.glob("*.svg")} == drawn
    statistics = json.loads((out / "statistics.json").read_text())
    assert set(statistics["files"]) == files and set(statistics["statistics"]) == names
    assert statistics["runs_used"] == 2 and statistics["seeds"] == [1]
    assert statistics["statistics"]["ftwb1_seed1"]["trained"] == {
        "mean": pytest.approx(0.25), "std": 0.0, "n": 1, "missing": 6,
    }  # fmt: skip
    table = pd.read_csv(out / "ftwb1_seed1.csv", index_col=0)
    assert list(table.columns) == list(TASK_NAMES) and list(table.index) == list(ONE)
    assert table.loc["ftwb1-1"].tolist() == pytest.approx([0.25] * 7)
    assert model in pd.read_csv(out / "runs_used.csv")["run_id"].tolist()

    store = Store.connect()
    (run,) = store.find(stage="analysis")
    assert run.status == "FINISHED" and run.tags["mlflow.parentRunId"] == study
    assert run.tags["worldrep.runs_used"] == "2" and run.tags["worldrep.seed"] == "1"
    logged = store.client.list_artifacts(run.id, "exp1_heatmaps")
    assert {entry.path.rsplit("/", 1)[-1] for entry in logged} == files
    metrics = store.client.get_run(run.id).data.metrics
    assert metrics["ftwb1_seed1/trained/mean"] == pytest.approx(0.25)

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    draw(Options(out, seeds=(1,)))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert len(store.find(stage="analysis")) == 1


def test_files_of_an_earlier_analysis_do_not_linger(synthetic, tmp_path):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.25)
    out = tmp_path / "figures"
    out.mkdir()
    (out / "mine.csv").write_text("kept")
    (out / "ftwb1_seed2.csv").write_text("of an earlier analysis")
    facts = {"analysis": "exp1_heatmaps", "files": ["ftwb1_seed2.csv", "../mlflow.db"]}
    (out / "statistics.json").write_text(json.dumps(facts))
    draw(Options(out, log=False))
    assert (out / "mine.csv").exists() and (tmp_path / "mlflow.db").exists()
    assert not (out / "ftwb1_seed2.csv").exists()
    assert Store.connect().find(stage="analysis") == []


def test_the_command_says_what_came_out(synthetic, tmp_path):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.25)
    code, text, _ = invoke(main, "--out", str(tmp_path / "f"), "--no-log", "--seeds", "1")
    assert code == 0
    assert "ftwb1_seed1: trained 0.250 ± 0.000 (n = 1, missing 6)" in text
    assert "ftwb2_seed1: trained none (n = 0, missing 42)" in text
    assert re.findall("mlflow run .*", text) == [
        "mlflow run . -e study -P name=exp1 -P seeds=1 --env-manager local"
    ]
    assert str(tmp_path / "f") in text


def test_a_seed_without_any_value_has_a_table_and_no_figure(synthetic, tmp_path):
    synthetic.tuned("ftwb1-1", synthetic.base(1), 0.25, 1)
    out = draw(Options(tmp_path / "figures", seeds=(1, 2), log=False))
    assert (out / "ftwb1_seed1.png").exists() and (out / "ftwb1_seed2.csv").exists()
    assert not [*out.glob("*_seed2.png"), *out.glob("*_seed2.svg")]


def test_a_store_of_another_scale_says_so(synthetic):
    synthetic.tuned("ftwb1-1", synthetic.base(scale="smoke"), 0.25, scale="smoke")
    code, _, error = invoke(main)
    assert code == 1 and "2 of scale smoke, width base, world standard" in error


def test_a_store_without_bases_ends_with_one_sentence(synthetic):
    synthetic.tuned("ftwb1-1", "gone", 0.25)
    code, _, error = invoke(main)
    assert code == 1 and error.count("\n") == 1
    assert "seeds with a base: none; with a fine-tuned model: 1" in error


def test_seeds_that_are_not_there_end_with_one_sentence(synthetic):
    synthetic.tuned("ftwb1-1", synthetic.base(), 0.25)
    code, _, error = invoke(main, "--seeds", "7,8")
    assert code == 1 and "among 7, 8" in error and "seeds with a base: 1;" in error


def test_in_process_calls_raise_instead_of_exiting(store_uri):
    with pytest.raises(StateError):
        draw(Options("f"))
    with pytest.raises(InputError):
        Options("f", scale="big")


def do(entry, *arguments):
    commands = {"study": study, "finetune": finetune, "evaluate": evaluate}
    found = CliRunner().invoke(commands[entry].main, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output


@pytest.mark.slow
def test_the_command_for_a_missing_model_trains_it_as_those_beside_it(store_uri, tmp_path):
    rows = [f"City {i},{(617 * i) % 3600 - 1800},{(371 * i) % 1800 - 900}" for i in range(18)]
    (tmp_path / "my cities.csv").write_text("\n".join(["name,x,y", *rows]))
    own = {"cities": "my cities.csv", "hidden_size": 24, "learning_rate": 0.001}
    two = f"models: [pt1, pt1_ftwb1-1]\nscale: smoke\nsettings: {json.dumps(own)}\n"
    Path("two.yaml").write_text(two)
    do("study", "--name", "two.yaml", "--workers", "1")
    store = Store.connect()
    before = {run.id for run in store.find()}
    missing = result(scale="smoke").missing
    (command,) = missing[(missing["model"] == "ftwb1-2") & (missing["task"] == "angle")]["command"]
    for part in command.split(" && "):
        words = shlex.split(part)
        entry, given = words[words.index("-e") + 1], words[words.index("-e") + 2 : -2]
        assert words[:3] == ["mlflow", "run", "."] and set(given[::2]) == {"-P"}
        do(entry, *(f"--{parameter}" for parameter in given[1::2]))
    trained, evaluated = (
        store.find(stage=stage, model="pt1_ftwb1-2")[0] for stage in ("finetune", "evaluate")
    )
    assert {run.id for run in store.find()} - before == {trained.id, evaluated.id}  # no other base
    (beside,) = store.find(stage="finetune", model="pt1_ftwb1-1")
    for tag in ("world_digest", "base_run_id"):
        assert trained.tag(tag) == beside.tag(tag)
    for key, value in own.items():
        assert trained.params[f"cfg.{key}"] == str(value)
