"""Connecting to an MLflow store: its address, its experiment, SQLite, and `mlflow run`."""

import logging
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError

from worldrep.digests import digest
from worldrep.disk import fault_text, remove_abandoned, remove_old, writable_cache
from worldrep.errors import InputError, StateError, unknown
from worldrep.progress import NOTE
from worldrep.text import remember, without_passwords, without_user
from worldrep.tracking.patience import (
    CONTACT_SECONDS,
    OWNER,
    VARIABLE,
    AwayError,
    Client,
    patience,
    say,
)
from worldrep.tracking.runs import TAG, RunSpec, StoredRun

DEFAULT_EXPERIMENT = "worldrep"
BUSY_SECONDS = 60  # how long a SQLite writer waits for another; the default of 5 is too short
ORIGIN_TAGS = ("mlflow.source.", "mlflow.project.", "mlflow.gitRepoURL", "mlflow.user")


def open_client(
    uri: str, experiment: str | None, create: bool, patient: bool
) -> tuple[Client, str]:
    """Return a client of the store at `uri` and the id of an experiment (see `Store.connect`)."""
    remember(uri)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # reported below
    remove_abandoned()
    remove_old("outbox")  # of runs that nobody takes up
    remove_old("heartbeats")
    _check_address(uri)
    patience()  # checks the variable
    file = sqlite_file(uri)
    if file and not file.exists() and not create:
        raise StateError(
            f"there is no store at {file}: `worldrep demo` runs a first study, and "
            "MLFLOW_TRACKING_URI names another store"
        )
    # A wrong address is to be told at once, unless the user says how long to wait.
    waits = patient or bool(os.environ.get(VARIABLE))
    client = Client(uri, without_user(uri), None if waits else CONTACT_SECONDS)
    try:
        with _creation_lock(uri):  # one process creates the database
            if file and not file.exists():
                say(f"created a new store: {file}; to use another, set MLFLOW_TRACKING_URI")
            experiment_id = _experiment_id(client, experiment, create and not is_read_only(uri))
            _check_place(client, experiment_id, uri)
            client.wait(lambda _: _use_write_ahead_log(uri), "to open the database")
    except AwayError as fault:
        raise StateError(
            f"cannot use the MLflow store at {client.address}: {fault.reason}"
        ) from None
    except (InputError, StateError):
        raise
    except Exception as fault:
        reason = _newer_schema(fault) or fault_text(fault)
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
        place = f"the store at {client.address} has no experiment {name!r}"
        raise StateError(f"{place}: nothing was recorded yet; `worldrep demo` runs a first study")
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


def sqlite_file(uri: str) -> Path | None:
    """Return the real path of a SQLite store; None for another store."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    path = (url.database or "").removeprefix("file:").partition("?")[0]
    is_file = url.get_backend_name() == "sqlite" and path not in ("", ":memory:")
    return Path(path).resolve() if is_file else None


def is_read_only(uri: str) -> bool:
    """Whether a store is a SQLite file that can be read and not written."""
    file = sqlite_file(uri)
    return file is not None and _is_read_only(file)


def _is_read_only(file: Path) -> bool:
    """Whether a SQLite file is there and cannot be written, or no other files beside it."""
    return file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


@event.listens_for(Engine, "do_connect")
def _connect_read_only(dialect: Any, record: object, names: list, options: dict) -> Any:
    """Open a SQLite file that cannot be written for reading alone; None for any other database."""
    if dialect.name != "sqlite" or not names or not _is_read_only(Path(names[0])):
        return None
    with open(names[0], "rb") as file:
        logs_ahead = file.read(19)[18:] == b"\x02"
    # SQLite would make the log that is not there. Without it nobody writes, and no lock is needed.
    needs_log = logs_ahead and not Path(f"{names[0]}-wal").exists()
    how = "immutable=1" if needs_log else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(names[0]))}?{how}", uri=True, **options)


def _creation_lock(uri: str) -> AbstractContextManager:
    """Return the lock under which a database gets its tables. A server needs none.

    That of a SQLite file lies beside it, whoever uses it and however it is spelled.
    """
    file = sqlite_file(uri)
    if uri.startswith("http") or is_read_only(uri):
        return nullcontext()
    place = file or writable_cache() / "locks" / digest(uri)
    place.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{place}.lock", mode=0o666)  # other users take it too


def _use_write_ahead_log(uri: str) -> None:
    """Let processes read a SQLite store while another one writes. Other stores are unchanged."""
    file = sqlite_file(uri)
    if file and file.is_file() and not is_read_only(uri):
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
            connection.execute("pragma journal_mode=wal")


@event.listens_for(Engine, "connect")
def _set_busy_timeout(connection: object, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"pragma busy_timeout={BUSY_SECONDS * 1000}")


class Launch:
    """The run that `mlflow run` creates before a command: the result's run, or a pointer to it.

    Raises InputError when a param of that run holds a password.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._used = client, ""
        run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # else child processes would write to it
        self._run_id = run_id if os.environ.get("RANK", "0") == "0" else None
        if self._run_id is not None:
            self._check_params(self._run_id)

    def _check_params(self, run_id: str) -> None:
        """Refuse a password in an option, which `mlflow run` has recorded already."""
        for name, value in self._client.get_run(run_id).data.params.items():
            if without_passwords(value) != value:
                raise InputError(
                    f"{name}= holds a password, which `mlflow run` has recorded as a param of run "
                    f"{run_id}: change the password, delete the run, and give such an address by "
                    "an environment variable (MLFLOW_TRACKING_URI, WORLDREP_STORAGE)"
                )

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
        own = {key: value for key, value in tags.items() if key.startswith(ORIGIN_TAGS)}
        return {key: without_passwords(value) for key, value in own.items()}

    def point_to(self, result: StoredRun) -> None:
        """Point to a result in another run. `mlflow run` ends this run, so it cannot be deleted."""
        if self._run_id is None:
            return
        note = f"This command's result is run {result.id}, {result.name}."
        self._client.set_tag(self._run_id, "worldrep.result_run_id", result.id)
        self._client.set_tag(self._run_id, NOTE, note)
        self._client.update_run(self._run_id, name=f"launch of {result.name}")
        self._run_id = None
