"""Real commands that are disturbed, and what they make when nothing disturbs them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from drivers import LONG
from safetensors.torch import load_file

from worldrep.tracking import Store

SMOKE = ("--scale", "smoke", "--epochs", "16", "--n_checkpoints", "8")
SPACE = "learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}\n"
TRIALS = ("--scale", "smoke", "--ft", "ftwb2-13", "--space", "space.yaml", "--n_trials", "3")
COMMANDS = {
    "pretrain": SMOKE,
    "study": ("--name", "long.yaml", "--executor", "processes", "--workers", "2", "--cpus", "1"),
    "sweep": (*TRIALS, "--sampler", "random", "--objective", "retention"),
    "evaluate": ("--model", "pt1", *SMOKE),
}


def write_files():
    """The study and the search space that the commands name."""
    Path("long.yaml").write_text(LONG)
    Path("space.yaml").write_text(SPACE)


def begin(command, *more):
    return subprocess.Popen(
        [sys.executable, "-m", f"entrypoints.{command}", *COMMANDS[command], *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


def again(command):
    """The same command in this process, which has everything imported already."""
    main = import_module(f"entrypoints.{command}").main
    result = CliRunner().invoke(main, COMMANDS[command])
    assert result.exit_code == 0, result.output
    return result.output


def results(store):
    """Weights, curves and tables of every run by its name, after a check that all is in order."""
    runs = store.find()
    assert {run.status for run in runs} == {"FINISHED"}
    assert set(Counter(run.fingerprint for run in runs).values()) == {1}
    return {run.name: (weights(store, run), curves(store, run)) for run in runs}


def weights(store, run):
    if run.stage not in ("pretrain", "finetune"):
        return {}
    assert len(store.checkpoint_steps(run.id)) == int(run.params["cfg.n_checkpoints"])
    with store.download(run.id, "model/model.safetensors") as path:
        return load_file(path)


def curves(store, run):
    """Every point of every metric but those that depend on the time."""
    depends = ("tokens_per_second", "progress", "study/", "trials/", "best/")
    names = [name for name in run.metrics if not any(word in name for word in depends)]
    found = {name: store.client.get_metric_history(run.id, name) for name in sorted(names)}
    return {name: [(p.step, repr(p.value)) for p in points] for name, points in found.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, (tensors, points) in found.items():
        assert tensors.keys() == expected[name][0].keys()
        assert all(value.equal(expected[name][0][key]) for key, value in tensors.items()), name
        assert points == expected[name][1], name


@pytest.fixture(scope="module")
def undisturbed(new_store):
    """The results of each command when nothing disturbs it."""
    known = {}

    def of(command):
        if command not in known:
            before = mlflow.get_tracking_uri()
            with new_store(command) as (uri, patch):
                patch.setenv("MLFLOW_EXPERIMENT_NAME", "worldrep")
                mlflow.set_tracking_uri(uri)
                write_files()
                prepare(command)
                again(command)
                known[command] = results(Store.connect())
            mlflow.set_tracking_uri(before)
        return known[command]

    return of


def prepare(command):
    if command == "evaluate":
        again("pretrain")
