"""Executors: their interface, their options, and those that run jobs on this machine."""

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol, Self

from worldrep.errors import InputError, StateError, check_name, first_line, interrupt_on_sigterm
from worldrep.executors import jobs
from worldrep.executors.jobs import Job, Message, Outcome, Report, WorkerContext, run_job
from worldrep.settings import check_bounds, number, whole_number
from worldrep.text import clean_streams
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner
from worldrep.training.processes import cores, visible_gpus

EXECUTORS = ("auto", "inline", "processes", "ray")
AUTO = "auto"
MOST = 1024  # workers, cores or GPUs
STOP_SECONDS = 30.0  # time for a worker to close its run


class Executor(Protocol):
    """Runs jobs. It knows nothing of their order."""

    @property
    def free(self) -> int:
        """Number of jobs that can be submitted now."""

    def submit(self, job: Job) -> None:
        """Begin a job; only when `free` is positive."""

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """Return the outcomes of jobs that ended; wait at most `seconds` for one."""

    def stop(self) -> Sequence[Owner]:
        """End all jobs; return the processes whose work was cut off."""


@dataclass(frozen=True)
class ExecutorOptions:
    """Where jobs run. Raises InputError for values that do not go together.

    executor: auto is inline for one worker and processes for several; workers: jobs at once, 0 for
    as many as `fitted` finds; cpus: cores of each worker, 0 for an equal part of this machine's (of
    a cluster: one); gpus: share of a GPU for each worker, None for an equal part of those
    available; address: of the Ray cluster; perform: function that does a job, as `module:function`.
    """

    executor: str = AUTO
    workers: int = 1
    cpus: int = 0
    gpus: float | None = None
    address: str = "local"
    perform: str = jobs.PERFORM_STEP

    def __post_init__(self) -> None:
        check_name("executor", self.executor, EXECUTORS)
        for name in ("workers", "cpus", "gpus"):
            check_bounds(name, getattr(self, name) or 0, 0, MOST)
        if self.executor == AUTO and self.workers:
            object.__setattr__(self, "executor", "inline" if self.workers == 1 else "processes")
        if self.executor == "inline" and self.workers > 1:
            raise InputError(
                f"executor=inline does one step at a time; for workers={self.workers} "
                "choose executor=processes or executor=ray"
            )
        if self.gpus and self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError(f"gpus={self.gpus:g} must be a share of one GPU or a whole number")

    @classmethod
    def parse(cls, typed: Mapping[str, str]) -> Self:
        return cls(
            typed["executor"],
            0 if typed["workers"] == AUTO else whole_number("workers", typed["workers"], 1, MOST),
            0 if typed["cpus"] == AUTO else whole_number("cpus", typed["cpus"], 0, MOST),
            None if typed["gpus"] == AUTO else number("gpus", typed["gpus"]),
            typed["address"],
        )

    def fitted(self, parallel: int) -> Self:
        """Choose the number of workers if it is open: one for each GPU, or for each core.

        parallel: the largest number of jobs that can run at once.
        """
        if self.workers:
            return self
        places = 1 if self.executor in ("inline", "ray") else visible_gpus() or cores()
        return replace(self, workers=max(1, min(parallel, places)))

    def shared_cpus(self, jobs: int) -> int:
        """Return the cores of each of a few jobs that others wait for; 0 for those of its worker.

        It depends on the study alone, because the number of threads changes the order of sums.
        """
        if self.executor != "processes" or self.cpus or jobs >= self.workers:
            return 0
        return cores() // max(1, jobs)

    @property
    def worker_cpus(self) -> int:
        """Cores of a worker; 0 for no limit."""
        if self.cpus or self.executor == "inline":
            return self.cpus
        return 1 if self.executor == "ray" else max(1, cores() // self.workers)


def open_executor(options: ExecutorOptions, store: Store, report: Report) -> Executor:
    """Start an executor. report: callback that receives progress and lines of the workers."""
    uri = absolute_uri(store.uri)
    context = WorkerContext(uri, store.experiment_name, options.worker_cpus, options.perform)
    if options.executor == "ray":
        from worldrep.executors.ray_tasks import RayTasks

        return RayTasks(context, options.workers, options.gpus, options.address, report)
    if options.executor == "inline":
        return Inline(store, context, report)
    equal_part = min(1.0, visible_gpus() / options.workers)
    gpus = equal_part if options.gpus is None else options.gpus
    return Processes(context, options.workers, gpus, report)


def absolute_uri(uri: str) -> str:
    """Return a tracking URI that is valid in every folder of this machine."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", "file:")):
        return uri
    return f"sqlite:///{Path(path).resolve()}"


class Inline:
    """Runs one job at a time in this process."""

    def __init__(self, store: Store, context: WorkerContext, report: Report) -> None:
        self._store, self._context, self._report = store, context, report
        self._job: Job | None = None

    @property
    def free(self) -> int:
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self, seconds: float) -> list[Outcome]:
        job, self._job = self._job, None
        if job is None:  # only jobs of other drivers are left
            time.sleep(seconds)
            return []
        return [run_job(self._store, job, self._context, partial(self._report, 1))]

    def stop(self) -> list[Owner]:
        return [Owner.here()]


@dataclass
class Worker:
    """A worker process, its connection and its current job."""

    number: int
    process: ForkServerProcess
    connection: Connection
    job: Job | None = None


class Processes:
    """Runs jobs in worker processes on all GPUs. A dead worker is replaced, and its job is lost."""

    def __init__(self, context: WorkerContext, workers: int, gpus: float, report: Report) -> None:
        self._context, self._size, self._gpus, self._report = context, workers, gpus, report
        self._workers: dict[int, Worker] = {}

    @property
    def free(self) -> int:
        return self._size - sum(worker.job is not None for worker in self._workers.values())

    def submit(self, job: Job) -> None:
        """Send a job to an idle worker; start one if there is none."""
        worker = next((w for w in self._workers.values() if w.job is None), None) or self._start()
        worker.job = job
        with suppress(OSError):  # the idle worker has died: `wait` finds that out
            worker.connection.send(job)

    def _start(self) -> Worker:
        number = min(set(range(1, self._size + 1)) - set(self._workers))
        # Workers are forked from a server that has imported torch and MLflow, which takes seconds.
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["worldrep.stages.train", "worldrep.stages.measure"])
        ours, theirs = processes.Pipe()
        arguments = (theirs, self._context, device_of(number, self._gpus))
        process = processes.Process(target=serve, args=arguments, name=f"worker {number}")
        # Workers inherit the mask: Ctrl-C is for the driver, which ends its workers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        self._workers[number] = Worker(number, process, ours)
        return self._workers[number]

    def wait(self, seconds: float) -> list[Outcome]:
        workers = {worker.connection: worker for worker in self._workers.values()}
        outcomes = [self._receive(workers[ready]) for ready in wait(workers, seconds)]  # type: ignore[arg-type, index]
        return [outcome for outcome in outcomes if outcome]

    def _receive(self, worker: Worker) -> Outcome | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            worker.connection.close()
            del self._workers[worker.number]
            reason = f"its worker died (exit code {worker.process.exitcode})"
            return Outcome(worker.job.fingerprint, "lost", message=reason) if worker.job else None
        if isinstance(message, Outcome):
            worker.job = None
            return message
        self._report(worker.number, message)
        return None

    def stop(self) -> list[Owner]:
        """End all workers. A busy one closes its run as KILLED first."""
        for worker in self._workers.values():
            worker.connection.close() if worker.job is None else worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(STOP_SECONDS)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()
        return []  # on this host every process can see that they are gone


def device_of(number: int, gpus: float) -> str | None:
    """Return CUDA_VISIBLE_DEVICES for a worker: its part of the visible GPUs. None: unchanged."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus:
        return None
    first, last = int((number - 1) * gpus + 1e-9), int(number * gpus - 1e-9)
    names = visible.split(",") if visible else [str(i) for i in range(last + 1)]
    return ",".join(names[i % len(names)] for i in range(first, last + 1))


def serve(connection: Connection, context: WorkerContext, device: str | None) -> None:
    """Run jobs in a worker process until the driver closes the connection or dies."""
    interrupt_on_sigterm()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    os.environ.update(context.thread_variables)
    import torch  # by the server of these processes; it does not read the variables any more

    threading.Thread(target=_end_with_driver, daemon=True).start()

    def report(message: Message) -> None:
        with suppress(OSError):  # the job does not fail when the driver is gone
            # A driver that waits for the store reads nothing, and must not hold up the job.
            if isinstance(message, str) or select.select([], [connection], [], 0)[1]:
                connection.send(message)

    try:
        with clean_streams():
            store = context.connect()
            while True:
                job = connection.recv()
                if cpus := job.cpus or context.cpus:
                    torch.set_num_threads(cpus)
                connection.send(run_job(store, job, context, report))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except (InputError, StateError) as fault:  # the store cannot be opened
        report(first_line(fault))
        sys.exit(1)


def _end_with_driver() -> None:
    """Send this process SIGTERM when the driver dies, so that it closes its run."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os.kill(os.getpid(), signal.SIGTERM)
