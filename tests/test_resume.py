"""Real processes, killed for real: a training ends the same whatever happened to it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from worldrep.tracking import Store

pytestmark = pytest.mark.slow

LONG = ["--scale", "smoke", "--epochs", "24", "--n_checkpoints", "12", "--optimizer", "muon"]


def pretrain(*arguments):
    """The command as a process that listens to Ctrl-C, even if the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "entrypoints.pretrain", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(*arguments):
    process = pretrain(*arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "it/s" not in errors and "step/s" not in errors  # no progress bar without a terminal
    return output


def only_run(experiment):
    """The single run of an experiment: its id and its final weights."""
    store = Store.connect(experiment)
    (run,) = store.find(stage="pretrain")
    assert run.status == "FINISHED"
    (model,) = store.client.search_logged_models([store.experiment_id])
    assert model.status == "READY" and model.model_id == run.model_id
    with store.download(run.id, "model/model.safetensors") as path:
        return run.id, load_file(path)


def history(run_id, key="train/loss"):
    return [(m.step, m.value) for m in MlflowClient().get_metric_history(run_id, key)]


def stored_checkpoints(folder):
    return len(list(Path(folder).glob("mlruns/*/*/artifacts/checkpoints/step-*/manifest.json")))


def kill_after(condition, process):
    """SIGKILL the process when the condition holds; whether it was still running then."""
    while process.poll() is None and not condition():
        time.sleep(0.02)
    alive = process.poll() is None
    if alive:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def test_a_training_that_is_killed_ends_with_the_same_weights(store_uri, tmp_path):
    finish(*LONG, "--experiment", "straight")
    straight, weights = only_run("straight")
    done = stored_checkpoints(tmp_path)

    kills = 0
    process = pretrain(*LONG, "--experiment", "killed")
    kills += kill_after(lambda: stored_checkpoints(tmp_path) > done, process)
    end = time.time() + random.Random(0).uniform(2, 6)  # while it starts, loads, trains or stores
    kills += kill_after(lambda: time.time() > end, pretrain(*LONG, "--experiment", "killed"))
    assert kills == 2
    output = finish(*LONG, "--experiment", "killed")
    assert "resumed after step" in output or "already done" in output

    killed, resumed_weights = only_run("killed")
    assert weights.keys() == resumed_weights.keys()
    assert all(weights[name].equal(resumed_weights[name]) for name in weights)
    assert history(killed) == history(straight)
    assert history(killed, "val/standard/angle/mean") == history(
        straight, "val/standard/angle/mean"
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_give_the_curve_of_one_and_log_once(store_uri, optimizer):
    own = ["--scale", "smoke", "--optimizer", optimizer]
    output = finish(*own, "--experiment", "one")
    assert output.count("\n") == 1 and "done, run" in output
    launcher = Path(sys.executable).with_name("accelerate")
    launch = [launcher, "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, "-m", "entrypoints.pretrain", *own, "--experiment", "two"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (one, weights), (two, shared_weights) = only_run("one"), only_run("two")
    assert MlflowClient().get_run(two).data.tags["worldrep.processes"] == "2"
    alone, together = history(one), history(two)
    assert [step for step, _ in alone] == [step for step, _ in together]
    assert [loss for _, loss in together] == pytest.approx([loss for _, loss in alone], rel=1e-4)
    for name, value in weights.items():
        assert value.allclose(shared_weights[name], rtol=1e-3, atol=1e-4)
