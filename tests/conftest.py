"""What several test files share."""

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from worldrep.world import build_world

hypothesis.settings.register_profile("worldrep", deadline=None, derandomize=True)
hypothesis.settings.load_profile("worldrep")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Row sets of the tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLDREP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_sources():
    """Child processes of the tests import this tree, installed or not."""
    root = Path(__file__).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))
        yield


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
    root = Path(__file__).parents[1]
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}:{root}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    return uri
