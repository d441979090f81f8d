"""The MLflow store: finding runs, and opening each piece of work exactly once.

A run is found by its fingerprint. A finished one is reused, one that a living process works on is
left alone, and any other is reopened and carried on; so the store holds one run per fingerprint.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read by mlflow: an absent server is reported in seconds, not minutes, and copies are silent.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from worldrep.cache import cache_folder
from worldrep.digests import digest
from worldrep.errors import InputError, StateError, first_line, unknown
from worldrep.manifest import step_of
from worldrep.tracking.liveness import HOST, PID, is_alive, owner_tags
from worldrep.tracking.run import CHECKPOINTS, OpenRun

DEFAULT_EXPERIMENT = "worldrep"
UNNAMED_EXPERIMENT = "0"  # where `mlflow run` puts a run when the user names no experiment
LAUNCH_TAGS = ("mlflow.source.", "mlflow.project.", "mlflow.gitRepoURL", "mlflow.user")


@dataclass(frozen=True)
class StoredRun:
    """What the store knows of a run."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]

    @property
    def alive(self) -> bool:
        return self.status == "RUNNING" and is_alive(self.tags)


@dataclass(frozen=True)
class RunSpec:
    """A piece of work: what its run is called, and what identifies its result.

    tags: without the prefix `worldrep.`; parent: run id of a study; repeatable: a finished run may
    be opened again, as a study's is.
    """

    stage: str
    name: str
    fingerprint: str
    tags: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    repeatable: bool = False


class Store:
    """One experiment of one MLflow tracking store."""

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.experiment_name = client.get_experiment(experiment_id).name
        launch_id = os.environ.pop("MLFLOW_RUN_ID", None)
        self._launch_id = launch_id if os.environ.get("RANK", "0") == "0" else None
        self._lock = FileLock(_lock_path(uri))

    @classmethod
    def connect(cls, experiment: str | None = None, *, create: bool = True) -> Store:
        """Open the store at MLflow's tracking URI, creating the database if needed.

        experiment: its name; else the one that `mlflow run` or the environment names, else
        "worldrep"; create: make it if it is not there. Raises StateError when the store cannot be
        reached or read, InputError when the experiment is missing.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri = mlflow.get_tracking_uri()
        try:
            with FileLock(_lock_path(uri)):  # two processes must not both create the database
                client = MlflowClient(uri)
                experiment_id = _experiment_id(client, experiment, create)
                _use_write_ahead_log(uri)
        except (InputError, StateError):
            raise
        except Exception as fault:
            reason = first_line(fault)
            raise StateError(f"cannot use the MLflow store at {uri}: {reason}") from None
        return cls(client, uri, experiment_id)

    def find(self, **tags: str) -> list[StoredRun]:
        """Runs of the experiment with all these tags (without prefix), the newest first."""
        terms = [f"tags.`worldrep.{key}` = '{value}'" for key, value in tags.items()]
        query, newest = " and ".join(terms), ["attributes.start_time DESC"]
        runs: list[StoredRun] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], query, order_by=newest, page_token=token
            )
            runs += [_stored(run) for run in page]
            token = page.token
            if not token:
                return runs

    def finished(self, fingerprint: str) -> StoredRun | None:
        """The finished run with this fingerprint, if there is one."""
        runs = self.find(fingerprint=fingerprint)
        return next((run for run in runs if run.status == "FINISHED"), None)

    def get(self, run_id: str) -> StoredRun:
        """A run by its id. Raises InputError when there is none."""
        try:
            return _stored(self.client.get_run(run_id))
        except MlflowException:
            raise InputError(f"run_id {run_id!r} is not in the store at {self.uri}") from None

    @contextmanager
    def run(self, spec: RunSpec, *, launched: bool = False) -> Iterator[OpenRun]:
        """Open the run of a piece of work, new or carried on, and close it as it ended.

        launched: this is the work that `mlflow run` was asked for; the run that it made is used.
        Raises StateError when a living process already works on it, or when the store fails.
        """
        run = self.claim(spec, launched=launched)
        try:
            yield run
            run.close("FINISHED")
        except (KeyboardInterrupt, SystemExit):
            _abandon(run, "KILLED")
            raise
        except MlflowException as fault:
            _abandon(run, "FAILED", fault)
            raise StateError(
                f"the MLflow store at {self.uri} failed: {first_line(fault)}; "
                "when it answers again, the same command goes on from the last checkpoint"
            ) from None
        except BaseException as fault:
            _abandon(run, "FAILED", fault)
            raise

    def claim(self, spec: RunSpec, *, launched: bool = False) -> OpenRun:
        """Make this process the owner of the run for a piece of work.

        Raises StateError when a living process has it, or when it was finished meanwhile (except
        for a spec that may be repeated).
        """
        with self._lock:
            earlier = self.find(fingerprint=spec.fingerprint)
            for run in earlier:
                if run.alive:
                    raise StateError(
                        f"{spec.name} is being done by process {run.tags[PID]} on "
                        f"{run.tags[HOST]} (run {run.id}); wait for it or stop it"
                    )
                if run.status == "FINISHED" and not spec.repeatable:
                    raise StateError(f"{spec.name} was finished meanwhile, in run {run.id}")
            for run in earlier[1:]:
                if run.status == "RUNNING":
                    self.client.set_terminated(run.id, "KILLED")
            run_id = self._reopen(earlier[0].id) if earlier else self._create(spec, launched)
        opened = OpenRun(self.client, run_id, resumed=bool(earlier))
        try:
            opened.tags(_all_tags(spec))
            if spec.settings:
                opened.settings(spec.settings)
        except BaseException as fault:
            _abandon(opened, "FAILED", fault)
            raise
        return opened

    def _reopen(self, run_id: str) -> str:
        self.client.update_run(run_id, status="RUNNING")
        if "worldrep.error" in self.get(run_id).tags:
            self.client.delete_tag(run_id, "worldrep.error")
        for key, value in owner_tags().items():
            self.client.set_tag(run_id, key, value)
        return run_id

    def _create(self, spec: RunSpec, launched: bool) -> str:
        tags = _all_tags(spec) | owner_tags()
        launch = self.client.get_run(self._launch_id) if launched and self._launch_id else None
        if launch and launch.info.experiment_id == self.experiment_id:
            self._launch_id = None
            self.client.update_run(launch.info.run_id, name=spec.name)
            for key, value in tags.items():
                self.client.set_tag(launch.info.run_id, key, value)
            return launch.info.run_id
        if launch:
            origin = launch.data.tags.items()
            tags = {key: value for key, value in origin if key.startswith(LAUNCH_TAGS)} | tags
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=spec.name)
        return run.info.run_id

    def point_launch(self, run_id: str) -> None:
        """Make the run that `mlflow run` made a pointer to `run_id`, where the result lies.

        It is needed when the result was there before, or lies in another experiment. (It cannot be
        deleted: `mlflow run` ends it when the command has ended.)
        """
        if self._launch_id is None:
            return
        result = self.get(run_id)
        note = f"This command's result is run {run_id}, {result.name}."
        for key, value in (("worldrep.result_run_id", run_id), ("mlflow.note.content", note)):
            self.client.set_tag(self._launch_id, key, value)
        self.client.update_run(self._launch_id, name=f"launch of {result.name}")
        self._launch_id = None

    def adopt(self, run_id: str, parent: str | None) -> None:
        """List a run below a study's run."""
        if parent:
            self.client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)

    @contextmanager
    def download(self, run_id: str, path: str) -> Iterator[Path]:
        """A copy of a run's artifact, file or folder, for as long as the block lasts.

        Raises StateError when it is not there.
        """
        with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
            try:
                found = self.client.download_artifacts(run_id, path, temporary)
            except (MlflowException, OSError):
                raise StateError(f"run {run_id} has no artifact {path}") from None
            yield Path(found)

    def checkpoint_steps(self, run_id: str) -> list[int]:
        """Steps of the checkpoint folders of a training, ascending, complete or not."""
        entries = self.client.list_artifacts(run_id, CHECKPOINTS)
        steps = (step_of(entry.path.rsplit("/", 1)[-1]) for entry in entries)
        return sorted(step for step in steps if step is not None)


def _abandon(run: OpenRun, status: str, fault: BaseException | None = None) -> None:
    """End a run that did not finish, as far as the store still answers."""
    try:
        if fault is not None:
            run.tags({"worldrep.error": f"{type(fault).__name__}: {fault}"[:500]})
        run.close(status)
    except MlflowException:
        return


def _stored(run: Run) -> StoredRun:
    return StoredRun(run.info.run_id, run.info.run_name, run.info.status, run.data.tags)


def _all_tags(spec: RunSpec) -> dict[str, str]:
    named = {"stage": spec.stage, "fingerprint": spec.fingerprint, **spec.tags}
    tags = {f"worldrep.{key}": str(value) for key, value in named.items()}
    tags[MLFLOW_RUN_NAME] = spec.name
    return tags | ({MLFLOW_PARENT_RUN_ID: spec.parent} if spec.parent else {})


def _experiment_id(client: MlflowClient, name: str | None, create: bool) -> str:
    launched = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if name is None and launched and launched != UNNAMED_EXPERIMENT:
        return launched
    named = name is not None
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None and not create and not named:
        raise StateError(f"the store has no experiment {name!r}: nothing was recorded yet")
    if found is None and not create:
        names = [experiment.name for experiment in client.search_experiments()]
        raise unknown("experiment", name, names)
    if found is None:
        return client.create_experiment(name)
    if found.lifecycle_stage != ViewType.to_string(ViewType.ACTIVE_ONLY).removesuffix("_only"):
        raise StateError(f"experiment {name!r} was deleted; restore it or name another")
    return found.experiment_id


def _use_write_ahead_log(uri: str) -> None:
    """Let readers and writers of a SQLite store work side by side."""
    path = uri.removeprefix("sqlite:///")
    if path != uri and Path(path).is_file():
        with sqlite3.connect(path) as connection:
            connection.execute("pragma journal_mode=wal")


def _lock_path(uri: str) -> Path:
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest(uri)}.lock"
