"""What several test files share."""

import gc
import os
import pickle
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

# Tests and their child processes use one thread each, so that sums have the same order.
os.environ["OMP_NUM_THREADS"] = "1"

from worldrep.data.sets import _maker
from worldrep.data.world import build_world

gc.set_threshold(10_000)  # as commands do
hypothesis.settings.register_profile("worldrep", deadline=None, derandomize=True)
hypothesis.settings.load_profile("worldrep")


def pytest_itemcollected(item):
    """Run the fast tests of a file in one process, with their fixtures."""
    if not item.get_closest_marker("slow"):
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(items):
    """Run slow tests first, so that none is left alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def tried(record_property):
    """Notes how many disturbances of a kind a test tries, for the table of `make endure`."""

    def note(kind, count=1):
        record_property("tried", (kind, count))

    return note


def pytest_terminal_summary(terminalreporter):
    """Print how many disturbances of each kind were tried, and how many tests survived them."""
    tried, survived = Counter(), Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties if report.when == "call" else ():
                if name == "tried":
                    tried[value[0]] += value[1]
                    survived[value[0]] += value[1] * report.passed
    if tried:
        rows = [f"| {kind} | {count:,} | {survived[kind]:,} |" for kind, count in tried.items()]
        table = ["| disturbance | tried | survived |", "|---|---:|---:|", *sorted(rows)]
        terminalreporter.section("endurance")
        terminalreporter.write_line("\n".join(table))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Row sets of the tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLDREP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def coarse_figures():
    """PNG files have 40 dpi instead of 120, which takes a sixth of the time of drawing."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("matplotlib"):  # a GPU machine may lack it
            patch.setattr("analysis.figures.page.DPI", 40)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_sources():
    """Child processes of the tests import this tree, installed or not."""
    root = Path(__file__).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))
        yield


@pytest.fixture
def fresh_accelerator():
    """Lets a test choose the device and precision of its trainings; accelerate keeps the first."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def on_cpu(monkeypatch, fresh_accelerator):
    """Hides a GPU, whose results are not equal to the bit."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def small_disk(tmp_path):
    """Makes folders that are file systems of a few MB of their own; only root can mount them."""
    mounted = []

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def paper_world():
    return build_world("paper")


@pytest.fixture(scope="session")
def mini_world():
    return build_world("mini")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A SQLite file with MLflow's tables, made once because that takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store_uri(empty_database, tmp_path, monkeypatch):
    """An empty MLflow store that this test and its child processes use."""
    return use_store(monkeypatch, empty_database, tmp_path)


@pytest.fixture
def store(store_uri):
    """The connected store of `store_uri`."""
    from worldrep.tracking import Store

    return Store.connect()


@pytest.fixture(scope="session")
def new_store(empty_database, tmp_path_factory):
    """Makes contexts that work in a new folder with an empty store, for shared fixtures."""

    @contextmanager
    def use(name):
        with pytest.MonkeyPatch.context() as patch:
            yield use_store(patch, empty_database, tmp_path_factory.mktemp(name)), patch

    return use


def use_store(patch, database, folder):
    """Work in a folder with a copy of a database as store; return its URI."""
    import mlflow

    mlflow.set_tracking_uri(None)  # an address that an earlier test named outlasts that test
    shutil.copy(database, folder / "mlflow.db")
    (folder / "MLproject").touch()  # messages advise `mlflow run` in the folder of a project
    uri = f"sqlite:///{folder}/mlflow.db"
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    _maker.cache_clear()  # a relative path of cities is another file now
    return uri


@pytest.fixture
def synthetic(store_uri):
    """Writes runs with known numbers into an empty store."""
    from synthetic import SyntheticStore

    return SyntheticStore(store_uri)


@pytest.fixture
def long_study(store_uri):
    """The graph of a study that can be disturbed, in an empty store."""
    import drivers

    from worldrep.studies import expand, load_definition

    Path("long.yaml").write_text(drivers.LONG)
    return expand(load_definition("long.yaml"))


@pytest.fixture(scope="session")
def straight(new_store, tmp_path_factory):
    """Weights of that study when nothing disturbs it, computed by one of pytest's processes."""
    import drivers
    from filelock import FileLock

    from worldrep.executors import ExecutorOptions
    from worldrep.studies import expand, load_definition
    from worldrep.studies.driver import run_study
    from worldrep.tracking import Store

    folder = tmp_path_factory.getbasetemp()
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "straight.pickle"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            with new_store("straight"):
                Path("long.yaml").write_text(drivers.LONG)
                graph = expand(load_definition("long.yaml"))
                run_study(Store.connect(), graph, ExecutorOptions())
                shared.write_bytes(pickle.dumps(drivers.weights(graph)))
        return pickle.loads(shared.read_bytes())
