"""Commands in this process, and a small study whose drivers are processes."""

import signal
import subprocess
import sys

from click.testing import CliRunner
from safetensors.torch import load_file

from worldrep.tracking import RunSpec, Store

LONG = """
models: [pt1, pt1_ftwb1-1..2]
scale: smoke
settings: {epochs: 16, n_checkpoints: 8}
"""


def run(entry, *arguments, code=0):
    """Run an entry point in this process; return what it prints."""
    result = CliRunner().invoke(entry.main, [*arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def invoke(command, *arguments):
    """Run a command in this process; return exit code, standard output and standard error."""
    done = CliRunner().invoke(command, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stdout, done.stderr


def run_spec(fingerprint="f1", **tags):
    """What a store is told of a run; the same fingerprint stands for the same work."""
    return RunSpec("evaluate", "pt1 s42 evaluate", fingerprint, {"model": "pt1", **tags}, {"a": 1})


def driver(*arguments):
    """The command as a process that listens to Ctrl-C, even if the tests run in the background."""
    command = [sys.executable, "-m", "entrypoints.study", "--name", "long.yaml"]
    command += [] if "--executor" in arguments else ["--executor", "inline"]
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(*arguments):
    process = driver(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def trial_runs(name):
    """The runs of a sweep's trials by number."""
    runs = Store.connect().find(stage="sweep", sweep=name)
    return {int(run.tag("trial")): run for run in runs if run.tag("trial")}


def weights(graph):
    """Final weights of every trained model by its name."""
    store = Store.connect()
    found = {}
    for step in graph.steps.values():
        if step.kind == "train":
            run = store.finished(step.fingerprint)
            with store.download(run.id, "model/model.safetensors") as path:
                found[step.title] = load_file(path)
    return found


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for title, tensors in one.items():
        assert all(tensors[name].equal(other[title][name]) for name in tensors), title
