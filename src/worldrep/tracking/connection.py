"""Connecting to an MLflow store: its address, its experiment, SQLite, and `mlflow run`."""

import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path

# MLflow reads these: it does not repeat requests, which `patience` does, and prints nothing.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from alembic.script import ScriptDirectory
from filelock import FileLock
from mlflow.entities import LifecycleStage, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_database
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError

from worldrep.digests import digest
from worldrep.disk import cache_folder, database_is_full, remove_abandoned
from worldrep.errors import InputError, StateError, first_line, unknown
from worldrep.tracking.patience import (
    CONTACT_SECONDS,
    OWNER,
    VARIABLE,
    AwayError,
    Client,
    patience,
)
from worldrep.tracking.runs import TAG, RunSpec, StoredRun

DEFAULT_EXPERIMENT = "worldrep"
BUSY_SECONDS = 60  # how long a SQLite writer waits for another; the default of 5 is too short
mlflow_database.MAX_RETRY_COUNT = 4  # 2 seconds; MLflow's 10 take 100 for an address that is wrong
ORIGIN_TAGS = ("mlflow.source.", "mlflow.project.", "mlflow.gitRepoURL", "mlflow.user")


def open_client(
    uri: str, experiment: str | None, create: bool, patient: bool
) -> tuple[Client, str]:
    """Return a client of the store at `uri` and the id of an experiment (see `Store.connect`)."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # reported below
    remove_abandoned()
    _check_address(uri)
    patience()  # checks the variable
    # A wrong address is to be told at once, unless the user says how long to wait.
    waits = patient or bool(os.environ.get(VARIABLE))
    client = Client(uri, without_user(uri), None if waits else CONTACT_SECONDS)
    try:
        with _first_use_lock(uri):  # one process creates the database
            experiment_id = _experiment_id(client, experiment, create)
            _check_place(client, experiment_id, uri)
            client.wait(lambda _: _use_write_ahead_log(uri), "to open the database")
    except AwayError as fault:
        raise StateError(
            f"cannot use the MLflow store at {client.address}: {fault.reason}"
        ) from None
    except (InputError, StateError):
        raise
    except Exception as fault:
        reason = _newer_schema(fault) or fault_text(fault, uri)
        raise StateError(f"cannot use the MLflow store at {client.address}: {reason}") from None
    client.limit = None
    return client, experiment_id


def _check_address(uri: str) -> None:
    """Raise InputError for a SQLite store in memory, and one that `mlflow run` does not mean."""
    path = uri.removeprefix("sqlite:///")
    if uri.startswith("sqlite:") and path in ("", ":memory:", "sqlite://", "sqlite:"):
        raise InputError(f"the tracking URI {uri} names no file: write sqlite:///mlflow.db")
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if path == uri or Path(path).is_absolute() or not run_id:
        return
    # `mlflow run DIR` writes to a file in its own folder, and starts this process in DIR.
    if not Path(path).is_file() or not _has_run(Path(path), run_id):
        raise InputError(
            f"{uri} of {Path.cwd()} does not have the run {run_id} that `mlflow run` made: it was "
            "started in another folder; start it here, or give MLFLOW_TRACKING_URI the whole path, "
            "as sqlite:////home/me/mlflow.db"
        )


def _has_run(path: Path, run_id: str) -> bool:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        try:
            return bool(
                connection.execute("select 1 from runs where run_uuid=?", [run_id]).fetchone()
            )
        except sqlite3.DatabaseError:  # reported by MLflow
            return True


def sqlite_file(uri: str) -> Path | None:
    """Return the real path of a SQLite store's file; None for another store."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:"
    path = (url.database or "").removeprefix("file:").partition("?")[0]
    return Path(path).resolve() if is_file else None


def _first_use_lock(uri: str) -> AbstractContextManager[object]:
    """Return the lock under which a database gets its tables, one for all spellings and users."""
    if path := sqlite_file(uri):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{path}.lock")
        if os.access(lock if lock.exists() else path.parent, os.W_OK):
            return FileLock(lock, mode=0o666)
        return nullcontext()  # it can only be read
    if uri.startswith("http"):
        return nullcontext()
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{digest(uri)}.lock")


def without_user(uri: str) -> str:
    """Return a tracking URI without user name, password and query (which may hold a password)."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    if not rest or rest.startswith("/"):  # no host, and so no user
        return uri.partition("?")[0]
    host, slash, path = rest.partition("/") if scheme.startswith("http") else (rest, "", "")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def fault_text(fault: BaseException, uri: str) -> str:
    """Return the first line of a store's error, without the user name and password of its URI."""
    if database_is_full(fault):
        return "no space is left for it, make room there"
    return first_line(fault).replace(uri.rstrip("/"), without_user(uri).rstrip("/"))


def _experiment_id(client: Client, name: str | None, create: bool) -> str:
    launched = os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"  # 0: `mlflow run` without a name
    if name is None and launched != "0":
        return launched
    named = name is not None
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None and create:
        try:
            return client.create_experiment(name)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process may have created it
            if found is None:
                raise
    if found is None and not named:
        raise StateError(f"the store has no experiment {name!r}: nothing was recorded yet")
    if found is None:
        names = [experiment.name for experiment in client.search_experiments()]
        raise unknown("experiment", name, names)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise StateError(f"experiment {name!r} was deleted; restore it or name another")
    return found.experiment_id


def _check_place(client: Client, experiment_id: str, uri: str) -> None:
    """Raise StateError if the folder of artifacts is gone, which MLflow would make again, empty.

    MLflow stores absolute paths, so that a store which is moved still points to its old place.
    """
    experiment = client.get_experiment(experiment_id)
    location = experiment.artifact_location
    if not is_local_uri(location, is_tracking_or_registry_uri=False):
        return
    folder = Path(local_file_uri_to_path(location))
    if folder.exists():
        return
    trained = f"attributes.status = 'FINISHED' and tags.`{TAG}stage` = 'pretrain'"
    if not client.search_runs([experiment_id], f"{trained} and tags.`{OWNER}` LIKE '%'"):
        return  # nothing was written there yet
    beside = Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlruns" / experiment_id
    new = beside if beside.is_dir() else "NEW_FOLDER"
    raise StateError(
        f"the artifacts of experiment {experiment.name!r} are looked for in {folder}, which does "
        f"not exist: the store at {without_user(uri)} seems to have been moved; make a link at the "
        f"old place (mkdir -p {folder.parent} && ln -s {new} {folder}), or correct the addresses "
        'as "A moved store" in docs/studies.md shows'
    )


def _newer_schema(fault: Exception) -> str:
    """Say so if the database has a schema that this MLflow does not know; else an empty text."""
    found = re.search(r"schema \(found version (\w+)", str(fault))
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if not found or found[1] in {script.revision for script in scripts.walk_revisions()}:
        return ""
    return f"its database is of a newer MLflow than {mlflow.__version__}; install that version"


def _use_write_ahead_log(uri: str) -> None:
    """Let processes read a SQLite store while another one writes. Other stores are unchanged."""
    path = sqlite_file(uri)
    if path and path.is_file():
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
            connection.execute("pragma journal_mode=wal")


@event.listens_for(Engine, "connect")
def _set_busy_timeout(connection: object, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"pragma busy_timeout={BUSY_SECONDS * 1000}")


class Launch:
    """The run that `mlflow run` creates before a command: the result's run, or a pointer to it."""

    def __init__(self, client: Client) -> None:
        self._client, self._used = client, ""
        run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # else child processes would write to it
        self._run_id = run_id if os.environ.get("RANK", "0") == "0" else None

    def become(self, spec: RunSpec, tags: Mapping[str, str], experiment_id: str) -> str | None:
        """Use the run for a piece of work; None if there is no such run in this experiment."""
        run_id = self._run_id
        if not run_id or self._client.get_run(run_id).info.experiment_id != experiment_id:
            return None
        self._run_id, self._used = None, run_id
        self._client.update_run(run_id, name=spec.name)
        # In one request: another process could claim a run that has a fingerprint but no owner.
        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        return run_id

    def rename(self, name: str) -> None:
        """Rename the run of a command that has no result of its own."""
        if self._run_id is not None:
            self._client.update_run(self._run_id, name=name)

    def take_back(self, run_id: str) -> bool:
        if run_id != self._used:
            return False
        self._run_id, self._used = run_id, ""
        return True

    def origin(self) -> dict[str, str]:
        """Return the tags that name the command's source, for the run of the result."""
        if self._run_id is None:
            return {}
        tags = self._client.get_run(self._run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith(ORIGIN_TAGS)}

    def point_to(self, result: StoredRun) -> None:
        """Point to a result in another run. `mlflow run` ends this run, so it cannot be deleted."""
        if self._run_id is None:
            return
        note = f"This command's result is run {result.id}, {result.name}."
        self._client.set_tag(self._run_id, "worldrep.result_run_id", result.id)
        self._client.set_tag(self._run_id, "mlflow.note.content", note)
        self._client.update_run(self._run_id, name=f"launch of {result.name}")
        self._run_id = None
