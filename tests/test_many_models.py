"""A study of 16 simulated models with four workers on a team's server."""

import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import postgres

from benchmarks.stores import PERFORM, large_study, mlflow_server
from worldrep.executors import ExecutorOptions
from worldrep.studies.driver import run_study
from worldrep.tracking import Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("many_models")]

MODELS, SEEDS = 16, 4
FOUR_WORKERS = ExecutorOptions("processes", 4, cpus=1, perform=PERFORM)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`mlflow server` on PostgreSQL, new for this file."""
    # Not below pytest's folders: those are closed to the user that PostgreSQL runs as.
    database = Path(tempfile.mkdtemp(prefix="worldrep-postgres-"))
    folder = tmp_path_factory.mktemp("server")
    with postgres(database) as uri, mlflow_server(uri, folder) as address:
        yield address


@pytest.fixture
def server_uri(server, tmp_path, monkeypatch):
    """The server as the store of this test and its child processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    return server


@pytest.fixture(scope="module")
def graph():
    return large_study(MODELS, SEEDS)


@pytest.mark.endure
def test_four_workers_on_a_server_do_every_step_once(server_uri, graph):
    """Every step is done once and summarized over its seeds; the second time nothing is done."""
    store = Store.connect()
    result = run_study(store, graph, FOUR_WORKERS)
    assert result.failed == []
    runs = store.find()
    check_runs(graph, runs)
    check_summaries(graph, runs)

    again = run_study(store, graph, FOUR_WORKERS)
    assert again.run_ids == result.run_ids
    ended = {run.id: run.ended for run in runs if run.tag("stage") != "study"}
    later = store.find()
    assert {run.id: run.ended for run in later if run.tag("stage") != "study"} == ended
    assert {run.id for run in later} == {run.id for run in runs}


def check_runs(graph, runs):
    steps = [run for run in runs if run.fingerprint in graph.steps]
    assert Counter(run.fingerprint for run in steps) == dict.fromkeys(graph.steps, 1)
    (study,) = [run for run in runs if run.tag("stage") == "study"]
    assert {run.parent for run in steps} == {study.id}
    assert {run.status for run in runs} == {"FINISHED"}


def check_summaries(graph, runs):
    summaries = [run for run in runs if run.tag("stage") == "summary"]
    models = {str(settings.model_name) for settings in graph.by_model()}
    assert sorted(run.tag("model") for run in summaries) == sorted(models)
    assert len(models) == MODELS // SEEDS
    for run in summaries:
        counts = {v for name, v in run.metrics.items() if name.endswith("/n_over_seeds")}
        assert counts == {SEEDS}, run.name


CLAIMER = """
    import sys
    from worldrep.tracking import RunSpec, Store, TakenError
    store = Store.connect("claims")
    print("ready", flush=True)
    while fingerprint := sys.stdin.readline().strip():
        try:
            run = store.claim(RunSpec("pretrain", "pretrain pt1", fingerprint, {}))
            print("mine", flush=True)
        except TakenError:
            run = None
            print("taken", flush=True)
        sys.stdin.readline()  # the owner lives until all have answered
        if run:
            run.close("FINISHED")
        print("closed", flush=True)
"""


@pytest.fixture
def claimers(server_uri):
    """Four processes that claim the fingerprints they are told."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CLAIMER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    yield started
    for claimer in started:
        claimer.kill()
        claimer.communicate()


def tell(claimers, line):
    for claimer in claimers:
        claimer.stdin.write(f"{line}\n")
        claimer.stdin.flush()


def answers(claimers):
    return sorted(claimer.stdout.readline().strip() for claimer in claimers)


def test_of_claims_that_start_together_on_a_server_one_gets_the_work(claimers):
    assert answers(claimers) == ["ready"] * 4
    store = Store.connect("claims")
    for fingerprint in ("f1", "f2", "f3"):
        tell(claimers, fingerprint)
        assert answers(claimers) == ["mine", "taken", "taken", "taken"]
        (held,) = store.find(fingerprint=fingerprint)
        assert held.status == "RUNNING"
        assert held.claim.owner.pid in {claimer.pid for claimer in claimers}
        tell(claimers, "close")
        assert answers(claimers) == ["closed"] * 4
        (closed,) = store.find(fingerprint=fingerprint)
        assert closed.id == held.id and closed.status == "FINISHED"
    tell(claimers, "")
    assert [claimer.wait() for claimer in claimers] == [0] * 4


def test_a_tag_that_several_make_at_once_on_a_server_is_set_by_all(server_uri):
    store = Store.connect("tags")
    with ThreadPoolExecutor(4) as makers:
        for number in range(20):
            tag = store.experiment_id, f"tag{number}", "1"
            list(makers.map(lambda tag: store.client.set_experiment_tag(*tag), [tag] * 4))
    tags = store.client.get_experiment(store.experiment_id).tags
    assert {f"tag{number}" for number in range(20)} <= set(tags)
