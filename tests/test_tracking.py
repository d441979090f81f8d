"""The store: one run per piece of work, told alive from dead, and nothing logged twice."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import mlflow
import psycopg2.errors
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from worldrep.disk import cache_folder
from worldrep.errors import InputError, StateError, interrupt_on_sigterm
from worldrep.tracking import Dataset, Owner, RunSpec, Store, StoreFault, TakenError
from worldrep.tracking.liveness import CLOSED, HEARTBEAT, OWNER, place
from worldrep.tracking.page import LISTS, SUMMARIES
from worldrep.tracking.patience import waiting_helps


@pytest.fixture
def store(store_uri):
    return Store.connect()


def spec(fingerprint="f1", **tags):
    return RunSpec("evaluate", "pt1 s42 evaluate", fingerprint, {"model": "pt1", **tags}, {"a": 1})


def test_a_run_carries_its_tags_settings_and_status(store):
    with store.run(spec(seed="42")) as run:
        run.metrics(3, {"standard/angle/mean": 1.5})
    stored = store.client.get_run(run.id)
    assert stored.info.status == "FINISHED" and stored.info.run_name == "pt1 s42 evaluate"
    tags = stored.data.tags
    assert tags["worldrep.stage"] == "evaluate" and tags["worldrep.seed"] == "42"
    assert tags["worldrep.fingerprint"] == "f1"
    assert stored.data.params["cfg.a"] == "1"
    assert stored.data.metrics["standard/angle/mean"] == 1.5
    assert store.finished("f1").id == run.id


def test_a_failure_ends_as_failed_and_says_why(store):
    with pytest.raises(ZeroDivisionError), store.run(spec()) as run:
        raise ZeroDivisionError("poison")
    stored = store.get(run.id)
    assert stored.status == "FAILED" and "poison" in stored.tags["worldrep.error"]
    assert store.finished("f1") is None


def test_an_interrupt_ends_as_killed(store):
    with pytest.raises(KeyboardInterrupt), store.run(spec()) as run:
        raise KeyboardInterrupt
    assert store.get(run.id).status == "KILLED"


def test_an_interrupt_while_the_rest_is_sent_ends_as_killed_and_loses_nothing(store):
    usual = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), store.run(spec()) as run:
            for step in range(500):
                run.tags({"worldrep.last": str(step)})
            signal.setitimer(signal.ITIMER_REAL, 0.2, 60)  # again, if closing has no end
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert store.get(run.id).status == "KILLED" and store.get(run.id).tag("last") != "499"
    with store.run(spec()) as again:
        assert again.id == run.id and store.get(run.id).tag("last") == "499"


def test_a_cache_that_is_removed_ends_the_run_with_a_sentence(store):
    with (
        pytest.raises(StateError, match="was removed, with what the store does not"),
        store.run(spec()) as run,
    ):
        while True:  # until a request that is kept there is removed before it is sent
            run.tags({"worldrep.last": "1"})
            shutil.rmtree(cache_folder() / "outbox", ignore_errors=True)
    assert store.get(run.id).status == "FAILED"
    with store.run(spec()) as again:
        again.tags({"worldrep.last": "2"})
    assert again.id == run.id and store.get(run.id).tag("last") == "2"


def test_failed_work_is_carried_on_in_the_same_run(store):
    with pytest.raises(ZeroDivisionError), store.run(spec()) as first:
        raise ZeroDivisionError
    with store.run(spec()) as second:
        pass
    assert first.id == second.id and second.resumed
    assert [run.status for run in store.find(fingerprint="f1")] == ["FINISHED"]
    assert "worldrep.error" not in store.get(second.id).tags


def test_a_resumed_run_does_not_log_a_step_again(store):
    with pytest.raises(ZeroDivisionError), store.run(spec()) as run:
        run.metrics(1, {"train/loss": 1.0})
        run.metrics(2, {"train/loss": 0.9, "val/x": 5})
        raise ZeroDivisionError
    with store.run(spec()) as run:
        run.metrics(2, {"train/loss": 0.9})
        run.metrics(3, {"train/loss": 0.8, "val/x": 4})
    history = store.client.get_metric_history(run.id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.9), (3, 0.8)]
    assert len(store.client.get_metric_history(run.id, "val/x")) == 2


def test_a_resumed_run_keeps_the_settings_that_it_began_with(store, tmp_path):
    """Those that are not in the fingerprint may differ, such as the path of a CSV."""
    for path, rows in (("a.csv", 20), ("b.csv", 30)):
        own = dataclasses.replace(spec(), settings={"cities": path, "rows": rows, "rate": 0.5})
        with contextlib.suppress(ZeroDivisionError), store.run(own) as run:
            assert 1 / (path == "b.csv") > 0
    settings = json.loads(store.artifact(run.id, "settings.json", tmp_path).read_text())
    assert settings == {"cities": "a.csv", "rows": 20, "rate": 0.5}
    assert store.get(run.id).params["cfg.cities"] == "a.csv"


def test_settings_that_are_no_numbers_or_texts_are_stored_as_they_are(store, tmp_path):
    with store.run(dataclasses.replace(spec(), settings={"layers": (0, 3), "on": True})) as run:
        pass
    settings = json.loads(store.artifact(run.id, "settings.json", tmp_path).read_text())
    assert settings == {"layers": [0, 3], "on": True}


def test_metrics_are_replaced_also_after_a_clock_that_was_ahead(store, monkeypatch):
    summary = dataclasses.replace(spec(), stage="summary", repeatable=True)
    for value, ahead in ((0.5, 60), (0.9, 0)):
        clock = time.time() + ahead
        with store.run(summary) as run, monkeypatch.context() as patched:
            patched.setattr("worldrep.tracking.open_run.time.time", lambda now=clock: now)
            run.replace_metrics({"transfer": value})
    assert store.get(run.id).metrics["transfer"] == 0.9


def test_an_interrupt_while_a_finished_run_is_closed_leaves_it_finished(store, monkeypatch):
    def set_terminated(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(self, *arguments)

    usual = MlflowClient.set_terminated
    monkeypatch.setattr(MlflowClient, "set_terminated", set_terminated)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt), store.run(spec()) as run:
            run.metrics(1, {"x": 1.0})
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert store.get(run.id).status == "FINISHED" and store.finished("f1").id == run.id


def test_the_history_of_a_metric_has_the_last_value_of_each_step(store):
    with store.run(spec()) as run:
        run.metrics(2, {"m": 4.0})
        run.metrics(1, {"m": 3.0})
        run.flush()
        run.metrics(2, {"m": 5.0})
    assert store.history(run.id, "m") == [(1, 3.0), (2, 5.0)]
    assert store.history(run.id, "another") == []


def test_finished_work_is_reused_as_a_child_of_the_study_that_wants_it(store):
    study = store.claim(RunSpec("study", "study", "s1", {})).id
    assert store.reuse("f1") is None
    with store.run(spec()) as run:
        assert store.reuse("f1", study) is None
    assert store.reuse("f1", study) == run.id and store.get(run.id).parent == study


def test_infinite_numbers_become_nan(store):
    with store.run(spec()) as run:
        run.metrics(1, {"m": float("inf")})
    assert store.client.get_run(run.id).data.metrics["m"] != pytest.approx(1.8e308)
    assert str(store.client.get_run(run.id).data.metrics["m"]) == "nan"


def test_a_run_of_a_living_process_is_left_alone(store):
    with store.run(spec()) as run:
        with pytest.raises(StateError, match=f"process {os.getpid()}"):
            store.claim(spec())
        assert store.get(run.id).status == "RUNNING"


def test_a_run_whose_process_number_was_given_to_another_is_dead(store):
    with store.run(spec()) as run:
        owner = store.get(run.id).claim.owner
        store.client.set_tag(run.id, OWNER, f"{owner.pid} {owner.place} 1.00 1")
        assert not store.get(run.id).alive


HOLDER = """
    import sys, time
    from worldrep.tracking import RunSpec, Store
    store = Store.connect()
    with store.run(RunSpec("pretrain", "pretrain pt1", "f1", {})) as run:
        print(run.id, flush=True)
        time.sleep(60)
"""


def python(code, **kwargs):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.slow
def test_a_run_of_a_killed_process_is_taken_over(store):
    holder = python(HOLDER)
    run_id = holder.stdout.readline().strip()
    assert store.get(run_id).alive
    with pytest.raises(StateError, match=f"process {holder.pid}"):
        store.claim(spec())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert store.get(run_id).status == "RUNNING" and not store.get(run_id).alive
    with store.run(spec()) as run:
        assert run.id == run_id and store.get(run_id).claim.owner.pid == os.getpid()


CLAIMER = """
    import sys, time
    from worldrep.errors import StateError
    from worldrep.tracking import RunSpec, Store
    store = Store.connect()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        run = store.claim(RunSpec("evaluate", "evaluate pt1", "f1", {}))
        print("mine", flush=True)
        time.sleep(3)
        run.close("FINISHED")
    except StateError:
        print("taken", flush=True)
"""


def test_a_new_sqlite_store_has_a_write_ahead_log(store_uri):
    Store.connect()
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_new_store_is_told_and_reading_makes_none(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(StateError, match="there is no store at .*new.db"):
        Store.connect(create=False)
    assert not [*tmp_path.iterdir()]
    for told in (1, 0):
        Store.connect()
        said = (
            f"created a new store: {tmp_path / 'new.db'}; to use another, set MLFLOW_TRACKING_URI"
        )
        assert capfd.readouterr().err.count(said) == told


@pytest.mark.slow
def test_of_processes_that_start_together_on_a_new_store_one_gets_the_work(store_uri):
    claimers = [python(CLAIMER, stdin=subprocess.PIPE) for _ in range(4)]
    assert [claimer.stdout.readline() for claimer in claimers] == ["ready\n"] * 4
    for claimer in claimers:
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    answers = sorted(claimer.stdout.readline().strip() for claimer in claimers)
    assert answers == ["mine", "taken", "taken", "taken"]
    assert [claimer.wait() for claimer in claimers] == [0] * 4
    assert [run.status for run in Store.connect().find(fingerprint="f1")] == ["FINISHED"]


def launch(store, experiment_id):
    """A run as `mlflow run` makes it before it starts the command."""
    return store.client.create_run(
        experiment_id, tags={"mlflow.source.type": "PROJECT"}
    ).info.run_id


def test_the_run_of_mlflow_run_is_used_in_a_named_experiment(store, monkeypatch):
    launched = launch(store, store.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.experiment_id)
    again = Store.connect()
    with again.run(spec(), launched=True) as run:
        assert run.id == launched
    assert store.get(launched).name == "pt1 s42 evaluate"


def test_the_run_of_mlflow_run_points_to_the_result_elsewhere(store, monkeypatch):
    launched = launch(store, "0")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    again = Store.connect()
    with again.run(spec(), launched=True) as run:
        pass
    again.point_launch(run.id)
    assert run.id != launched and again.experiment_name == "worldrep"
    assert store.get(launched).tags["worldrep.result_run_id"] == run.id
    assert store.get(run.id).tags["mlflow.source.type"] == "PROJECT"


def test_an_experiment_is_made_once_and_named_by_the_user(store_uri):
    first, second = Store.connect("mine"), Store.connect("mine")
    assert first.experiment_id == second.experiment_id and first.experiment_name == "mine"


def test_a_deleted_experiment_is_named(store):
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(StateError, match="'worldrep' was deleted"):
        Store.connect()


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db", "ftp://somewhere"]
)
def test_a_store_that_cannot_be_reached_is_one_sentence(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StateError, match="cannot use the MLflow store at") as caught:
        Store.connect()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"the tracking URI {uri} names no file"):
        Store.connect()


def test_a_database_that_does_not_answer_is_not_asked_for_minutes(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://127.0.0.1:9/none")
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "0")
    waits = []
    monkeypatch.setattr(mlflow.store.db.utils.time, "sleep", waits.append)
    with pytest.raises(StateError, match="cannot use the MLflow store at postgresql"):
        Store.connect()
    assert sum(waits) < 5


def test_a_relative_address_of_another_folder_is_refused_and_no_database_is_made(
    store, tmp_path, monkeypatch
):
    made = store.client.create_run("0").info.run_id  # as by `mlflow run`
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    for _ in range(2):
        with pytest.raises(InputError, match=f"of {Path.cwd()} does not have the run {made} that"):
            Store.connect()
        assert not Path("mlflow.db").exists()
    ours, copy = sqlite3.connect(tmp_path / "mlflow.db"), sqlite3.connect("mlflow.db")
    with closing(ours), closing(copy):
        ours.backup(copy)  # it has the run
    Store.connect()
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another store")
    with pytest.raises(InputError, match="does not have the run of another store"):
        Store.connect()


def test_a_run_that_is_not_there_is_one_sentence(store):
    with pytest.raises(InputError, match="run_id 'abc' is not in the store"):
        store.get("abc")


def test_an_artifact_that_is_not_there_is_one_sentence(store):
    with store.run(spec()) as run:
        pass
    with pytest.raises(StateError, match="has no artifact model"), store.download(run.id, "model"):
        pass


def elsewhere(store, run_id, heartbeat="1", number=0):
    """Make a run look like one of a process on another host, with a heartbeat."""
    owned(store, run_id, "7 another-host/0 1.00", number)
    store.client.set_tag(run_id, HEARTBEAT, heartbeat)


def dead(store, run_id):
    """Make a run look like one of a process of this host that is gone."""
    owned(store, run_id, f"7 {place()} 1.00")


def owned(store, run_id, owner, number=0):
    if number:
        store.client.log_param(run_id, f"claim.{number}", f"{owner} 1")
    else:
        store.client.set_tag(run_id, OWNER, f"{owner} 1")


def abandoned(store):
    """A run that some process has left open."""
    tags = {"worldrep.fingerprint": "f1", "worldrep.stage": "evaluate"}
    return store.client.create_run(store.experiment_id, tags=tags).info.run_id


def taken_over(store, run_id):
    """Whether the next command takes a run over as soon as its process counts as dead."""
    while store.get(run_id).alive:
        time.sleep(0.1)
    with store.run(spec()) as run:
        return run.id == run_id


@pytest.fixture
def short_silence(monkeypatch):
    """A process that no other one can see counts as dead after a second without a heartbeat."""
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "1")
    monkeypatch.setattr("worldrep.tracking.liveness.LEAST_SILENCE", 1.0)


def test_another_host_counts_as_alive_while_its_heartbeat_changes(store, short_silence):
    run_id = abandoned(store)
    for heartbeat in range(4):
        elsewhere(store, run_id, str(heartbeat))
        with pytest.raises(TakenError, match="process 7 on another-host .*counts as dead"):
            store.claim(spec())
        time.sleep(0.5)
    assert taken_over(store, run_id)


HEARTBEATS = ["", "abc", "nan", "-inf", "1e400", "32503680000", "2020-01-01", "\u0663"]


@pytest.mark.parametrize("heartbeat", HEARTBEATS)
def test_what_a_heartbeat_says_does_not_matter(store, short_silence, heartbeat):
    """Such as the year 3000, or no time at all: clocks of two hosts are never compared."""
    run_id = abandoned(store)
    elsewhere(store, run_id, heartbeat)
    assert store.get(run_id).alive
    assert taken_over(store, run_id)


OWNERS = ["", "abc", "1 2", "x y z w", "nan host nan 1", f"{10**30} {place()} 1.0 1", "-1 h 1 1"]


@pytest.mark.parametrize("owner", OWNERS)
def test_a_claim_that_names_no_process_is_taken_over(store, short_silence, owner):
    run_id = abandoned(store)
    store.client.set_tag(run_id, OWNER, owner)
    for number in ("x=y", "1.5", "-1", "0x1", "\u0663", "3"):
        with contextlib.suppress(StoreFault):  # MLflow refuses some names
            store.client.log_param(run_id, f"claim.{number}", owner)
    assert taken_over(store, run_id)


def test_the_silence_is_remembered_between_commands(store, short_silence, monkeypatch):
    run_id = abandoned(store)
    elsewhere(store, run_id)
    assert store.get(run_id).alive
    monkeypatch.setattr("worldrep.tracking.liveness._seen", {})  # as another process begins
    time.sleep(1.1)
    assert not store.get(run_id).alive


@pytest.mark.slow
def test_a_process_of_another_pid_namespace_is_left_alone(store):
    """Two containers of one host name: the process number of one means nothing in the other."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    if subprocess.run([*inside, "pass"], capture_output=True).returncode:
        pytest.skip("no new PID namespace is allowed here")
    holder = python(HOLDER)
    run_id = holder.stdout.readline().strip()
    found = f"from worldrep.tracking import Store; print(Store.connect().get({run_id!r}).alive)"
    answer = subprocess.run([*inside, found], capture_output=True, text=True)
    assert answer.stdout == "True\n", answer.stderr
    holder.kill()
    holder.communicate()
    assert not store.get(run_id).alive


def test_a_worker_that_is_known_to_be_dead_need_not_be_waited_for(store):
    run_id = store.claim(spec()).id
    elsewhere(store, run_id)
    store.close_dead(store.get(run_id))
    assert store.get(run_id).status == "RUNNING"  # for all that is known it lives
    store.close_dead(store.get(run_id), [Owner(7, "another-host/0", 1.0)])
    assert store.get(run_id).status == "KILLED"
    assert store.claim(spec()).id == run_id


def test_a_run_can_be_given_up_for_a_reason(store):
    run = store.claim(dataclasses.replace(spec(), makes="pt1"))
    run.flush()
    dead(store, run.id)
    store.close_dead(store.get(run.id), error="its worker died, 3 times")
    found = store.get(run.id)
    assert found.status == "FAILED" and "died, 3 times" in found.tag("error")
    assert store.client.get_logged_model(found.model_id).status == "FAILED"


def test_a_claim_holds_before_the_status_is_set(store):
    """The moment between a claim on a dead run and its reopening."""
    with pytest.raises(KeyboardInterrupt), store.run(spec()):
        raise KeyboardInterrupt
    (dead,) = store.find(fingerprint="f1")
    assert dead.status == "KILLED" and dead.tags[CLOSED] == "0" and not dead.alive
    store.take_over(dead, "work")
    assert store.get(dead.id).status == "KILLED" and store.get(dead.id).alive
    with pytest.raises(TakenError, match="is being done"):
        store.claim(spec())


def test_of_two_that_take_over_the_same_dead_run_one_is_refused(store, monkeypatch):
    run_id = store.claim(spec()).id
    dead(store, run_id)
    found = store.get(run_id)
    elsewhere(store, run_id, number=1)
    with pytest.raises(TakenError, match="taken up by another process"):
        store.take_over(found, "work")  # what this process knows of the run is old
    assert store.get(run_id).claim.owner.host == "another-host"


def wait_for_heartbeat(store, run_id):
    """Of two processes that write a new tag at once, MLflow refuses one."""
    while HEARTBEAT not in store.client.get_run(run_id).data.tags:
        time.sleep(0.02)


def test_the_experiment_says_what_its_runs_are(store):
    client = store.client
    client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "mine")
    Store.connect().claim(spec()).close("FINISHED")
    tags = client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"] == "mine"  # a user's own stays
    another = Store.connect("another")
    another.claim(spec()).close("FINISHED")
    client.set_experiment_tag(another.experiment_id, "mlflow.note.content", "edited")
    another.claim(spec(fingerprint="f2")).close("FINISHED")  # by the same process
    assert client.get_experiment_by_name("another").tags["mlflow.note.content"] == "edited"
    Store.connect("third").claim(spec()).close("FINISHED")
    note = client.get_experiment_by_name("third").tags["mlflow.note.content"]
    assert all(f": {query}" in note for query in [SUMMARIES, *LISTS.values()])
    for query in [SUMMARIES, *LISTS.values()]:  # each is a filter
        client.search_runs([store.experiment_id], query)


def test_a_tag_that_another_process_makes_at_once_is_set_again(store, monkeypatch):
    run = store.claim(spec())
    set_tag, made = MlflowClient.set_tag, []

    def at_once(client, run_id, key, value):
        if not made:
            made.append(key)
            with closing(sqlite3.connect("mlflow.db")) as connection, connection:
                connection.execute("insert into tags values (?, 'other', ?)", [key, run_id])
            fault = sqlite3.IntegrityError("UNIQUE constraint failed: tags.key, tags.run_uuid")
            raise MlflowException("failed") from IntegrityError("insert", {}, fault)
        return set_tag(client, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "set_tag", at_once)
    store.client.set_tag(run.id, "mine", "1")
    assert made == ["mine"] and store.get(run.id).tags["mine"] == "1"
    run.close("FINISHED")


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        ("UNIQUE constraint failed: tags.key, tags.run_uuid", True),
        ("UNIQUE constraint failed: datasets.experiment_id, datasets.name", True),
        ('duplicate key value violates unique constraint "tag_pk"', True),
        ('duplicate key value violates unique constraint "dataset_pk"', True),
        ("UNIQUE constraint failed: webhooks.stage", False),
        ('duplicate key value violates unique constraint "experiments_name_key"', False),
        ("FOREIGN KEY constraint failed", False),
    ],
)
def test_of_rows_that_are_there_already_only_tags_and_data_sets_are_written_again(text, helps):
    kind = psycopg2.errors.UniqueViolation if "duplicate" in text else sqlite3.IntegrityError
    fault = IntegrityError("INSERT INTO tags", {}, kind(text))
    assert waiting_helps(fault) == waiting_helps(MlflowException(str(fault))) == helps


def test_runs_that_log_the_same_new_data_set_at_once_both_have_it(store):
    runs, data = [store.claim(spec(f)) for f in ("f1", "f2")], Dataset("cities", "1a2b", {})
    both, held = Barrier(2, timeout=30), []

    def hold(connection, cursor, statement, *_):
        if statement.startswith("INSERT INTO datasets") and len(held) < 2:
            held.append(statement)
            both.wait()  # until the other one has looked for the data set, too

    event.listen(Engine, "before_cursor_execute", hold)
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda run: run.inputs("training", [data]), runs))
    finally:
        event.remove(Engine, "before_cursor_execute", hold)
    assert len(held) == 2
    for run in runs:
        run.close("FINISHED")
        (logged,) = MlflowClient().get_run(run.id).inputs.dataset_inputs
        assert logged.dataset.digest == "1a2b"


def test_a_process_that_was_taken_for_dead_stops(store, monkeypatch):
    monkeypatch.setattr("worldrep.tracking.open_run.HEARTBEAT_SECONDS", 0.05)
    run = store.claim(spec())
    run.metrics(1, {"train/loss": 1.0})
    wait_for_heartbeat(store, run.id)
    elsewhere(store, run.id, number=1)
    deadline = time.time() + 30
    with pytest.raises(TakenError, match="taken over by another process"):
        while time.time() < deadline:
            run.metrics(2, {"train/loss": 0.9})
            time.sleep(0.02)
    with pytest.raises(TakenError, match="taken over"):
        run.close("FINISHED")
    assert store.get(run.id).status == "RUNNING"  # its new owner's business


def test_a_process_that_lost_its_run_does_not_mark_it(store, monkeypatch):
    monkeypatch.setattr("worldrep.tracking.open_run.HEARTBEAT_SECONDS", 0.05)
    with pytest.raises(TakenError, match="taken over"), store.run(spec()) as run:
        wait_for_heartbeat(store, run.id)
        elsewhere(store, run.id, number=1)
        while not run.lost:
            time.sleep(0.02)
        run.metrics(1, {"train/loss": 1.0})
    assert store.get(run.id).status == "RUNNING" and store.get(run.id).tag("error") == ""


def half_read(store, run_id):
    """A run as it is found while it ends: an old status beside a claim that is closed."""
    found = store.get(run_id)
    assert found.status == "FINISHED" and found.claim.closed
    return dataclasses.replace(found, status="RUNNING")


def test_a_finished_run_that_was_half_read_stays_finished(store, monkeypatch):
    with store.run(spec()) as run:
        pass
    store.close_dead(half_read(store, run.id))
    assert store.get(run.id).status == "FINISHED" and not store.get(run.id).alive
    stale = half_read(store, run.id)
    monkeypatch.setattr(store, "find", lambda **tags: [stale])
    with pytest.raises(TakenError, match="was finished meanwhile"):
        store.claim(spec())
    assert store.get(run.id).status == "FINISHED" and not store.get(run.id).alive


def test_a_run_stays_below_the_study_that_made_it(store):
    studies = [store.claim(RunSpec("study", f"study {i}", f"s{i}", {})).id for i in range(2)]
    with store.run(RunSpec("extract", "extract", "f9", {}, parent=studies[0])) as run:
        pass
    store.adopt(run.id, studies[1])
    assert store.get(run.id).parent == studies[0]
