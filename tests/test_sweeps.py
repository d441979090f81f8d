"""Sweeps through their command: what the store holds of trials, resuming, the winner."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from drivers import trial_runs
from mlflow import MlflowClient
from optuna.trial import TrialState

from entrypoints.sweep import main
from worldrep.names import parse_model
from worldrep.scales import resolve
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.ledger import Ledger
from worldrep.sweeps.objectives import Objective
from worldrep.sweeps.storage import default_address, open_storage, open_study
from worldrep.tracking import RunSpec, Store

# Some learn, some are poor, and with the last one the loss is not finite.
SPACE = "learning_rate: [5.0e-4, 2.0e-3, 0.3, 1.0e+38]\nepochs: [1, 2]\n"
COMMON = ["--scale", "smoke", "--ft", "ftwb2-13", "--n_validations", "4", "--sampler", "random"]


def run(*arguments, code=0):
    Path("space.yaml").write_text(SPACE)
    result = CliRunner().invoke(main, [*COMMON, "--space", "space.yaml", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def study_of(name):
    return optuna.load_study(study_name=name, storage=open_storage(default_address(name)))


def sweep_run(name):
    (run,) = [r for r in Store.connect().find(stage="sweep", sweep=name) if not r.tag("trial")]
    return run


def files(run_id):
    client = MlflowClient()
    names = [item.path for item in client.list_artifacts(run_id)]
    return names + [item.path for item in client.list_artifacts(run_id, "figures")]


def history(run_id, metric):
    points = MlflowClient().get_metric_history(run_id, metric)
    return {point.step: point.value for point in points}


def test_a_sweep_from_its_first_trial_to_its_winner(store_uri):
    name, goal = "first", ["--objective", "retention"]
    output = run("--n_trials", "12", *goal, "--name", name)
    study, runs, parent = study_of(name), trial_runs(name), sweep_run(name)
    trials = study.trials
    states = [trial.state for trial in trials]
    assert {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL} == set(states)
    assert sorted(runs) == list(range(12)) and output.count("] trial ") == 12

    # Every trial is a run below the sweep's, one level deep, that says how it ended.
    how = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    base = next(r for r in Store.connect().find(stage="evaluate") if r.tag("ft") == "none")
    for number, trial in enumerate(trials):
        found = runs[number]
        assert found.parent == parent.id and found.tag("trial_state") == how[trial.state]
        assert found.status == ("FAILED" if trial.state == TrialState.FAIL else "FINISHED")
        assert found.params["cfg.learning_rate"] == str(trial.params["learning_rate"])
        assert found.params["cfg.epochs"] == str(trial.params["epochs"])
        assert found.tag("model") == "pt1_ftwb2-13" and found.tag("sweep") == name
        assert trial.user_attrs["mlflow_run_id"] == found.id
        values = history(found.id, "val/objective/retention")
        assert list(values.values()) == pytest.approx(list(trial.intermediate_values.values()))
        if trial.state == TrialState.COMPLETE:
            own = {k: v for k, v in found.metrics.items() if k.count("/") == 2}
            settings = resolve(parse_model("pt1_ftwb2-13"), scale="smoke")
            value = Objective("retention").value(own, base.metrics, settings)
            assert trial.value == found.metrics["objective/retention"] == value
        elif trial.state == TrialState.FAIL:
            assert (
                "the loss is" in found.tag("error") and "atlantis/angle/mean" not in found.metrics
            )
        else:
            assert len(values) < 4 and "atlantis/angle/mean" not in found.metrics

    # The sweep's run has the best value by trial, the best settings, and the figures.
    assert parent.status == "FINISHED"
    best, expected = history(parent.id, "best/retention"), {}
    for i in range(1, 13):
        done = [t.value for t in trials[:i] if t.state == TrialState.COMPLETE]
        expected |= {i: max(done)} if done else {}
    assert best == expected
    assert history(parent.id, "trials/pruned")[12] == states.count(TrialState.PRUNED)
    assert parent.tag("best_trial") == str(study.best_trial.number)
    assert json.loads(parent.tag("best_settings")) == [study.best_trial.params]
    expected = {"history", "slice", "importances", "validations"}
    assert {f"figures/{figure}.png" for figure in expected} <= set(files(parent.id))
    with Store.connect().download(parent.id, "trials.csv") as path:
        assert len(pd.read_csv(path)) == 12

    # Again it does nothing; more trials are added to those that are there.
    before = Path(default_address(name)).read_bytes()
    assert "] trial " not in run("--n_trials", "12", *goal, "--name", name)
    assert len(trial_runs(name)) == 12 and len(study_of(name).trials) == 12
    assert Path(default_address(name)).read_bytes().startswith(before)
    assert "12 of 13 trials done already" in run("--n_trials", "13", *goal, "--name", name)
    assert [t.value for t in study_of(name).trials[:12]] == [t.value for t in trials]
    grown = history(parent.id, "best/retention")
    assert {step: grown[step] for step in best} == best and grown[13] >= max(best.values())

    # The winner, trained by its name, is the model that the trial was.
    output = run("--n_trials", "13", *goal, "--name", name, "--apply", "best", "--seeds", "42")
    winner = study_of(name).best_trial
    assert f"study {name}-trial{winner.number}: done" in output
    store = Store.connect()
    tuned = [r for r in store.find(stage="evaluate", seed="42") if r.tag("ft") == "ftwb2-13"]
    suites = {k: v for k, v in tuned[0].metrics.items()}
    assert len(suites) > 100
    assert {k: trial_runs(name)[winner.number].metrics[k] for k in suites} == suites
    assert len(store.find(stage="extract", ft="ftwb2-13", seed="42")) == 1
    assert "is not one of those that were completed" in run(
        "--n_trials", "13", *goal, "--name", name, "--apply", "99", code=2
    )

    # The name belongs to this search, and so does its storage.
    n_runs, journal = len(store.find()), Path(default_address(name)).read_bytes()
    for arguments, sentence in (
        (
            ["--objective", "trained"],
            "belongs to a sweep of other settings or another search space",
        ),
        (["--weight_decay", "0.5"], "belongs to a sweep of other settings or another search space"),
        (["--storage", "elsewhere.journal"], f"it was begun with storage={default_address(name)}"),
    ):
        output = run("--n_trials", "20", *goal, "--name", name, *arguments, code=2)
        assert sentence in output and output.count("\n") == 1
    assert not Path("elsewhere.journal").exists()
    output = run("--experiment", "other", "--n_trials", "1", *goal, "--name", name, code=2)
    assert "13 trials of sweep first of which the store at" in output
    optuna.delete_study(study_name=name, storage=open_storage(default_address(name)))
    assert "and not in storage=" in run("--n_trials", "20", *goal, "--name", name, code=2)
    assert len(store.find()) == n_runs
    assert Path(default_address(name)).read_bytes().startswith(journal)


def test_several_objectives_have_a_front_and_no_winner(store_uri):
    goals = ["--objective", "trained,atlantis/angle/mean", "--name", "front"]
    output = run(
        "--n_trials", "4", "--learning_rate", "1e-3", "--space", "two.yaml", *goals, code=2
    )
    assert "cannot read search space two.yaml" in output
    Path("two.yaml").write_text("epochs: [1, 2]\nweight_decay: {low: 0, high: 1}\n")
    assert "apply=best needs one objective" in run("--apply", "best", *goals, code=2)
    arguments = ["--space", "two.yaml", "--n_trials", "3", *goals]
    output = run(*arguments)
    study, parent = study_of("front"), sweep_run("front")
    assert study.directions == [
        optuna.study.StudyDirection.MAXIMIZE,
        optuna.study.StudyDirection.MINIMIZE,
    ]
    front = {trial.number for trial in study.best_trials}
    assert {int(n) for n in parent.tag("best_trial").split(",")} == front
    assert output.count("best: trial") == len(front)
    assert {"figures/pareto.png", "figures/history_trained.png"} <= set(files(parent.id))
    assert {"best/trained", "best/atlantis/angle/mean"} <= set(parent.metrics)


def test_a_sweep_of_a_pretraining_needs_no_base(store_uri):
    Path("one.yaml").write_text("learning_rate: {low: 0.5x, high: 2x}\n")
    run(
        "--ft", "none", "--pretrain", "pt1-1", "--objective", "standard/distance/mean",
        "--space", "one.yaml", "--n_trials", "2", "--name", "base", "--epochs", "1",
    )  # fmt: skip
    assert [run.tag("stage") for run in Store.connect().find()] == ["sweep"] * 3
    assert study_of("base").direction == optuna.study.StudyDirection.MINIMIZE


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--objective", "transfr"], "unknown objective 'transfr' (did you mean 'transfer'?)", 2),
        (["--ft", "ftwb2-99"], "unknown ft 'ftwb2-99'", 2),
        (["--n_trials", "0"], "n_trials='0' is not a whole number above 0", 2),
        (["--n_trials", "ten"], "n_trials='ten' is not a whole number above 0", 2),
        (["--learning_rate", "1"], "learning_rate is searched and cannot be given a value", 2),
        (["--pruner", "medain"], "(did you mean 'median'?)", 2),
        (["--apply", "worst"], "apply='worst' is not one of: none, best, or the number", 2),
        (["--seeds", "a"], "seed='a' is not a whole number", 2),
        (["--seeds", "1,-1"], "seed=-1 is too small", 2),
        (["--name", "a/b"], "is not made of letters", 2),
        (["--strategy", "lara"], "(did you mean 'lora'?)", 2),
        (["--workers", "0"], "workers=0 is too small", 2),
        (["--storage", "space.yaml"], "is a file of something else, not a journal of Optuna", 2),
        (["--storage", "sqlite:///mlflow.db"], "is a database that something else uses", 2),
        (["--storage", "sqlite:////nowhere/x.db"], "cannot use the storage at", 1),
        (["--storage", "postgresql+psycopg2://u:secret@127.0.0.1:9/x"], "127.0.0.1:9/x", 1),
        (["--storage", "what://x"], "cannot use the storage at what://x", 1),
        (["--executor", "ray", "--address", "auto"], "a cluster needs a database", 2),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_and_starts_nothing(store_uri, arguments, message, code):
    output = run(*arguments, code=code)
    assert message in output and output.count("\n") == 1 and "secret" not in output
    assert Store.connect().find() == [] and not Path("sweeps").exists()
    assert Path("space.yaml").read_text() == SPACE


@pytest.fixture
def begun(store_uri):
    """A sweep of a pretraining whose first trial is asked for and not yet begun, and its ledger."""
    Path("one.yaml").write_text("learning_rate: {low: 0.5x, high: 2x}\nepochs: [1, 2, 3]\n")
    settings = resolve(parse_model("pt1-1"), scale="smoke")
    typed = {"objective": "standard/distance/mean", "sampler": "tpe", "pruner": "none"}
    sweep = Sweep.asked_for(settings, typed | {"space": "one.yaml", "name": "begun"}, {})
    study = open_study(open_storage(default_address("begun")), sweep)
    ledger = Ledger(Store.connect(), sweep, study)
    return ledger, ledger.ask(), study


def open_run(ledger, number, **tags):
    spec = RunSpec("sweep", "a trial", ledger._sweep.trial_fingerprint(number), tags)
    return Store.connect().run(spec)


def test_a_trial_that_ended_before_its_worker_died_is_told(begun):
    ledger, trial, study = begun
    with open_run(ledger, trial.number, trial_state="complete") as run:
        run.metrics(1, {"objective/standard/distance/mean": 7.0})
    ledger.conclude(trial.number)
    (told,) = study.trials
    assert (told.state, told.value) == (TrialState.COMPLETE, 7.0)
    assert told.user_attrs["mlflow_run_id"] == run.id and len(ledger.trials()) == 1


def test_a_trial_that_failed_before_its_worker_died_failed(begun):
    ledger, trial, study = begun
    with pytest.raises(ZeroDivisionError), open_run(ledger, trial.number):
        raise ZeroDivisionError("poison")
    ledger.conclude(trial.number)
    (told,) = study.trials
    assert told.state == TrialState.FAIL and "poison" in told.user_attrs["error"]
    assert len(ledger.trials()) == 1


def test_a_trial_that_was_cut_off_is_asked_for_again_twice_and_then_failed(begun):
    ledger, trial, study = begun
    values = trial.params
    for _ in range(2):
        ledger.conclude(trial.number)
        assert ledger.trials() == []
        trial = ledger.ask()
        assert trial.params == values
    ledger.conclude(trial.number)
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 3
    (failed,) = ledger.trials()
    assert failed.user_attrs["error"] == "its worker died 3 times"


def test_a_trial_that_was_cut_off_while_it_was_asked_for_is_drawn_alike(begun):
    ledger, trial, study = begun
    values = trial.params
    study.tell(trial, state=TrialState.FAIL)
    again = open_study(open_storage(default_address("begun")), replace(ledger._sweep, name="twin"))
    twin = Ledger(Store.connect(), replace(ledger._sweep, name="twin"), again)
    partial = again.ask()  # the driver is killed after the first of two values
    partial.suggest_float("learning_rate", 1e-3, 4e-3)
    assert twin.take_up() == [] and twin.trials() == []
    assert twin.ask().params == values
