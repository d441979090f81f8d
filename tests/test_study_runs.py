"""Studies that really run, in this process: results, reuse, failures, status, wrong input."""

import json
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from entrypoints import evaluate, finetune, study
from worldrep.errors import StateError
from worldrep.executors import ExecutorOptions
from worldrep.names import TASK_NAMES, parse_model
from worldrep.scales import resolve
from worldrep.stages.commands import to_look
from worldrep.studies import Shard, expand, load_definition
from worldrep.studies.driver import run_study
from worldrep.studies.scheduler import Scheduler, read_states
from worldrep.studies.study_run import StudyRun
from worldrep.sweeps.search import Objective
from worldrep.text import duration_in_words
from worldrep.tracking import Store, TakenError

TWO = "models: [pt1, pt1_ftwb1-1]\nscale: smoke\n"
THREE = "models: [pt1, pt1_ftwb1-1..2]\nscale: smoke\n"


def run(*arguments, code=0, command=study):
    if command is study and "--workers" not in arguments:  # in this process
        arguments = [*arguments, "--workers", "1"]
    result = CliRunner().invoke(command.main, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def two(store_uri):
    Path("two.yaml").write_text(TWO)
    return ["--name", "two.yaml"]


def runs(**tags):
    return Store.connect().find(**tags)


def graph_of(path, **changes):
    return expand(load_definition(path).changed(**changes))


def test_all_checkpoints_are_evaluated_by_a_study_as_by_single_commands(two):
    run(*two)
    output = run(*two, "--checkpoints", "all", "--steps", "evaluate")
    assert "2 of 4 steps are done already" in output  # the trainings
    for model in ("pt1", "pt1_ftwb1-1"):
        every = "--model", model, "--scale", "smoke", "--checkpoints", "all"
        assert "already done" in run(*every, command=evaluate)
    (both, last), _ = (runs(stage="evaluate", model=m) for m in ("pt1", "pt1_ftwb1-1"))
    history = [Store.connect().history(r.id, "standard/angle/mean") for r in (both, last)]
    assert len(history[0]) == 3 and history[0][-1:] == history[1]
    assert len(runs(stage="summary")) == 2
    assert "unknown checkpoints 'some'" in run(*two, "--checkpoints", "some", code=2)


def test_a_study_leaves_one_finished_run_for_every_step(two):
    run(*two)
    graph = graph_of("two.yaml")
    found = [r for r in runs() if r.fingerprint in graph.steps]
    assert sorted(r.fingerprint for r in found) == sorted(graph.steps)
    assert {r.status for r in runs()} == {"FINISHED"}
    (parent,) = runs(stage="study")
    assert {r.parent for r in found} == {parent.id}
    assert parent.metrics["study/done"] == parent.metrics["study/total"] == 6
    store = Store.connect()
    with store.download(parent.id, "steps.csv") as path:
        table = pd.read_csv(path)
    assert sorted(table["run_id"]) == sorted(r.id for r in found)
    assert set(table["state"]) == {"done"}
    note = parent.tags["mlflow.note.content"]
    assert "Steps: 6 done." in note


def test_run_again_nothing_is_repeated(two):
    run(*two)
    before = {r.id: r.ended for r in runs() if r.tag("stage") != "study"}
    assert "6 of 6 steps are done already" in run(*two)
    assert {r.id: r.ended for r in runs() if r.tag("stage") != "study"} == before
    assert len(runs(stage="study")) == 1


def test_steps_are_shared_with_single_commands_and_other_studies(two):
    run("--ft", "ftwb1-1", "--scale", "smoke", command=finetune)
    run(*two)
    Path("three.yaml").write_text(THREE)
    assert "three: 6 of 9 steps" in run("--name", "three.yaml")
    assert len(runs(stage="pretrain")) == 1 and len(runs(stage="finetune")) == 2
    first, second = (next(r for r in runs(stage="study") if r.tag("study") == name)
                     for name in ("two", "three"))  # fmt: skip
    parents = {r.name: r.parent for r in runs()}
    assert parents["pt1 s42 pretrain"] == first.id  # adopted once, and kept
    assert parents["ftwb1-2 s42 finetune"] == second.id


def poisoned_study(executor="inline", workers=1):
    Path("three.yaml").write_text(THREE)
    graph, store = graph_of("three.yaml"), Store.connect()
    choice = ExecutorOptions(executor, workers, cpus=1, perform="steps:poisoned")
    return store, graph, run_study(store, graph, choice)


def test_a_poisoned_step_fails_alone_and_is_retried_alone(store_uri, capsys):
    store, graph, result = poisoned_study()
    assert result.failed == ["ftwb1-2 s42 finetune"]
    assert result.counts == dict(done=6, running=0, waiting=0, failed=1, blocked=2)
    assert "FAILED: ZeroDivisionError: poison" in capsys.readouterr().out
    (parent,) = runs(stage="study")
    assert parent.status == "FAILED" and "poison" in parent.tags["mlflow.note.content"]
    (poison,) = [r for r in runs() if r.status == "FAILED" and r.id != parent.id]
    assert f"runs/{poison.id}?workflowType=" in parent.tags["mlflow.note.content"]
    assert poison.tag("error") == "ZeroDivisionError: poison"
    states = read_states(store, graph)
    assert sorted(s.state for s in states.values()) == ["done"] * 6 + ["failed"] + ["missing"] * 2

    before = {r.id for r in runs() if r.status == "FINISHED"}
    assert "6 of 9 steps are done already" in run("--name", "three.yaml")
    assert {r.status for r in runs()} == {"FINISHED"}
    again = [r for r in runs() if r.id not in before and r.tag("stage") not in ("study", "summary")]
    assert sorted(r.tag("stage") for r in again) == ["evaluate", "extract", "finetune"]
    assert poison.id in {r.id for r in again}  # carried on, not begun anew


def test_the_command_ends_with_1_and_names_what_failed(two, monkeypatch):
    message = run(*two, "--learning_rate", "1e30", code=1)
    sentence = message.strip().splitlines()[-1]
    assert sentence.startswith("Error: 1 steps failed (pt1 s42 pretrain) and 5 that need them")
    status = json.loads(
        run(*two, "--learning_rate", "1e30", "--action", "status", "--format", "json")
    )
    assert status["totals"] == dict(done=0, running=0, dead=0, failed=1, missing=5)
    assert "the loss is" in status["models"][0]["steps"]["train"]["error"]


def test_the_driver_that_ends_last_enters_what_all_have_done(two, monkeypatch):
    """Another shard ends when this one has counted, and still keeps the study's run."""
    graph, close = graph_of("two.yaml", seeds=(1, 2)), StudyRun.close
    mine, others = (Shard(index, 2).steps_of(graph) for index in (1, 2))

    def close_after_the_other(study_run, scheduler, interrupted):
        monkeypatch.setattr(StudyRun, "close", close)
        result = run_study(Store.connect(), graph, ExecutorOptions(), mine=others)
        assert result.counts["done"] == len(graph.steps)
        assert runs(stage="study")[0].status == "RUNNING"
        close(study_run, scheduler, interrupted)

    monkeypatch.setattr(StudyRun, "close", close_after_the_other)
    run_study(Store.connect(), graph, ExecutorOptions(), mine=mine)
    (study_run,) = runs(stage="study")
    assert study_run.status == "FINISHED"
    assert study_run.metrics["study/done"] == len(graph.steps)


def test_a_single_shard_borrows_its_base_and_leaves_the_rest(two):
    graph = graph_of("two.yaml")
    (base,) = [f for f, step in graph.steps.items() if step.title == "pt1 s42 pretrain"]
    shard = next(s for s in (Shard(1, 2), Shard(2, 2)) if base not in s.steps_of(graph))
    run(*two, "--shard", f"{shard.index}/{shard.count}")
    finished = {r.fingerprint for r in runs() if r.status == "FINISHED"}
    assert finished & set(graph.steps) == shard.steps_of(graph) | {base}
    assert runs(stage="study")[0].status == "SCHEDULED"  # it goes on when the other shard comes
    run(*two)
    assert runs(stage="study")[0].status == "FINISHED"


def test_status_and_plan_tell_the_truth_and_write_nothing(two, monkeypatch):
    ended = run("--name", "two.yaml", "--seeds", "1")
    (parent,) = runs(stage="study")
    assert (
        re.search("its 6 steps took [0-9]+ seconds in all", ended) and f"/runs/{parent.id}" in ended
    )
    before = [(r.id, r.status) for r in runs()]
    status = run(*two, "--seeds", "1,2", "--action", "status")
    assert "pt1_ftwb1-1  1     standard  done     done      done" in status
    assert "pt1_ftwb1-1  2     standard  missing  missing   missing" in status
    assert "4 models, 12 steps: 6 done, 0 running, 0 dead, 0 failed, 6 missing" in status
    assert "left: 6 steps" in status and "tokens of training, about" in status
    found = json.loads(run(*two, "--seeds", "1,2", "--action", "plan", "--format", "json"))
    assert [s["step"] for s in found["steps"]] == [
        "pt1 s2 pretrain", "ftwb1-1 s2 finetune", "pt1 s2 evaluate",
        "ftwb1-1 s2 evaluate", "pt1 s2 extract", "ftwb1-1 s2 extract",
    ]  # fmt: skip
    assert found["left"]["seconds"] > 0
    plan = run(*two, "--seeds", "2", "--action", "plan")
    assert plan.splitlines()[-1] == (
        "to do it: mlflow run . -e study -P name=two.yaml -P seeds=2 -P workers=1 "
        "--env-manager local"
    )
    done = run("--name", "two.yaml", "--seeds", "1", "--action", "plan")
    assert "nothing is left to do" in done and "to do it" not in done
    took = sum(r.ended - r.started for r in runs() if r.stage != "study" and r.stage != "summary")
    assert f"its 6 steps took {duration_in_words(took)} in all" in done
    assert "mlflow server, then open http://127.0.0.1:5000/#/experiments/1/runs/" in done
    monkeypatch.chdir("/")  # the server would open the store of that folder
    elsewhere = f"mlflow server --backend-store-uri {Store.connect().address}, then open"
    assert elsewhere in to_look(Store.connect(), "some")
    assert [(r.id, r.status) for r in runs()] == before


def test_tokens_left_are_those_that_training_counts(store_uri):
    from worldrep.data.sets import load_rows, maker_of, training_sets
    from worldrep.data.tokens import PAD
    from worldrep.scales import resolve
    from worldrep.stages.estimate import training_tokens

    for name in ("pt1", "pt1_ftwb2-13"):
        from worldrep.names import parse_model

        settings = resolve(parse_model(name), scale="mini")
        maker = maker_of(settings)
        rows = training_sets(settings, maker.world)
        exact = settings.epochs * sum(int((load_rows(maker, r) != PAD).sum()) for r in rows)
        assert training_tokens(settings) == pytest.approx(exact, rel=0.01)
    plain = resolve(parse_model("pt1_ftwb1-1"), scale="mini")
    replay = resolve(
        parse_model("pt1_ftwb1-1+replay"), scale="mini", overrides={"replay_share": 0.75}
    )
    assert training_tokens(replay) == pytest.approx(4 * training_tokens(plain), rel=0.01)


def test_summaries_hold_all_seeds_and_are_kept_up_to_date(two):
    run(*two, "--seeds", "1,2")
    metric = "standard/distance/mean"
    values = [r.metrics[metric] for r in runs(stage="evaluate", model="pt1_ftwb1-1")]
    (summary,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert summary.metrics[f"{metric}/mean_over_seeds"] == pytest.approx(statistics.mean(values))
    assert summary.metrics[f"{metric}/std_over_seeds"] == pytest.approx(statistics.stdev(values))
    reach = 12.7062047 * statistics.stdev(values) / 2**0.5  # Student's t, one degree of freedom
    assert summary.metrics[f"{metric}/high_over_seeds"] == pytest.approx(
        statistics.mean(values) + reach
    )
    assert summary.parent is None  # or the table would hide it below a study
    assert summary.metrics[f"{metric}/n_over_seeds"] == 2 and summary.tag("seed") == "1,2"
    run(*two, "--seeds", "3")  # another study, another seed
    values = [r.metrics[metric] for r in runs(stage="evaluate", model="pt1_ftwb1-1")]
    (updated,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert updated.id == summary.id and updated.tag("seed") == "1,2,3"
    assert updated.metrics[f"{metric}/n_over_seeds"] == 3
    assert updated.metrics[f"{metric}/mean_over_seeds"] == pytest.approx(statistics.mean(values))
    assert len(runs(stage="summary")) == 2


def test_a_summary_has_few_numbers_under_short_names(two):
    Path("base.yaml").write_text("models: [pt1]\nscale: smoke\nsteps: [evaluate]\n")
    Path("tuned.yaml").write_text("models: [pt1_ftwb1-1]\nscale: smoke\nsteps: [evaluate]\n")
    run("--name", "tuned.yaml", "--executor", "inline", "--seeds", "1,2")
    (before,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert "trained" not in before.metrics  # the base is not evaluated
    run("--name", "base.yaml", "--executor", "inline", "--seeds", "1,2")
    run("--name", "tuned.yaml", "--executor", "inline", "--seeds", "1,2")
    (summary,) = runs(stage="summary", model="pt1_ftwb1-1")
    tuned, base = (
        {r.seed: r.metrics for r in runs(stage="evaluate", model=name)}
        for name in ("pt1_ftwb1-1", "pt1")
    )
    goals = [Objective(name) for name in ("trained", "transfer", "retention")]
    settings = resolve(parse_model("pt1_ftwb1-1"), scale="smoke")
    for goal in goals:
        values = [goal.value(tuned[seed], base[seed], settings) for seed in (1, 2)]
        assert summary.metrics[goal.name] == pytest.approx(statistics.mean(values))
    for task in TASK_NAMES:
        values = [tuned[seed][f"atlantis/{task}/mean"] for seed in (1, 2)]
        assert summary.metrics[task] == pytest.approx(statistics.mean(values))
    base_run = runs(stage="pretrain", seed="1")[0].id
    early = str(Store.connect().checkpoint_steps(base_run)[0])
    run("--run_id", base_run, "--checkpoints", early, command=evaluate)
    (other,) = runs(stage="evaluate", checkpoints=early)
    for name in other.metrics:
        value = 1e6 if name.startswith("atlantis/") else 1.0
        Store.connect().client.log_metric(other.id, name, value, step=99)
    Store.connect().client.delete_run(summary.id)
    run("--name", "tuned.yaml", "--executor", "inline", "--seeds", "1,2")
    (again,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert {goal.name: again.metrics[goal.name] for goal in goals} == {
        goal.name: summary.metrics[goal.name] for goal in goals
    }
    (plain,) = runs(stage="summary", model="pt1")
    assert plain.metrics["distance"] and "trained" not in plain.metrics


def test_rows_of_the_multi_task_suite_are_those_that_are_asked_for(two):
    run(*two, "--multi_rows", "20", "--steps", "evaluate")
    assert "2 of 4 steps are done already" in run(*two, "--multi_rows", "30", "--steps", "evaluate")
    named = "--model", "pt1", "--scale", "smoke", "--multi_rows"
    for rows in ("20", "30"):
        assert "already done" in run(*named, rows, command=evaluate)
    run("--run_id", runs(stage="pretrain")[0].id, command=evaluate)  # as when it was trained
    counts = [
        sum(found.metrics[f"multi/{task}/n"] for task in TASK_NAMES)
        for found in runs(stage="evaluate", model="pt1")
    ]
    assert sorted(counts) == [20, 30]
    tuned = "ftwb1-2", "--scale", "smoke", "--multi_rows", "30"
    base = "--base_run", runs(stage="pretrain")[0].id
    assert "done" in run(*tuned, *base, command=finetune)


@pytest.mark.parametrize("noticed_by", ["metrics", "tags", "close"])
def test_a_study_whose_run_another_driver_took_closes_without_an_error(
    two, monkeypatch, noticed_by
):
    graph, store = graph_of("two.yaml"), Store.connect()
    scheduler, study_run = Scheduler(graph, {}, ""), StudyRun(store, graph)

    def taken(self, *_):
        met.append(noticed_by)
        raise TakenError("it was taken over", self.id)

    met = []
    with monkeypatch.context() as patched:
        patched.setattr(f"worldrep.tracking.OpenRun.{noticed_by}", taken)
        study_run.close(scheduler, interrupted=True)
    assert met


def test_a_summary_loses_the_seeds_whose_runs_are_deleted(two):
    run(*two, "--seeds", "1,2,3")
    metric, client = "standard/distance/mean", Store.connect().client
    for deleted in [r for r in runs() if r.tag("seed") == "3"]:
        client.delete_run(deleted.id)
    (other,) = runs(stage="summary", model="pt1_ftwb1-1")
    run(*two, "--seeds", "1,2")  # all of it is done already
    values = [r.metrics[metric] for r in runs(stage="evaluate", model="pt1_ftwb1-1")]
    (summary,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert summary.id == other.id and summary.tag("seed") == "1,2"
    assert summary.metrics[f"{metric}/n_over_seeds"] == len(values) == 2
    assert summary.metrics[f"{metric}/mean_over_seeds"] == pytest.approx(statistics.mean(values))
    ended = summary.ended
    run(*two, "--seeds", "1,2")
    (again,) = runs(stage="summary", model="pt1_ftwb1-1")
    assert again.ended == ended  # nothing changed, and so it was not written again


@pytest.mark.parametrize(
    ("fault", "status"), [(KeyboardInterrupt, "KILLED"), (StateError("no space"), "FAILED")]
)
def test_a_study_that_ends_before_its_first_step_says_how(two, monkeypatch, fault, status):
    def fail(run, settings):
        raise fault

    monkeypatch.setattr("worldrep.studies.study_run.keep_cities", fail)
    with pytest.raises(type(fault) if isinstance(fault, Exception) else fault):
        run_study(Store.connect(), graph_of("two.yaml"), ExecutorOptions())
    assert [(run.stage, run.status) for run in runs()] == [("study", status)]


def test_a_worker_without_the_file_takes_the_cities_from_the_study(two, tmp_path, monkeypatch):
    rows = [f"City {i},{(617 * i) % 3600 - 1800},{(371 * i) % 1800 - 900}" for i in range(18)]
    (tmp_path / "mine.csv").write_text("\n".join(["name,x,y", *rows]))
    (tmp_path / "elsewhere").mkdir()
    definition = load_definition("two.yaml").changed(settings={"cities": "mine.csv"})
    graph, store = expand(definition), Store.connect()
    choice = ExecutorOptions("inline", perform="steps:in_another_folder")
    assert run_study(store, graph, choice).failed == []
    assert {r.status for r in runs()} == {"FINISHED"}
    assert sorted(r.fingerprint for r in runs() if r.fingerprint in graph.steps) == sorted(
        graph.steps
    )


def test_models_of_other_settings_have_summaries_of_their_own(two):
    run(*two, "--seeds", "1")
    run(*two, "--seeds", "2", "--epochs", "1")
    summaries = runs(stage="summary", model="pt1")
    assert sorted(r.tag("seed") for r in summaries) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--name", "exp9"], "unknown study 'exp9'", 2),
        (["--name", "exp1", "--seeds", "1;2"], "seed='1;2' is not a whole number", 2),
        (["--widths", "tall"], "unknown width 'tall'", 2),
        (["--worlds", "round"], "unknown world 'round'", 2),
        (["--scale", "tiny"], "unknown scale 'tiny'", 2),
        (["--action", "stats"], "unknown action 'stats' (did you mean 'status'?)", 2),
        (["--format", "xml"], "unknown format 'xml'", 2),
        (["--executor", "slurm"], "unknown executor 'slurm'", 2),
        (["--executor", "inline", "--workers", "2"], "executor=inline does one step at a time", 2),
        (["--workers", "0"], "workers=0 is too small", 2),
        (["--workers", "two"], "workers='two' is not a whole number", 2),
        (["--gpus", "nan"], "gpus='nan' is not a number", 2),
        (["--gpus", "1.5"], "must be a share of one GPU or a whole number", 2),
        (["--shard", "3/2"], "shard='3/2'", 2),
        (["--executor", "ray", "--address", "127.0.0.1:9"], "no Ray cluster answers at", 1),
        (["--executor", "ray", "--address", "nonsense"], "no Ray cluster answers at", 1),
    ],
)
def test_wrong_input_is_one_sentence_and_starts_nothing(store_uri, arguments, message, code):
    output = run("--scale", "smoke", *arguments, code=code)
    assert message in output and output.count("\n") == 1
    assert runs() == []


def test_a_store_that_cannot_be_written_is_one_sentence(two, tmp_path, monkeypatch):
    Store.connect()
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"sqlite:///file:{tmp_path}/mlflow.db?mode=ro&uri=true"
    )
    output = run(*two, code=1)
    assert "store" in output and "readonly" in output and output.count("\n") == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert runs() == []
