"""Where steps run: shares of cores and GPUs, addresses, and what a worker says."""

import pytest

from worldrep.errors import InputError
from worldrep.executors import ExecutorOptions
from worldrep.executors.executor import (
    Processes,
    absolute_uri,
    device_of,
    open_executor,
)
from worldrep.executors.jobs import Job, LineWriter, WorkerContext
from worldrep.executors.ray_tasks import capacity_of
from worldrep.names import parse_model
from worldrep.scales import resolve
from worldrep.tracking import Store
from worldrep.training.processes import visible_gpus


@pytest.mark.parametrize(
    ("gpus", "devices"),
    [
        (0.25, ["0", "0", "0", "0", "1", "1", "1", "1"]),
        (0.5, ["0", "0", "1", "1", "0", "0", "1", "1"]),
        (1.0, ["0", "1", "0", "1", "0", "1", "0", "1"]),
        (2.0, ["0,1"] * 8),
        (0.0, [None] * 8),
    ],
)
def test_workers_are_dealt_out_over_the_visible_gpus(monkeypatch, gpus, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [device_of(number, gpus) for number in range(1, 9)] == devices


def test_gpus_keep_the_names_that_the_scheduler_gave_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f")
    assert [device_of(number, 0.5) for number in (1, 2, 3)] == ["3", "3", "GPU-5f"]
    assert visible_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == 0


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "workers"),
    [
        ({"CPU": 8.0}, 2, 0.0, 4),
        ({"CPU": 8.0, "GPU": 1.0}, 1, 0.25, 4),
        ({"CPU": 2.0, "GPU": 4.0}, 1, 1.0, 2),
        ({"CPU": 8.0}, 1, 0.25, 0),
        ({}, 1, 0.0, 0),
    ],
)
def test_a_ray_node_takes_as_many_workers_as_fit(node, cpus, gpus, workers):
    assert capacity_of(node, cpus, gpus) == workers


def test_a_stores_address_means_the_same_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"
    assert absolute_uri("http://127.0.0.1:5000") == "http://127.0.0.1:5000"


def test_a_choice_is_read_from_what_was_typed():
    typed = dict(executor="ray", workers="4", cpus="1", gpus="0.25", address="auto")
    assert ExecutorOptions.parse(typed) == ExecutorOptions("ray", 4, 1, 0.25, "auto")
    typed |= dict(cpus="auto", gpus="auto")
    assert ExecutorOptions.parse(typed) == ExecutorOptions("ray", 4, 0, None, "auto")
    assert ExecutorOptions.parse(typed | dict(workers="auto")).workers == 0
    with pytest.raises(InputError, match="cpus=-1 is too small; it must be at least 0"):
        ExecutorOptions("ray", cpus=-1)


@pytest.mark.parametrize(
    ("options", "cores", "gpus", "fitted"),
    [
        ({}, 8, "", ("processes", 5)),  # as many as can run at once
        ({}, 2, "", ("processes", 2)),
        ({}, 1, "", ("inline", 1)),
        ({}, 8, "0,1,2", ("processes", 3)),
        ({}, 8, "0", ("inline", 1)),
        ({"executor": "inline"}, 8, "", ("inline", 1)),
        ({"executor": "ray"}, 8, "", ("ray", 1)),
        ({"workers": 4}, 2, "", ("processes", 4)),
    ],
)
def test_an_open_number_of_workers_is_that_of_gpus_or_cores(
    monkeypatch, options, cores, gpus, fitted
):
    monkeypatch.setattr("worldrep.executors.executor.cores", lambda: cores)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    found = ExecutorOptions(**{"workers": 0} | options).fitted(5)
    assert (found.executor, found.workers) == fitted


def test_few_bases_share_all_cores(monkeypatch):
    monkeypatch.setattr("worldrep.executors.executor.cores", lambda: 8)
    options = ExecutorOptions(workers=4)
    assert [options.shared_cpus(bases) for bases in (0, 1, 2, 3, 4, 5)] == [8, 8, 4, 2, 0, 0]
    assert ExecutorOptions(workers=4, cpus=1).shared_cpus(1) == 0
    assert ExecutorOptions().shared_cpus(1) == 0


def test_a_worker_tells_whole_lines():
    told = []
    lines = LineWriter(told.append)
    print("one\ntwo", end="", file=lines)
    assert told == ["one"]
    print(" and more", file=lines)
    assert told == ["one", "two and more"]


@pytest.mark.parametrize(("cpus", "own"), [(2, 0), (2, 3)])
def test_a_worker_process_computes_with_its_share_of_the_cores_or_the_jobs(store_uri, cpus, own):
    options = ExecutorOptions("processes", 2, cpus=cpus, perform="steps:count_threads")
    executor = open_executor(options, Store.connect(), report=print)
    settings = resolve(parse_model("pt1"), scale="smoke")
    executor.submit(Job("train", settings, "a title", "a fingerprint", "", "", cpus=own))
    outcomes = []
    while not outcomes:
        outcomes = executor.wait(1.0)
    executor.stop()
    assert [outcome.message for outcome in outcomes] == [f"{own or cpus} threads"]


def test_a_worker_that_cannot_open_the_store_says_why(capfd):
    said, job = [], Job("train", resolve(parse_model("pt1"), scale="smoke"), "pt1", "f", "", "")
    context = WorkerContext("sqlite:////dev/null/mlflow.db", "worldrep")
    workers = Processes(context, 1, 0.0, lambda worker, message: said.append(message))
    workers.submit(job)
    while not (outcomes := workers.wait(1.0)):
        pass
    workers.stop()
    assert [outcome.state for outcome in outcomes] == ["lost"]
    assert "cannot use the MLflow store at sqlite:////dev/null/mlflow.db" in said[-1]
    assert "Traceback" not in capfd.readouterr().err
