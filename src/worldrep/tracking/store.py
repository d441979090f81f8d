"""The MLflow store: finding runs, and doing each piece of work in exactly one run.

A finished run with the fingerprint is reused, a living process's is left alone, others are
reopened. A process that creates a run then searches for others with its fingerprint, and deletes
its own if there is one: of two that create a run at once, at least one sees the other's. A process
that takes over the run of a dead one makes the next claim, granted to one only (see `liveness`).
"""

import gc
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from worldrep import __version__
from worldrep.disk import fault_text, temporary_folder
from worldrep.errors import (
    InputError,
    StateError,
    first_line,
    interrupt_preserved,
    interrupts_delayed,
)
from worldrep.stored import DamagedError
from worldrep.text import duration_in_words, without_user
from worldrep.tracking.artifacts import Artifacts
from worldrep.tracking.connection import Launch, is_read_only, open_client
from worldrep.tracking.liveness import CLAIM, CLOSED, Owner, TakenError, claim_text, silence
from worldrep.tracking.logged_models import MODELS, run_of_model
from worldrep.tracking.open_run import OpenRun
from worldrep.tracking.page import KIND, describe
from worldrep.tracking.patience import OWNER, AwayError, Client
from worldrep.tracking.runs import ERROR, TAG, RunSpec, StoredRun

PAGE_RUNS = 500  # runs per search request, few enough for a server to answer in time
ATTEMPTS = 20  # to create a run while other processes create the same one
DENIED = "PERMISSION_DENIED"  # error code
LONGEST_WAIT = 1.0  # seconds between two attempts


class Store:
    """One experiment of an MLflow tracking store."""

    def __init__(self, uri: str, client: Client, experiment_id: str) -> None:
        self.uri, self.client, self.experiment_id = uri, client, experiment_id
        self._experiment = client.get_experiment(experiment_id)
        self.experiment_name = self._experiment.name
        self.launch = Launch(client)
        self.connected = time.time()

    @classmethod
    def connect(
        cls,
        experiment: str | None = None,
        uri: str | None = None,
        *,
        create: bool = True,
        patient: bool = False,
    ) -> Self:
        """Open the store, and create its database and the experiment if needed.

        experiment: its name, by default the one that `mlflow run` or the environment names, else
        "worldrep"; uri: tracking URI, which becomes MLflow's own, by default MLflow's; patient:
        an absent store is waited for from the first contact on, not only after it. Raises
        StateError if the store cannot be read, or `create` is false and there is none; InputError
        if `create` is false and the named experiment does not exist.
        """
        if uri is not None:
            mlflow.set_tracking_uri(uri)
        uri = mlflow.get_tracking_uri()
        return cls(uri, *open_client(uri, experiment, create, patient))

    @property
    def address(self) -> str:
        return without_user(self.uri)

    def _refuse_read_only(self) -> None:
        if is_read_only(self.uri):
            text = f"the MLflow store at {self.address} is read-only: nothing can be recorded in it"
            raise StateError(text)

    def check_writable(self) -> None:
        """Raise StateError when nothing can be recorded."""
        self._refuse_read_only()
        try:
            self.client.set_experiment_tag(self.experiment_id, "worldrep.version", __version__)
        except MlflowException as fault:
            text = f"the MLflow store at {self.address} cannot be written: {fault_text(fault)}"
            raise StateError(text) from None

    def find(self, **tags: str) -> list[StoredRun]:
        """Return the runs with all these tags (without prefix), the newest first."""
        search = self._search(PAGE_RUNS, tags)
        with gc_disabled():
            page = search()
            runs = list(map(StoredRun.of, page))
            while page.token:
                page = search(page_token=page.token)
                runs += map(StoredRun.of, page)
        return runs

    def recent(self, most: int, **tags: str) -> list[StoredRun]:
        """Return the newest finished runs with all these tags, without prefix."""
        found = self._search(most, tags, "attributes.status = 'FINISHED'")()
        return list(map(StoredRun.of, found))

    def _search(self, most: int, tags: Mapping[str, str], *further: str) -> Callable[..., Any]:
        """Return a function that reads a page of `most` runs with all these tags."""
        named = (f"tags.`{TAG}{key}` = '{value}'" for key, value in tags.items())
        order, query = ["attributes.start_time DESC"], " and ".join([*further, *named])
        search = partial(self.client.search_runs, [self.experiment_id], query)
        return partial(search, max_results=most, order_by=order)

    @property
    def artifact_folder(self) -> Path | None:
        """The folder of the experiment's artifacts; None if they are not on this machine."""
        location = self.client.get_experiment(self.experiment_id).artifact_location
        path = location.removeprefix("file://")
        return None if "://" in path or path.startswith("mlflow-artifacts:") else Path(path)

    def finished(self, fingerprint: str) -> StoredRun | None:
        """Return the finished run with this fingerprint, if there is one."""
        runs = self.find(fingerprint=fingerprint)
        return next((run for run in runs if run.status == "FINISHED"), None)

    def reuse(self, fingerprint: str, parent: str | None = None) -> str | None:
        """Return the id of the finished run with this fingerprint, made a child of `parent`."""
        done = self.finished(fingerprint)
        if done is None:
            return None
        self.adopt(done.id, parent)
        return done.id

    def get(self, run_id: str) -> StoredRun:
        """Return a run by its id, DELETED ones too, or the one that made a model, by its URI.

        Raises InputError when there is none.
        """
        if run_id.startswith(MODELS):
            run_id = run_of_model(self.client, run_id)
        try:
            return StoredRun.of(self.client.get_run(run_id))
        except MlflowException as fault:
            if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise InputError(f"run_id {run_id!r} is not in the store at {self.address}") from None

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric by step, with the value logged last for each step."""
        points = self.client.get_metric_history(run_id, metric)
        points = sorted(points, key=lambda point: (point.step, point.timestamp))
        return sorted({point.step: point.value for point in points}.items())

    def artifact(self, run_id: str, path: str, folder: Path) -> Path:
        """Download a file or folder into `folder` and return its path.

        Raises StateError if the artifact is absent or cannot be read, FullError if it does not fit.
        """
        return Artifacts(self.client, run_id).get(path, folder)

    @contextmanager
    def download(self, run_id: str, path: str) -> Iterator[Path]:
        """Download an artifact as `artifact` does, into a folder that is deleted afterwards.

        A DamagedError of the block becomes a StateError that names the run.
        """
        with temporary_folder() as folder:
            found = self.artifact(run_id, path, folder)
            with damage_named(run_id, path):
                yield found

    def checkpoint_steps(self, run_id: str) -> list[int]:
        """Return the steps of a training's checkpoints, ascending, complete or not."""
        steps = Artifacts(self.client, run_id).checkpoint_steps
        return self.client.wait(lambda again: steps(), "to list checkpoints")

    def adopt(self, run_id: str, parent: str | None) -> None:
        """Make a run the child of `parent`, unless it has a parent already."""
        if parent and self.get(run_id).parent is None:
            self.client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)

    def point_launch(self, run_id: str) -> None:
        """Make the run that `mlflow run` created a pointer to the result, if it is another run."""
        self.launch.point_to(self.get(run_id))

    @contextmanager
    def run(self, spec: RunSpec, *, launched: bool = False) -> Iterator[OpenRun]:
        """Open the run of a piece of work, new or resumed, and close it as the block ended.

        launched: `mlflow run` was started for this work, and the run that it created is used.
        Raises TakenError as `claim` does, StateError if the store failed.
        """
        try:
            with ExitStack() as ended:
                with interrupts_delayed():
                    run = self.claim(spec, launched=launched)
                    ended.enter_context(ended_on_error(run))
                yield run
                with interrupts_delayed():  # until the states are dropped; a long wait ends at once
                    run.close("FINISHED")
                    run.drop_states()
        except MlflowException as fault:
            text = f"the MLflow store at {self.address} failed: {fault_text(fault)}"
            if fault.error_code != DENIED:
                text += "; when it answers again, the same command goes on from the last checkpoint"
            raise StateError(text) from None

    def claim(self, spec: RunSpec, *, launched: bool = False) -> OpenRun:
        """Make this process the owner of the run; TakenError if another is, or has finished it."""
        self._refuse_read_only()
        if KIND not in self._experiment.tags:
            describe(self.client, self._experiment)
            self._experiment = self.client.get_experiment(self.experiment_id)
        with ExitStack() as ended:
            with interrupts_delayed():
                run = OpenRun(self.client, *self._claim(spec, launched))
                ended.enter_context(ended_on_error(run))
            if run.resumed:  # a new run was created with both
                run.take_up()
                self.adopt(run.id, spec.parent)
                run.tags(spec.all_tags)
            if spec.makes:
                run.begin_model(spec, self.experiment_id)
            if spec.settings:
                run.settings(spec.settings)
        return run

    def close_dead(
        self, run: StoredRun, ended: Collection[Owner] = (), error: str | None = None
    ) -> None:
        """End a dead process's RUNNING run as KILLED or FAILED. ended: known to be dead."""
        owner = run.claim.owner if run.claim else None
        if run.status != "RUNNING" or (run.alive and owner not in ended):
            return
        try:
            number, status = self.take_over(run, run.name)
        except TakenError:
            return
        if status != "RUNNING":
            self.client.set_tag(run.id, CLOSED, str(number))
            return
        fault = StateError(error) if error else None
        _abandon(OpenRun(self.client, run.id, number), "FAILED" if error else "KILLED", fault)

    def take_over(self, run: StoredRun, name: str) -> tuple[int, str]:
        """Claim a dead process's run, or raise TakenError; return its claim number and status.

        `run.status` may be older than `run.claim`: MLflow reads a run in several steps. From now on
        only this process changes the status.
        """
        number = run.claim.number + 1 if run.claim else 1
        text = claim_text()
        refused = None
        try:
            self.client.log_param(run.id, f"{CLAIM}{number}", text)
        except MlflowException as fault:
            refused = fault
        found = self.client.get_run(run.id)
        held = found.data.params.get(f"{CLAIM}{number}")
        if held is None and refused is not None:
            raise refused
        if held != text:
            raise TakenError(f"{name} was taken up by another process meanwhile", run.id)
        return number, found.info.status

    def _claim(self, spec: RunSpec, launched: bool) -> tuple[str, int]:
        """Return the id of the run that this process now owns, and the number of its claim."""
        for attempt in range(ATTEMPTS):
            earlier = self.find(fingerprint=spec.fingerprint)
            if earlier:
                return self._reopen(spec, earlier)
            made, mark = self._create(spec, launched)
            found = self.find(fingerprint=spec.fingerprint)
            for double in (run for run in found if run.tags.get(OWNER) == mark and run.id != made):
                self._withdraw(double.id)  # made by a request whose answer was lost
            if all(run.tags.get(OWNER) == mark for run in found):
                return made, 0
            self._withdraw(made)
            time.sleep(random.uniform(0, LONGEST_WAIT * (attempt + 1) / ATTEMPTS))
        raise StateError(f"{spec.name} is being begun by too many processes at once; try again")

    def _reopen(self, spec: RunSpec, earlier: Sequence[StoredRun]) -> tuple[str, int]:
        for run in earlier:
            if run.alive and run.claim and (owner := run.claim.owner):
                rest = "wait for it or stop it"
                if not owner.is_visible:
                    limit = duration_in_words(silence())
                    rest += f"; after {limit} without a heartbeat it counts as dead"
                raise TakenError(
                    f"{spec.name} is being done by process {owner.pid} on {owner.host} "
                    f"(run {run.id}); {rest}",
                    run.id,
                )
            if run.status == "FINISHED" and not spec.repeatable:
                raise _finished(spec, run)
        newest, *others = earlier
        for run in others:
            self.close_dead(run)
        number, status = self.take_over(newest, spec.name)
        if status == "FINISHED" and not spec.repeatable:
            self.client.set_tag(newest.id, CLOSED, str(number))
            raise _finished(spec, newest)
        if newest.tag("error"):
            self.client.delete_tag(newest.id, ERROR)
        self.client.update_run(newest.id, status="RUNNING")
        return newest.id, number

    def _create(self, spec: RunSpec, launched: bool) -> tuple[str, str]:
        """Return the id of a new run and the text of this process's claim on it."""
        mark = claim_text()
        tags = spec.all_tags | {OWNER: mark}
        if spec.parent:
            tags[MLFLOW_PARENT_RUN_ID] = spec.parent
        if launched:
            if run_id := self.launch.become(spec, tags, self.experiment_id):
                return run_id, mark
            tags = self.launch.origin() | tags
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=spec.name)
        return run.info.run_id, mark

    def _withdraw(self, run_id: str) -> None:
        """Undo `_create`, so that no process finds the run."""
        self.client.delete_tag(run_id, f"{TAG}fingerprint")
        if self.launch.take_back(run_id):
            return
        try:
            self.client.delete_run(run_id)
        except MlflowException as fault:
            if fault.error_code != DENIED:
                raise
            self.client.set_terminated(run_id, "KILLED")  # EDIT permission is enough for this


def _finished(spec: RunSpec, run: StoredRun) -> TakenError:
    return TakenError(f"{spec.name} was finished meanwhile, in run {run.id}", run.id)


@contextmanager
def damage_named(run_id: str, artifact: str) -> Iterator[None]:
    """Raise a StateError that names run and file, and says what to do, for a DamagedError."""
    try:
        yield
    except DamagedError as fault:
        own = artifact.rsplit("/", 1)[-1] == fault.name
        path = artifact if own else f"{artifact}/{fault.name}"
        raise StateError(
            f"run {run_id}: artifact {path} is damaged: {fault.fault}; after `mlflow runs delete "
            f"--run-id {run_id}` the command of that run makes it anew"
        ) from None


@contextmanager
def ended_on_error(run: OpenRun) -> Iterator[None]:
    """End the run as FAILED or KILLED when the block raises."""
    try:
        with interrupt_preserved():
            yield
    except AwayError:
        run.leave()
        raise
    except BaseException as fault:
        killed = isinstance(fault, KeyboardInterrupt | SystemExit)
        named = not killed and not isinstance(fault, TakenError)
        _abandon(run, "KILLED" if killed else "FAILED", fault if named else None)
        raise


def _abandon(run: OpenRun, status: str, fault: BaseException | None = None) -> None:
    """End a run that did not finish, if the store still answers and this process still owns it."""
    error = f"{type(fault).__name__}: {first_line(fault)}" if fault else ""
    with suppress(MlflowException, TakenError, AwayError):
        run.close(status, error)


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable automatic garbage collection, which takes most of the time of a large search."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
