"""Sweeps whose driver and workers are killed for real."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from drivers import trial_runs
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from servers import postgres

from entrypoints.sweep import main
from worldrep.sweeps.definition import default_address, open_storage
from worldrep.tracking import Store

pytestmark = pytest.mark.slow

SPACE = "learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}\nloss: [full, answer]\n"
COMMON = [
    "--scale", "smoke", "--ft", "ftwb2-13", "--space", "space.yaml", "--epochs", "5",
    "--objective", "retention", "--n_validations", "4",
]  # fmt: skip


def sweep(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "entrypoints.sweep", *COMMON, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*arguments):
    """In this process, which has everything imported already."""
    result = CliRunner().invoke(main, [*COMMON, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def counted(name, storage=None):
    """The trials that were not repeated by others, and all trials."""
    storage = open_storage(storage or default_address(name))
    trials = optuna.load_study(study_name=name, storage=storage).trials
    history = RetryHeartbeatStaleTrialCallback.retry_history
    repeated = {number for trial in trials for number in history(trial)}
    return [trial for trial in trials if trial.number not in repeated], trials


def wait_for_a_living_trial(name, process, finished):
    """The run of a trial that has just begun, when so many others are finished."""
    while process.poll() is None:
        runs = trial_runs(name).values()
        ends = sorted(run.ended for run in runs if run.status == "FINISHED")
        begun = [run for run in runs if run.alive and len(ends) >= finished]
        begun = [run for run in begun if run.started >= ends[finished - 1]]
        if begun:
            return begun[0]
        time.sleep(0.1)
    raise AssertionError(process.communicate()[0])


@pytest.fixture(autouse=True)
def space(store_uri):
    Path("space.yaml").write_text(SPACE)


def test_a_sweep_whose_driver_is_killed_ends_like_one_that_is_not():
    arguments = ["--n_trials", "3"]
    before = {}
    for finished, number in ((1, signal.SIGKILL), (2, signal.SIGTERM)):
        process = sweep(*arguments, "--name", "killed")
        wait_for_a_living_trial("killed", process, finished)
        process.send_signal(number)
        output, _ = process.communicate()
        before |= {n: r for n, r in trial_runs("killed").items() if r.status == "FINISHED"}
    assert process.returncode == 130 and "Traceback" not in output
    assert all(run.status != "RUNNING" for run in Store.connect().find())
    output = finish(*arguments, "--name", "killed")
    assert f"{len(before)} of 3 trials done already" in output
    after = trial_runs("killed")
    for done, run in before.items():  # neither lost nor done again
        assert after[done].id == run.id and after[done].ended == run.ended
    assert all(run.status != "RUNNING" for run in Store.connect().find())
    finish(*arguments, "--name", "straight")
    own, every = counted("killed")
    straight, _ = counted("straight")
    assert len(every) == 5  # two were cut off
    assert [(t.params, t.values) for t in own] == [(t.params, t.values) for t in straight]


@pytest.fixture
def database():
    folder = Path(tempfile.mkdtemp(prefix="worldrep-postgres-"))  # which another user can reach
    with postgres(folder) as uri:
        yield uri


@pytest.mark.endure
@pytest.mark.xdist_group("ray")  # one Ray cluster at a time
def test_the_trial_of_a_killed_ray_worker_is_done_again_on_postgresql(database, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    process = sweep(
        "--n_trials", "3", "--name", "two", "--executor", "ray", "--workers", "2",
        "--storage", database,
    )  # fmt: skip
    victim = wait_for_a_living_trial("two", process, finished=1)
    os.kill(victim.claim.owner.pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "cut off; it is done again as another one" in output
    own, every = counted("two", database)
    lost = [trial for trial in every if trial not in own]
    assert len(own) == 3 and len(lost) == 1 and lost[0].state == TrialState.FAIL
    again = next(t for t in own if t.system_attrs.get("failed_trial") == lost[0].number)
    assert again.params == lost[0].params and again.state.is_finished()
    runs = trial_runs("two")
    assert runs[lost[0].number].status == "KILLED"
    assert runs[lost[0].number].tag("trial_state") == "failed"
    assert all(run.status != "RUNNING" for run in Store.connect().find())
    password = database.split(":")[2].split("@")[0]
    (parent,) = [run for run in Store.connect().find(sweep="two") if not run.tag("trial")]
    assert password not in str(parent.tags) + output
