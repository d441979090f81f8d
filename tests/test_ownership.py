"""Which process works on a run: the living are left alone, the dead taken over."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from drivers import run_spec

from worldrep.errors import StateError
from worldrep.tracking import Owner, Store, StoreFault, TakenError
from worldrep.tracking.liveness import CLOSED, HEARTBEAT, OWNER, place


def test_a_run_of_a_living_process_is_left_alone(store):
    with store.run(run_spec()) as run:
        with pytest.raises(StateError, match=f"process {os.getpid()}"):
            store.claim(run_spec())
        assert store.get(run.id).status == "RUNNING"


def test_a_run_whose_process_number_was_given_to_another_is_dead(store):
    with store.run(run_spec()) as run:
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
        store.claim(run_spec())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert store.get(run_id).status == "RUNNING" and not store.get(run_id).alive
    with store.run(run_spec()) as run:
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
    with store.run(run_spec()) as run:
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
            store.claim(run_spec())
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
    run_id = store.claim(run_spec()).id
    elsewhere(store, run_id)
    store.close_dead(store.get(run_id))
    assert store.get(run_id).status == "RUNNING"  # for all that is known it lives
    store.close_dead(store.get(run_id), [Owner(7, "another-host/0", 1.0)])
    assert store.get(run_id).status == "KILLED"
    assert store.claim(run_spec()).id == run_id


def test_a_run_can_be_given_up_for_a_reason(store):
    run = store.claim(dataclasses.replace(run_spec(), makes="pt1"))
    run.flush()
    dead(store, run.id)
    store.close_dead(store.get(run.id), error="its worker died, 3 times")
    found = store.get(run.id)
    assert found.status == "FAILED" and "died, 3 times" in found.tag("error")
    assert store.client.get_logged_model(found.model_id).status == "FAILED"


def test_a_claim_holds_before_the_status_is_set(store):
    """The moment between a claim on a dead run and its reopening."""
    with pytest.raises(KeyboardInterrupt), store.run(run_spec()):
        raise KeyboardInterrupt
    (dead,) = store.find(fingerprint="f1")
    assert dead.status == "KILLED" and dead.tags[CLOSED] == "0" and not dead.alive
    store.take_over(dead, "work")
    assert store.get(dead.id).status == "KILLED" and store.get(dead.id).alive
    with pytest.raises(TakenError, match="is being done"):
        store.claim(run_spec())


def test_of_two_that_take_over_the_same_dead_run_one_is_refused(store, monkeypatch):
    run_id = store.claim(run_spec()).id
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


def test_a_process_that_was_taken_for_dead_stops(store, monkeypatch):
    monkeypatch.setattr("worldrep.tracking.open_run.HEARTBEAT_SECONDS", 0.05)
    run = store.claim(run_spec())
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
    with pytest.raises(TakenError, match="taken over"), store.run(run_spec()) as run:
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
    with store.run(run_spec()) as run:
        pass
    store.close_dead(half_read(store, run.id))
    assert store.get(run.id).status == "FINISHED" and not store.get(run.id).alive
    stale = half_read(store, run.id)
    monkeypatch.setattr(store, "find", lambda **tags: [stale])
    with pytest.raises(TakenError, match="was finished meanwhile"):
        store.claim(run_spec())
    assert store.get(run.id).status == "FINISHED" and not store.get(run.id).alive
