"""Empty MLflow stores to measure on, of this process and those that it starts."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[1]


def make_database(path: Path) -> Path:
    """A SQLite file with MLflow's tables. They take MLflow seconds; copies of the file do not."""
    import worldrep.tracking  # noqa: F401  how it sets MLflow up holds from here on

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def copied(database: Path, folder: Path) -> str:
    """The URI of a copy of an empty database in a folder; one made before is left as it is."""
    path = folder / "mlflow.db"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        shutil.copy(database, path)
    return f"sqlite:///{path}"


@contextmanager
def working_in(folder: Path, uri: str, experiment: str = "worldrep") -> Iterator[None]:
    """Work in a folder with an experiment of the store at a URI, child processes included.

    They import this source tree.
    """
    environment = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "WORLDREP_CACHE": str(folder / "cache"),
    }
    with patch.dict(os.environ, environment), chdir(folder):
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        yield
