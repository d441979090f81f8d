"""Connecting to an MLflow store: its address, its experiment, and the settings of SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

# MLflow reads these: report an absent server in seconds, not minutes, and print nothing.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine

from worldrep.data.sets import cache_folder
from worldrep.digests import digest
from worldrep.errors import InputError, StateError, first_line, unknown

DEFAULT_EXPERIMENT = "worldrep"
UNNAMED_EXPERIMENT = "0"  # where `mlflow run` puts a run when the user names no experiment
BUSY_SECONDS = 60  # how long a SQLite writer waits for another; the default of 5 is too short


def open_client(uri: str, experiment: str | None, create: bool) -> tuple[MlflowClient, str]:
    """Return a client of the store at `uri` and the id of an experiment (see `Store.connect`)."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # reported below
    try:
        with FileLock(_lock_path(uri)):  # two processes must not both create the database
            client = MlflowClient(uri)
            experiment_id = _experiment_id(client, experiment, create)
            _use_write_ahead_log(uri)
    except (InputError, StateError):
        raise
    except Exception as fault:
        reason = fault_text(fault, uri)
        raise StateError(f"cannot use the MLflow store at {without_user(uri)}: {reason}") from None
    return client, experiment_id


def without_user(uri: str) -> str:
    """Return a tracking URI without user name, password and query (which may hold a password)."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    if not rest or rest.startswith("/"):  # no host, and so no user
        return uri.partition("?")[0]
    host, slash, path = rest.partition("/") if scheme.startswith("http") else (rest, "", "")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def fault_text(fault: BaseException, uri: str) -> str:
    """Return the first line of a store's error, without the user name and password of its URI."""
    return first_line(fault).replace(uri.rstrip("/"), without_user(uri).rstrip("/"))


def _experiment_id(client: MlflowClient, name: str | None, create: bool) -> str:
    launched = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if name is None and launched and launched != UNNAMED_EXPERIMENT:
        return launched
    named = name is not None
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None and create:
        return _create_experiment(client, name)
    if found is None and not named:
        raise StateError(f"the store has no experiment {name!r}: nothing was recorded yet")
    if found is None:
        names = [experiment.name for experiment in client.search_experiments()]
        raise unknown("experiment", name, names)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise StateError(f"experiment {name!r} was deleted; restore it or name another")
    return found.experiment_id


def _create_experiment(client: MlflowClient, name: str) -> str:
    try:
        return client.create_experiment(name)
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another process may have created it
        if found is None:
            raise
        return found.experiment_id


def _lock_path(uri: str) -> Path:
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest(uri)}.lock"


def _use_write_ahead_log(uri: str) -> None:
    """Let processes read a SQLite store while another one writes. Other stores are unchanged."""
    path = uri.removeprefix("sqlite:///")
    if path != uri and Path(path).is_file():
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
            connection.execute("pragma journal_mode=wal")


@event.listens_for(Engine, "connect")
def _set_busy_timeout(connection: object, record: object) -> None:
    """Applies to every connection that MLflow opens."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"pragma busy_timeout={BUSY_SECONDS * 1000}")
