"""The MLflow store: finding runs, and opening each piece of work exactly once.

A run is found by its fingerprint. A finished one is reused, one that a living process works on is
left alone, and any other is reopened and carried on; so the store holds one run per fingerprint.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Read by mlflow: an absent server is reported in seconds, not minutes, and copies are silent.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from worldrep import __version__
from worldrep.data.cache import cache_folder
from worldrep.digests import digest
from worldrep.errors import InputError, StateError, first_line, unknown
from worldrep.tracking.claims import claim_run, take_over
from worldrep.tracking.collector import sparing_collector
from worldrep.tracking.launch import Launch
from worldrep.tracking.liveness import CLOSED, Owner, TakenError
from worldrep.tracking.records import TAG, RunSpec, StoredRun
from worldrep.tracking.run import CHECKPOINTS, OpenRun
from worldrep.tracking.sqlite import use_write_ahead_log
from worldrep.training.manifest import step_of

DEFAULT_EXPERIMENT = "worldrep"
UNNAMED_EXPERIMENT = "0"  # where `mlflow run` puts a run when the user names no experiment
PAGE_RUNS = 500  # a server must answer within a request's timeout


class Store:
    """One experiment of one MLflow tracking store."""

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str) -> None:
        self.client, self.uri, self.experiment_id = client, uri, experiment_id
        self.experiment_name = client.get_experiment(experiment_id).name
        self.launch = Launch(client)

    @classmethod
    def connect(
        cls, experiment: str | None = None, *, uri: str | None = None, create: bool = True
    ) -> Store:
        """Open the store at MLflow's tracking URI, creating the database if needed.

        experiment: its name; else the one that `mlflow run` or the environment names, else
        "worldrep"; uri: becomes the tracking URI; create: make it if it is not there. Raises
        StateError when the store cannot be reached or read, InputError when the experiment is
        missing.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # we say it in words
        if uri:
            mlflow.set_tracking_uri(uri)
        uri = mlflow.get_tracking_uri()
        try:
            with FileLock(_lock_path(uri)):  # two processes must not both create the database
                client = MlflowClient(uri)
                experiment_id = _experiment_id(client, experiment, create)
                use_write_ahead_log(uri)
        except (InputError, StateError):
            raise
        except Exception as fault:
            reason = _words(fault, uri)
            raise StateError(
                f"cannot use the MLflow store at {without_user(uri)}: {reason}"
            ) from None
        return cls(client, uri, experiment_id)

    @property
    def address(self) -> str:
        """The tracking URI as others may see it: without user name and password."""
        return without_user(self.uri)

    def words_of(self, fault: BaseException) -> str:
        """The first line of a fault of the store, as others may see it."""
        return _words(fault, self.uri)

    def check_writable(self) -> None:
        """Raise StateError when nothing can be recorded."""
        try:
            self.client.set_experiment_tag(self.experiment_id, "worldrep.version", __version__)
        except MlflowException as fault:
            reason = self.words_of(fault)
            raise StateError(
                f"the MLflow store at {self.address} cannot be written: {reason}"
            ) from None

    def find(self, **tags: str) -> list[StoredRun]:
        """Runs of the experiment with all these tags (without prefix), the newest first."""
        terms = [f"tags.`worldrep.{key}` = '{value}'" for key, value in tags.items()]
        query, newest = " and ".join(terms), ["attributes.start_time DESC"]
        runs: list[StoredRun] = []
        token = None
        with sparing_collector():
            while True:
                page = self.client.search_runs(
                    [self.experiment_id],
                    query,
                    max_results=PAGE_RUNS,
                    order_by=newest,
                    page_token=token,
                )
                runs += [StoredRun.of(run) for run in page]
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
            return StoredRun.of(self.client.get_run(run_id))
        except MlflowException:
            raise InputError(f"run_id {run_id!r} is not in the store at {self.address}") from None

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
        except TakenError:
            _abandon(run, "FAILED")
            raise
        except MlflowException as fault:
            _abandon(run, "FAILED", fault)
            raise StateError(
                f"the MLflow store at {self.address} failed: {self.words_of(fault)}; "
                "when it answers again, the same command goes on from the last checkpoint"
            ) from None
        except BaseException as fault:
            _abandon(run, "FAILED", fault)
            raise

    def claim(self, spec: RunSpec, *, launched: bool = False) -> OpenRun:
        """Make this process the owner of the run for a piece of work.

        Raises TakenError when a living process has it, or when it was finished meanwhile (except
        for a spec that may be repeated).
        """
        run_id, number = claim_run(self, spec, launched)
        opened = OpenRun(self.client, run_id, number)
        try:
            if opened.resumed:  # a new run was made with both
                self.adopt(run_id, spec.parent)
                opened.tags(spec.all_tags)
            if spec.settings:
                opened.settings(spec.settings)
        except (KeyboardInterrupt, SystemExit):
            _abandon(opened, "KILLED")
            raise
        except BaseException as fault:
            _abandon(opened, "FAILED", fault)
            raise
        return opened

    def close_dead(
        self, run: StoredRun, ended: Collection[Owner] = (), error: str | None = None
    ) -> None:
        """End a run as KILLED whose process is dead, or is one of those that ended their work.

        error: end it as FAILED for this reason. Nothing happens to any other run.
        """
        owner = run.claim.owner if run.claim else None
        if run.status != "RUNNING" or (run.alive and owner not in ended):
            return
        try:
            number, status = take_over(self.client, run, run.name)
        except TakenError:
            return
        if status != "RUNNING":
            self.client.set_tag(run.id, CLOSED, str(number))
            return
        fault = StateError(error) if error else None
        _abandon(OpenRun(self.client, run.id, number), "FAILED" if error else "KILLED", fault)

    def point_launch(self, run_id: str) -> None:
        """Make the run that `mlflow run` made, if it is not the result's, a pointer to it."""
        self.launch.point_to(self.get(run_id))

    def tag(self, run_id: str, **tags: str) -> None:
        """Set tags (without prefix) of a run that no process works on."""
        for name, value in tags.items():
            self.client.set_tag(run_id, f"{TAG}{name}", value)

    def adopt(self, run_id: str, parent: str | None) -> None:
        """List a run below a study's run, unless it is below another one already."""
        if parent and self.get(run_id).parent is None:
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


def without_user(uri: str) -> str:
    """A tracking URI without user name and password, and without what follows a question mark,
    where databases take passwords too."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    if not rest or rest.startswith("/"):  # no host, and so no user
        return uri.partition("?")[0]
    host, slash, path = rest.partition("/") if scheme.startswith("http") else (rest, "", "")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _words(fault: BaseException, uri: str) -> str:
    """The first line of a fault, which may quote the URI, without user name and password."""
    return first_line(fault).replace(uri.rstrip("/"), without_user(uri).rstrip("/"))


def _abandon(run: OpenRun, status: str, fault: BaseException | None = None) -> None:
    """End a run that did not finish, as far as the store still answers and it is still ours."""
    if fault is not None and not run.lost:
        with suppress(MlflowException):
            run.tags({"worldrep.error": f"{type(fault).__name__}: {fault}"[:500]})
    with suppress(MlflowException, TakenError):
        run.close(status)


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
        return _create_experiment(client, name)
    if found.lifecycle_stage != ViewType.to_string(ViewType.ACTIVE_ONLY).removesuffix("_only"):
        raise StateError(f"experiment {name!r} was deleted; restore it or name another")
    return found.experiment_id


def _create_experiment(client: MlflowClient, name: str) -> str:
    try:
        return client.create_experiment(name)
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another process may have been quicker
        if found is None:
            raise
        return found.experiment_id


def _lock_path(uri: str) -> Path:
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest(uri)}.lock"
