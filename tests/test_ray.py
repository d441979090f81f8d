"""A real Ray cluster of two nodes on this machine; one node is killed in the middle of a step."""

import os
import secrets
import signal
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from drivers import assert_equal, driver, weights

from worldrep.errors import StateError
from worldrep.executors import ExecutorOptions, open_executor, ray_tasks
from worldrep.tracking import Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster():
    """A head that runs nothing, and two nodes with one core each."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # By default Ray gives its workers a low priority: beside other tests they hardly run.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    # As `ray start` does where a token exists.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(cluster):
    return [cluster.add_node(num_cpus=1) for _ in range(2)]


def on_ray(cluster, *arguments):
    return driver("--executor", "ray", "--address", cluster.address, *arguments)


def node_of(pid, nodes):
    """The node under whose raylet a worker runs."""
    above = {parent.pid for parent in psutil.Process(pid).parents()}
    for node in nodes:
        if above & {info.process.pid for info in node.all_processes["raylet"]}:
            return node
    raise AssertionError(f"process {pid} runs on no node")


def test_sigterm_ends_the_workers_and_closes_their_runs(cluster, nodes, long_study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "kept-from-logs")
    process = on_ray(cluster, "--workers", "1")
    store = Store.connect()
    while not any(found.alive for found in store.find(stage="pretrain")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert sorted(found.status for found in store.find()) == ["KILLED", "KILLED"]
    logs = [*Path(cluster.head_node.get_logs_dir_path()).rglob("*.*")]
    assert logs and not [path for path in logs if b"kept-from-logs" in path.read_bytes()]


def test_a_cluster_that_asks_for_a_token(cluster, nodes, long_study, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    output, _ = (process := on_ray(cluster)).communicate()
    assert process.returncode == 1 and output.count("Error: ") == 1, output
    assert "export RAY_AUTH_MODE=token" in output


def test_a_port_of_something_else(long_study, monkeypatch):
    monkeypatch.setattr(ray_tasks, "CONNECT_SECONDS", 5)
    options = ExecutorOptions("ray", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = replace(options, address=f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StateError, match="nothing there speaks as Ray does, for 5 s"):
            open_executor(options, Store.connect(), print)


def test_a_worker_that_fits_nowhere_is_one_sentence(cluster, nodes, long_study):
    process = on_ray(cluster, "--cpus", "64")
    output, _ = process.communicate()
    assert process.returncode == 2 and "no node of the cluster has room" in output
    assert output.count("\n") == 1 and Store.connect().find() == []


# Last: the nodes are shared, and this test removes one.
@pytest.mark.endure
def test_a_node_that_dies_costs_only_the_work_since_its_checkpoint(
    cluster, nodes, long_study, straight
):
    process = on_ray(cluster, "--workers", "2")
    store = Store.connect()

    def base_run():
        runs = store.find(stage="pretrain")
        return runs[0] if runs and len(store.checkpoint_steps(runs[0].id)) >= 2 else None

    while base_run() is None:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    run = base_run()
    assert run.status == "RUNNING"
    cluster.remove_node(node_of(run.claim.owner.pid, nodes), allow_graceful=False)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "its worker or the worker's node died; it is tried again" in output
    assert "resumed after step" in output
    runs = store.find()
    assert {found.status for found in runs} == {"FINISHED"}
    counts = Counter(found.fingerprint for found in runs if found.fingerprint in long_study.steps)
    assert counts == dict.fromkeys(long_study.steps, 1)
    assert_equal(weights(long_study), straight)
