"""Drivers and workers as real processes, killed for real, alone and side by side."""

import os
import re
import signal
import time
from collections import Counter

import psutil
import pytest
from drivers import assert_equal, driver, finish, weights

from worldrep.tracking import Store

pytestmark = pytest.mark.slow

PROCESSES = ("--executor", "processes", "--workers", "2", "--cpus", "1")


def wait_until(condition, process=None, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.1)
    return True


def check_store(graph):
    """Exactly one finished run for every fingerprint, and nothing left running."""
    runs = Store.connect().find()
    assert "RUNNING" not in {run.status for run in runs}
    counts = Counter(run.fingerprint for run in runs if run.fingerprint in graph.steps)
    assert counts == dict.fromkeys(graph.steps, 1)
    assert {run.status for run in runs if run.fingerprint in graph.steps} == {"FINISHED"}
    (study,) = [run for run in runs if run.tag("stage") == "study"]
    assert study.status == "FINISHED"


def processes_gone(pids):
    return wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def children(process):
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def test_a_killed_workers_step_goes_on_from_its_checkpoint(long_study, straight):
    process = driver(*PROCESSES)
    store = Store.connect()

    def base_run():
        runs = store.find(stage="pretrain")
        return runs[0] if runs and len(store.checkpoint_steps(runs[0].id)) >= 2 else None

    assert wait_until(base_run, process)
    victim = base_run().claim.owner.pid
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "its worker died (exit code -9); it is tried again" in output
    assert "resumed after step" in output
    check_store(long_study)
    assert_equal(weights(long_study), straight)


@pytest.mark.parametrize(
    ("stop", "where"),
    [(signal.SIGTERM, ()), pytest.param(signal.SIGINT, PROCESSES, marks=pytest.mark.endure)],
)
def test_a_polite_stop_closes_every_run(long_study, stop, where):
    process = driver(*where)
    store = Store.connect()
    assert wait_until(lambda: any(r.alive for r in store.find(stage="finetune")), process)
    process.send_signal(stop)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert re.search(r"study \w+: interrupted; \d+ of \d+ steps are done and kept", output)
    assert "a training are kept; it goes on with mlflow run . -e study -P name=" in output
    assert "Traceback" not in output
    statuses = Counter(run.status for run in store.find())
    assert statuses["RUNNING"] == 0 and statuses["KILLED"] >= 2  # the step and the study
    finish(*where)
    check_store(long_study)


@pytest.mark.endure
def test_when_the_driver_that_keeps_the_studys_run_dies_the_other_takes_it(long_study):
    first = driver()
    store = Store.connect()
    assert wait_until(lambda: any(r.alive for r in store.find(stage="pretrain")), first)
    second = driver()
    time.sleep(6)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    output, _ = second.communicate()
    assert second.returncode == 0, output
    check_store(long_study)


def test_shards_side_by_side_make_the_whole(long_study):
    shards = [driver("--shard", f"{index}/3") for index in (1, 2, 3)]
    outputs = [process.communicate()[0] for process in shards]
    assert [process.returncode for process in shards] == [0, 0, 0], "\n".join(outputs)
    check_store(long_study)
    done = "\n".join(outputs).count(": done in")
    assert done == len(long_study.steps), "\n".join(outputs)  # each by one of the three
    assert len(Store.connect().find(stage="summary")) == 3
