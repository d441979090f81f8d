"""Sweeps through their command: what the store holds of trials, resuming, the winner."""

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from drivers import trial_runs
from mlflow import MlflowClient
from optuna.trial import TrialState

from entrypoints.sweep import main
from worldrep.executors import ExecutorOptions, Outcome
from worldrep.names import parse_model
from worldrep.scales import resolve
from worldrep.sweeps.definition import Sweep, default_address, open_storage, open_study
from worldrep.sweeps.drive import RETRY, run_sweep
from worldrep.sweeps.report import sweep_spec
from worldrep.sweeps.search import Objective
from worldrep.tracking import RunSpec, Store

# Some values learn, some are poor, and with the last one the loss is not finite.
SPACE = "learning_rate: [5.0e-4, 2.0e-3, 0.3, 1.0e+38]\nepochs: [1, 2]\n"
OPTIMIZERS = """
optimizer: [adamw, muon]
learning_rate: {low: 0.1x, high: 10x, log: true}
muon_learning_rate: {low: 0.1x, high: 10x, log: true}
"""
COMMON = ["--scale", "smoke", "--ft", "ftwb2-13", "--n_validations", "4", "--sampler", "random"]
FIRST = ["--n_trials", "12", "--objective", "retention", "--name", "first"]
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


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


# A sweep of twelve trials


@pytest.fixture(scope="module")
def straight_sweep(new_store):
    """The folder of a sweep `first` and what its command printed."""
    with new_store("sweep"):
        return Path.cwd(), run(*FIRST)


@pytest.fixture
def first(straight_sweep, store_uri, tmp_path):
    """The output of a sweep `first`, in whose store the test may write."""
    folder, output = straight_sweep
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlruns"))
    return output


def test_trials_complete_are_pruned_or_fail(first):
    states = {trial.state for trial in study_of("first").trials}
    assert states == {COMPLETE, PRUNED, FAIL} and first.count("] trial ") == 12
    assert "the space has 8 combinations: of 12 trials some are equal" in first


def test_the_optimizer_is_searched(first):
    Path("optimizers.yaml").write_text(OPTIMIZERS)
    output = run("--name", "both", "--n_trials", "4", "--space", "optimizers.yaml")
    assert output.count("] trial ") == 4
    optimizers = {trial.params["optimizer"] for trial in study_of("both").trials}
    assert optimizers == {"adamw", "muon"}
    for trial in study_of("both").trials:
        found = trial_runs("both")[trial.number]
        assert found.params["cfg.optimizer"] == trial.params["optimizer"]
        assert trial.state in (COMPLETE, PRUNED) and found.status == "FINISHED"


def test_every_trial_is_a_run_below_the_sweeps_that_says_how_it_ended(first):
    runs, parent = trial_runs("first"), sweep_run("first")
    assert sorted(runs) == list(range(12))
    how = {COMPLETE: "complete", PRUNED: "pruned", FAIL: "failed"}
    for trial in study_of("first").trials:
        found = runs[trial.number]
        assert found.parent == parent.id and found.tag("trial_state") == how[trial.state]
        assert found.status == ("FAILED" if trial.state == FAIL else "FINISHED")
        assert found.params["cfg.learning_rate"] == str(trial.params["learning_rate"])
        assert found.params["cfg.epochs"] == str(trial.params["epochs"])
        assert found.tag("model") == "pt1_ftwb2-13" and found.tag("sweep") == "first"
        assert trial.user_attrs["mlflow_run_id"] == found.id


def test_the_value_of_a_trial_is_computed_from_its_evaluation(first):
    base = next(r for r in Store.connect().find(stage="evaluate") if r.tag("ft") == "none")
    settings = resolve(parse_model("pt1_ftwb2-13"), scale="smoke")
    runs = trial_runs("first")
    for trial in study_of("first").get_trials(states=[COMPLETE]):
        metrics = runs[trial.number].metrics
        own = {k: v for k, v in metrics.items() if k.count("/") == 2}
        value = Objective("retention").value(own, base.metrics, settings)
        assert trial.value == metrics["objective/retention"] == value


def test_validations_are_reported_until_a_trial_is_pruned_or_fails(first):
    runs = trial_runs("first")
    for trial in study_of("first").trials:
        found = runs[trial.number]
        values = history(found.id, "val/objective/retention")
        assert list(values.values()) == pytest.approx(list(trial.intermediate_values.values()))
        assert ("atlantis/angle/mean" in found.metrics) == (trial.state == COMPLETE)
        assert trial.state != PRUNED or len(values) < 4
        assert trial.state != FAIL or "the loss is" in found.tag("error")


def test_the_run_of_a_sweep_has_the_best_value_by_trial_settings_table_and_figures(first):
    study, parent = study_of("first"), sweep_run("first")
    assert parent.status == "FINISHED"
    expected = {}
    for i in range(1, 13):
        done = [trial.value for trial in study.trials[:i] if trial.state == COMPLETE]
        expected |= {i: max(done)} if done else {}
    assert history(parent.id, "best/retention") == expected
    pruned = len(study.get_trials(states=[PRUNED]))
    assert history(parent.id, "trials/pruned")[12] == pruned
    assert parent.tag("best_trial") == str(study.best_trial.number)
    assert json.loads(parent.tag("best_settings")) == [study.best_trial.params]
    figures = {"history", "slice", "importances", "validations"}
    assert {f"figures/{figure}.png" for figure in figures} <= set(files(parent.id))
    with Store.connect().download(parent.id, "trials.csv") as path:
        assert len(pd.read_csv(path)) == 12


def test_the_same_command_again_does_nothing(first):
    before = Path(default_address("first")).read_bytes()
    assert "] trial " not in run(*FIRST)
    assert len(trial_runs("first")) == 12 and len(study_of("first").trials) == 12
    assert Path(default_address("first")).read_bytes().startswith(before)


def test_more_trials_are_added_to_those_that_are_there(first):
    values, parent = [t.value for t in study_of("first").trials], sweep_run("first")
    best = history(parent.id, "best/retention")
    assert "12 of 13 trials done already" in run(*FIRST, "--n_trials", "13")
    assert [trial.value for trial in study_of("first").trials[:12]] == values
    grown = history(parent.id, "best/retention")
    assert {step: grown[step] for step in best} == best and grown[13] >= max(best.values())


def test_the_winner_trained_by_its_name_is_the_model_that_the_trial_was(first):
    output = run(*FIRST, "--apply", "best", "--seeds", "42")
    winner = study_of("first").best_trial
    assert f"study first-trial{winner.number}: done" in output
    store = Store.connect()
    (tuned,) = [r for r in store.find(stage="evaluate", seed="42") if r.tag("ft") == "ftwb2-13"]
    assert len(tuned.metrics) > 100
    metrics = trial_runs("first")[winner.number].metrics
    assert {name: metrics[name] for name in tuned.metrics} == tuned.metrics
    assert len(store.find(stage="extract", ft="ftwb2-13", seed="42")) == 1


def test_a_trial_that_was_not_completed_cannot_be_applied(first):
    output = run(*FIRST, "--apply", "99", code=2)
    assert "trial 99 is not one of those that were completed: " in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--objective", "trained"], "belongs to a sweep of other settings or another search"),
        (["--weight_decay", "0.5"], "belongs to a sweep of other settings or another search"),
        (["--storage", "elsewhere.journal"], "and not in storage=elsewhere.journal: it was begun"),
        (["--experiment", "other"], "12 trials of sweep first of which the store at"),
    ],
)
def test_a_name_belongs_to_one_search_and_one_storage(first, arguments, sentence):
    n_runs, journal = len(Store.connect().find()), Path(default_address("first")).read_bytes()
    output = run(*FIRST, "--n_trials", "20", *arguments, code=2)
    assert sentence in output and output.count("\n") == 1
    assert not Path("elsewhere.journal").exists() and len(Store.connect().find()) == n_runs
    assert Path(default_address("first")).read_bytes().startswith(journal)


def test_a_sweep_whose_trials_were_deleted_is_refused(first):
    optuna.delete_study(study_name="first", storage=open_storage(default_address("first")))
    assert "and not in storage=" in run(*FIRST, code=2)


# Other sweeps


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
        (["--n_trials", "0"], "n_trials=0 is too small; it must be at least 1", 2),
        (["--n_trials", "ten"], "n_trials='ten' is not a whole number", 2),
        (["--learning_rate", "1"], "learning_rate is searched and cannot be given a value", 2),
        (["--pruner", "medain"], "(did you mean 'median'?)", 2),
        (["--apply", "worst"], "apply='worst' is not one of: none, best, or the number", 2),
        (["--seeds", "a"], "seed='a' is not a whole number", 2),
        (["--seeds", "1,-1"], "seed=-1 is too small", 2),
        (["--name", "a/b"], "is not made of letters", 2),
        (["--strategy", "lara"], "(did you mean 'lora'?)", 2),
        (["--workers", "0"], "workers=0 is too small", 2),
        (["--storage", "space.yaml"], "is a file of something else, not a journal of Optuna", 2),
        (["--storage", "/dev/zero"], "is a file of something else, not a journal of Optuna", 2),
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


# Trials that are cut off, with workers that end as a script says


class ScriptedWorker:
    """An executor whose trials end as in a list: finish, fail, vanish, or both."""

    def __init__(self, store, endings):
        self.store, self.endings, self.jobs, self.job = store, list(endings), [], None

    @property
    def free(self):
        return int(self.job is None)

    def submit(self, job):
        self.job = job
        self.jobs.append(job)

    def wait(self, seconds):
        job, self.job = self.job, None
        ending = self.endings.pop(0) if self.endings else "finish"
        run_id = ""
        if "finish" in ending:
            run_id = finished(self.store, job.spec)
        elif "fail" in ending:
            with pytest.raises(ZeroDivisionError), self.store.run(job.spec):
                raise ZeroDivisionError("poison")
        return [Outcome(job.fingerprint, "lost" if "vanish" in ending else "done", run_id)]

    def stop(self):
        return []


def finished(store, spec):
    with store.run(spec) as run:
        run.metrics(1, {"objective/standard/distance/mean": 7.0})
        run.tags({"worldrep.trial_state": "complete"})
    return run.id


@pytest.fixture
def sweep_of(store_uri):
    """Makes sweeps of a pretraining that differ in their name."""
    Path("one.yaml").write_text("learning_rate: {low: 0.5x, high: 2x}\nepochs: [1, 2, 3]\n")
    settings = resolve(parse_model("pt1-1"), scale="smoke")
    typed = {"objective": "standard/distance/mean", "sampler": "tpe", "pruner": "none"}
    return lambda name: Sweep.asked_for(settings, {**typed, "space": "one.yaml", "name": name}, {})


def drive(monkeypatch, sweep, n_trials, endings=()):
    """Run a sweep with scripted endings; the trials, and the jobs that its worker was given."""
    worker = ScriptedWorker(Store.connect(), endings)
    monkeypatch.setattr("worldrep.sweeps.drive.open_executor", lambda *_: worker)
    address = default_address(sweep.name)
    _, study = run_sweep(Store.connect(), sweep, ExecutorOptions(), address, n_trials)
    return study.trials, worker.jobs


@pytest.fixture
def begun(sweep_of):
    """A sweep whose driver was killed, and its study."""
    sweep = sweep_of("begun")
    with Store.connect().run(sweep_spec(sweep, default_address("begun"))):
        pass
    return sweep, open_study(open_storage(default_address("begun")), sweep)


def test_a_trial_that_finished_before_its_worker_died_is_told(sweep_of, monkeypatch):
    (trial,), jobs = drive(monkeypatch, sweep_of("told"), 1, ["finish and vanish"])
    assert (trial.state, trial.value, len(jobs)) == (COMPLETE, 7.0, 1)


def test_a_trial_that_finished_before_the_driver_was_killed_is_told(begun, monkeypatch):
    sweep, study = begun
    trial = study.ask(fixed_distributions=sweep.space)
    tags = {"sweep": "begun", "trial": "0"}
    finished(Store.connect(), RunSpec("sweep", "t", sweep.trial_fingerprint(trial.number), tags))
    (told,), jobs = drive(monkeypatch, sweep, 1)
    assert (told.state, told.value, jobs) == (COMPLETE, 7.0, [])


def test_a_trial_that_failed_before_its_worker_died_failed(sweep_of, monkeypatch):
    (failed, _), jobs = drive(monkeypatch, sweep_of("failed"), 2, ["fail and vanish"])
    assert failed.state == FAIL and "poison" in failed.user_attrs["error"] and len(jobs) == 2


def test_a_trial_that_is_cut_off_is_repeated_twice_and_then_fails(sweep_of, monkeypatch, capsys):
    trials, jobs = drive(monkeypatch, sweep_of("lost"), 2, ["vanish"] * 3)
    assert [trial.state for trial in trials] == [FAIL] * 3 + [COMPLETE] and len(jobs) == 4
    assert trials[0].params == trials[1].params == trials[2].params != trials[3].params
    assert trials[2].user_attrs["error"] == "it was cut off 3 times"
    assert capsys.readouterr().out.count("cut off; it is done again as another one") == 2


def test_a_trial_that_a_killed_driver_had_queued_is_not_queued_again(begun, monkeypatch):
    sweep, study = begun
    study.ask(fixed_distributions=sweep.space)
    RETRY(study, study.trials[0])
    trials, jobs = drive(monkeypatch, sweep, 1)
    assert [trial.state for trial in trials] == [FAIL, COMPLETE] and len(jobs) == 1
    assert trials[0].params == trials[1].params


def test_a_trial_that_was_cut_off_while_it_was_suggested_gets_the_same_values(begun, monkeypatch):
    sweep, study = begun
    study.ask().suggest_float("learning_rate", 1e-3, 4e-3)  # the second value is missing
    (_, again), jobs = drive(monkeypatch, sweep, 1)
    straight = optuna.create_study(sampler=sweep.sampler_of(0))
    assert again.params == straight.ask(fixed_distributions=sweep.space).params
    assert len(jobs) == 1
