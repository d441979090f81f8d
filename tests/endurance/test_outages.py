"""Outages of a real MLflow server while real commands run: nothing is lost, repeated or left open.

Short ones run with the other slow tests, those of 10 seconds, 2 and 10 minutes in `make endure`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import mlflow
import pytest
from proxy import BAD_GATEWAY, DROP, FORBIDDEN, HANG, LOGIN, PASS, REFUSE, SLOW, proxy
from real_commands import (
    COMMANDS,
    SMOKE,
    again,
    assert_same,
    begin,
    curves,
    finish,
    prepare,
    results,
    write_files,
)
from real_commands import undisturbed as undisturbed  # a fixture

from benchmarks.stores import mlflow_server
from worldrep.errors import StateError
from worldrep.tracking import MODEL, AwayError, Dataset, RunSpec, Store, StoreFault, TakenError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("outages")]

BEGINS = {  # an outage begins at the n-th request that contains a text
    "pretrain": ("manifest.json", 2),
    "study": ("manifest.json", 4),
    "sweep": ("runs/create", 4),
    "evaluate": ("runs/create", 1),
}
KILL = "kill"  # the server is killed and started again
LONG_ONLY = partial(pytest.param, marks=pytest.mark.endure)
MEANS = (REFUSE, HANG, BAD_GATEWAY, KILL)


class Server:
    """An MLflow server on a SQLite file, which can be killed and comes back at the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = 0
        self.start()

    def start(self) -> None:
        self._block = mlflow_server(f"sqlite:///{self._folder}/server.db", self._folder, self.port)
        self.address = self._block.__enter__()
        self.port = int(self.address.rpartition(":")[2])

    def stop(self) -> None:
        self._block.__exit__(None, None, None)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def through(server, tmp_path, monkeypatch, request):
    """A proxy before the server, and an experiment of the test's own."""
    with proxy(server.port) as found:
        monkeypatch.chdir(tmp_path)
        write_files()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        yield found
    mlflow.set_tracking_uri(None)  # else it outlasts this test


@pytest.fixture
def direct(server, through):
    """The same store, past the proxy."""
    store = Store.connect(uri=server.address)
    mlflow.set_tracking_uri(through.uri)  # for other processes: `connect` has changed it
    return store


def seen(found, text, times, process=None):
    """Wait until a text was in so many requests."""
    while sum(text in line for line in found.requests) < times:
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@contextmanager
def outage(means, found, server):
    if means == KILL:
        server.stop()
    else:
        found.set(means)
    yield
    if means == KILL:
        server.start()
    found.set(PASS)


def disturb(command, means, seconds, found, server):
    """Run a command during an outage; return what it printed."""
    prepare(command)
    found.requests.clear()
    process = begin(command)
    seen(found, *BEGINS[command], process)
    with outage(means, found, server):
        time.sleep(seconds)
    return finish(process)


@pytest.mark.parametrize("means", [REFUSE, LONG_ONLY(HANG)])
def test_a_training_goes_on_through_a_short_outage(means, through, server, direct, undisturbed):
    disturb("pretrain", means, 8, through, server)
    assert_same(results(direct), undisturbed("pretrain"))


@pytest.mark.endure
@pytest.mark.parametrize("command", ["study", "evaluate"])
def test_other_commands_wait_as_well(command, through, server, direct, undisturbed):
    output = disturb(command, REFUSE, 12, through, server)
    assert "has not answered since" in output and "(Connection refused)" in output
    assert_same(results(direct), undisturbed(command))


@pytest.mark.endure
@pytest.mark.parametrize("seconds", [10, 120, 600])
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_outage_is_waited_out(
    command, means, seconds, through, server, direct, undisturbed, tried
):
    tried(f"outages of {seconds} seconds")
    output = disturb(command, means, seconds, through, server)
    assert seconds < 60 or "answers again, after" in output
    assert_same(results(direct), undisturbed(command))


@pytest.mark.endure
@pytest.mark.parametrize("command", COMMANDS)
def test_a_slow_server_is_only_slow(command, through, server, direct, undisturbed, tried):
    tried("slow servers")
    through.delay = 0.5
    disturb(command, SLOW, 60, through, server)
    assert_same(results(direct), undisturbed(command))


@pytest.mark.endure
def test_after_the_patience_the_same_command_goes_on(through, direct, undisturbed, monkeypatch):
    """All of the training is computed while the server is away, and sent by the next command."""
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "6")
    process = begin("pretrain")
    seen(through, "manifest.json", 2, process)
    through.set(REFUSE)
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in output
    assert "has not answered since" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("Error: the MLflow store at") and "same command sends" in last
    assert len(direct.checkpoint_steps(direct.find()[0].id)) < 8
    through.set(PASS)
    output = again("pretrain")
    (run,) = direct.find()
    assert f"resumed after step {direct.checkpoint_steps(run.id)[-1]}" in output  # the last one
    assert_same(results(direct), undisturbed("pretrain"))


def test_a_kill_during_an_outage_loses_nothing(through, direct, undisturbed):
    process = begin("pretrain")
    seen(through, "manifest.json", 2, process)
    through.set(HANG)
    time.sleep(3)
    process.kill()
    process.communicate()
    through.set(PASS)
    again("pretrain")
    assert_same(results(direct), undisturbed("pretrain"))


@pytest.mark.endure
def test_a_stop_during_an_outage_is_not_held_up(through, direct, undisturbed):
    process = begin("pretrain")
    seen(through, "manifest.json", 1, process)
    through.set(REFUSE)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    output, _ = process.communicate()
    assert process.returncode == 130 and time.monotonic() - begun < 60, output
    assert output.strip().splitlines()[-1].startswith("Interrupted: ")
    through.set(PASS)
    again("pretrain")
    assert_same(results(direct), undisturbed("pretrain"))


@pytest.mark.endure
@pytest.mark.parametrize("means", [FORBIDDEN, LOGIN])
def test_what_waiting_cannot_mend_ends_at_once(means, through, direct, undisturbed):
    process = begin("pretrain")
    seen(through, "manifest.json", 2, process)
    through.set(means)
    output, _ = process.communicate()
    assert process.returncode == 1 and "has not answered" not in output, output
    assert "Traceback" not in output and output.strip().splitlines()[-1].startswith("Error: ")
    through.set(PASS)
    again("pretrain")
    assert_same(results(direct), undisturbed("pretrain"))


@pytest.mark.endure
def test_a_living_training_is_not_taken_over_during_its_outage(through, server, direct):
    process = begin("pretrain")
    seen(through, "manifest.json", 1, process)
    through.set(HANG)
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.address}
    for inside in ([], ["unshare", "--pid", "--fork", "--mount-proc"]):
        if inside and subprocess.run([*inside, "true"], capture_output=True).returncode:
            continue  # no new PID namespace is allowed here
        command = [*inside, sys.executable, "-m", "entrypoints.pretrain", *SMOKE]
        other = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert other.returncode == 1 and f"by process {process.pid} on" in other.stderr
    through.set(PASS)
    finish(process)
    assert [run.status for run in direct.find()] == ["FINISHED"]


def work(store):
    """Everything that a run may ask of the store; its id."""
    spec = RunSpec("evaluate", "evaluate pt1", "f1", {"model": "pt1"}, {"a": 1}, makes="pt1")
    with store.run(spec) as run:
        run.link_metrics(run.model_id, 2, {})
        for step in range(3):
            run.metrics(step, {"m": step / 3})
            run.flush()
        run.tags({"worldrep.note": "x"})
        for folder in (None, MODEL):
            with run.new_artifact("table.csv", folder) as path:
                path.write_text("a\n1\n")
        run.inputs("test", [Dataset("world", "abc", {"variant": "standard"})])
    return run.id


REQUESTS = [
    "experiments/create", "experiments/get-by-name", "runs/create", "runs/search", "runs/get",
    "runs/log-batch", "runs/update", "runs/log-inputs", "runs/outputs", "logged-models",
    "mlflow-artifacts",
]  # fmt: skip


@pytest.mark.parametrize("times", [1, LONG_ONLY(4)])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_lost_answer_repeats_nothing(request_name, times, through, direct, monkeypatch):
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "60")
    direct.client.delete_experiment(direct.experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{request_name} {times}")
    through.set(DROP, only=request_name, drops=times)
    run_id = work(Store.connect(uri=through.uri))
    assert through.drops < times
    found = Store.connect(f"{request_name} {times}", uri=through.uri)
    (run,) = found.find()
    assert run.id == run_id and run.status == "FINISHED" and run.tag("note") == "x"
    points = found.client.get_metric_history(run_id, "m")
    assert [(point.step, point.value) for point in points] == [(0, 0), (1, 1 / 3), (2, 2 / 3)]
    for path in ("table.csv", f"{MODEL}/table.csv"):
        with found.download(run_id, path) as file:
            assert file.read_text() == "a\n1\n"
    (model,) = found.client.search_logged_models([found.experiment_id])
    assert model.status == "READY" and [metric.step for metric in model.metrics] == [2]
    (output,) = found.client.get_run(run_id).outputs.model_outputs
    assert output.model_id == model.model_id


@pytest.mark.parametrize("name", ["runs/log-parameter", "runs/delete-tag", "runs/update"])
def test_a_lost_answer_while_a_run_is_taken_over_repeats_nothing(name, through, direct):
    store = Store.connect(uri=through.uri)
    spec = RunSpec("evaluate", "evaluate pt1", "f1", {})
    with pytest.raises(ZeroDivisionError), store.run(spec) as first:
        raise ZeroDivisionError
    through.set(DROP, only=name, drops=2)
    with store.run(spec) as run:
        assert run.id == first.id
    assert through.drops == 0 and store.get(run.id).tag("error") == ""
    assert [run.status for run in direct.find()] == ["FINISHED"]


def test_a_request_that_is_done_late_makes_no_second_run(through, direct):
    """A frozen server does later what a client has long given up, and sent again."""
    store, spec = Store.connect(uri=through.uri), RunSpec("evaluate", "evaluate pt1", "f1", {})
    create = store.client.once

    def doubled(name, /, *args, **kwargs):
        if name == "create_run":
            create(name, *args, **kwargs)
        return create(name, *args, **kwargs)

    store.client.once = doubled
    with store.run(spec):
        pass
    assert [run.status for run in direct.find()] == ["FINISHED"]


def test_a_base_is_waited_for(through, direct, capfd):
    run_id = work(direct)
    through_proxy = Store.connect(uri=through.uri)
    through.set(BAD_GATEWAY, only="table.csv")
    after = time.monotonic() + 8
    threading.Timer(8, through.set, [PASS]).start()
    with through_proxy.download(run_id, "table.csv") as path:
        assert path.read_text() == "a\n1\n"
    assert time.monotonic() >= after
    assert "waiting to download table.csv of run" in capfd.readouterr().err


WAITS = [HANG, REFUSE, "408", "425", "429", "500", "502", "503", "504", "520"]
ENDS = ["200", "400", "401", "403", "404", "501"]


@pytest.mark.parametrize("means", WAITS + ENDS)
def test_faults_are_told_apart(means, through, monkeypatch):
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "1")
    store = Store.connect(uri=through.uri)
    through.set(means)
    questions = [
        lambda: store.get("0" * 32),
        lambda: store.find(stage="x"),
        lambda: store.client.log_artifact("0" * 32, __file__),
    ]
    for ask in questions:
        with pytest.raises(AwayError if means in WAITS else StoreFault):
            ask()


def test_a_worker_that_starts_during_an_outage_waits(through, server):
    uri = through.uri
    through.set(REFUSE)
    threading.Timer(8, through.set, [PASS]).start()
    with pytest.raises(StateError, match="cannot use the MLflow store at .*: Connection refused"):
        Store.connect(uri=uri)
    assert Store.connect(uri=uri, patient=True).find() == []


def test_what_was_kept_is_out_of_date_after_another_process(through, direct, monkeypatch):
    """Two hosts, each with a cache of its own."""
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "1")
    store, spec = Store.connect(uri=through.uri), RunSpec("pretrain", "pretrain pt1", "f1", {})
    with pytest.raises(AwayError), store.run(spec) as run:
        run.metrics(1, {"m": 1.0})
        run.flush()
        through.set(REFUSE)
        run.metrics(2, {"m": 2.0})
        run.flush()
    through.set(PASS)
    monkeypatch.setenv("WORLDREP_CACHE", "another")
    monkeypatch.setattr("worldrep.tracking.liveness.Owner.exists", False)
    with pytest.raises(ZeroDivisionError), direct.run(spec) as other:
        other.metrics(2, {"m": 2.0})
        raise ZeroDivisionError
    monkeypatch.undo()
    with direct.run(spec) as last:
        last.metrics(2, {"m": 2.0})
        last.metrics(3, {"m": 3.0})
    assert run.id == other.id == last.id
    points = direct.client.get_metric_history(run.id, "m")
    assert [(point.step, point.value) for point in points] == [(1, 1), (2, 2), (3, 3)]


def test_a_resumed_run_does_not_wait_for_the_store(through, direct, monkeypatch, tmp_path):
    """Neither for the last step of a metric, nor in the thread that sends."""
    store, spec = Store.connect(uri=through.uri), RunSpec("pretrain", "pretrain pt1", "f1", {})
    with pytest.raises(ZeroDivisionError), direct.run(spec) as run:
        run.metrics(1, {"m": 1.0})
        raise ZeroDivisionError
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "1")
    (tmp_path / "step-2").mkdir()
    (tmp_path / "step-2" / "manifest.json").write_text("{}")
    with store.run(spec) as run:
        through.set(REFUSE)
        run.metrics(1, {"m": 1.0})
        run.metrics(2, {"m": 2.0, "new": 2.0})
        run.checkpoint(tmp_path / "step-2")
        time.sleep(4)  # longer than the patience
        run.metrics(3, {"m": 3.0})
        through.set(BAD_GATEWAY, only="checkpoints")
        time.sleep(4)
        run.metrics(4, {"m": 4.0})
        through.set(PASS)
        while direct.checkpoint_steps(run.id) != [2]:
            run.metrics(4, {})  # raises what the sending thread met
            time.sleep(0.1)
    assert direct.history(run.id, "m") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [len(curve) for curve in curves(direct, direct.get(run.id)).values()] == [4, 1]


def test_a_state_is_deleted_after_an_outage(through, direct, tmp_path):
    store, spec = Store.connect(uri=through.uri), RunSpec("pretrain", "pretrain pt1", "f1", {})
    names = {"manifest.json", "training_state.safetensors"}
    with store.run(spec) as run:
        through.set(BAD_GATEWAY, only="DELETE")
        for step in (1, 2, 3):
            (tmp_path / f"step-{step}").mkdir()
            for name in names:
                (tmp_path / f"step-{step}" / name).write_text("{}")
            run.checkpoint(tmp_path / f"step-{step}")
        seen(through, "DELETE", 1)
        through.set(PASS)
        run.flush()
        folders = [f"checkpoints/step-{step}" for step in (1, 2, 3)]
        found = [direct.client.list_artifacts(run.id, folder) for folder in folders]
        left = [{entry.path.rpartition("/")[2] for entry in entries} for entries in found]
        assert left == [{"manifest.json"}, names, names]


def test_what_is_deleted_after_the_end_is_not_waited_for(through, direct):
    store, spec = Store.connect(uri=through.uri), RunSpec("pretrain", "pretrain pt1", "f1", {})
    with pytest.raises(ZeroDivisionError), direct.run(spec):
        raise ZeroDivisionError
    begun = time.monotonic()
    with store.run(spec) as run:
        close, run.close = run.close, lambda status: (close(status), through.set(REFUSE))
    assert direct.get(run.id).status == "FINISHED" and time.monotonic() - begun < 600


@pytest.mark.endure
def test_a_locked_database_is_waited_for(store_uri, undisturbed):
    """MLflow itself gives up after 20 seconds."""
    process = begin("pretrain")
    while not list(Path("mlruns").glob("*/*/artifacts/checkpoints/*/manifest.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    with sqlite3.connect("mlflow.db", timeout=60) as connection:
        connection.execute("begin exclusive")
        time.sleep(25)
    connection.close()
    finish(process)
    assert_same(results(Store.connect(uri=store_uri)), undisturbed("pretrain"))


def test_a_new_database_is_made_once_by_whatever_name_it_is_called(tmp_path):
    """Relative, absolute and through a link, by processes with different caches."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    names = [
        "sqlite:///data/m.db",
        f"sqlite:///{tmp_path}/data/m.db",
        "sqlite:///link/../link/m.db",
    ]
    code = "from worldrep.tracking import Store; Store.connect(); print('done')"
    processes = []
    for number, name in enumerate(names):
        variables = {"MLFLOW_TRACKING_URI": name, "WORLDREP_CACHE": f"cache{number}"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | variables,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    answers = [process.communicate()[0].strip().splitlines()[-1] for process in processes]
    assert answers == ["done"] * 3
    assert Store.connect(uri=names[1]).find() == []


def test_another_process_is_told_apart_from_a_lost_answer(through, direct):
    """Of two that begin at once, one still gives way."""
    spec = RunSpec("evaluate", "evaluate pt1", "f1", {})
    with direct.run(spec), pytest.raises(TakenError):
        Store.connect(uri=through.uri).claim(spec)
