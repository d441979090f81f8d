"""Long-lived worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from worldrep.errors import interrupt_on_sigterm
from worldrep.executors.work import (
    Job,
    News,
    Outcome,
    Tell,
    Workplace,
    attempt,
    connect,
    limit_threads,
)
from worldrep.tracking.liveness import Owner

STOP_SECONDS = 30.0  # that a worker is given to close its run


@dataclass
class Worker:
    """A process, the way to it, and what it is doing."""

    number: int
    process: SpawnProcess
    connection: Connection
    job: Job | None = None


class Processes:
    """Workers of this machine. One that dies loses its step; another takes its place.

    gpus: share of a GPU for each worker; they are dealt out over those that are visible.
    """

    def __init__(self, workplace: Workplace, workers: int, gpus: float, tell: Tell) -> None:
        self._workplace, self._size, self._gpus, self._tell = workplace, workers, gpus, tell
        self._workers: dict[int, Worker] = {}

    @property
    def free(self) -> int:
        return self._size - sum(worker.job is not None for worker in self._workers.values())

    def submit(self, job: Job) -> None:
        """Give a step to an idle worker, started if there is none."""
        worker = next((w for w in self._workers.values() if w.job is None), None)
        worker = worker or self._start()
        worker.job = job
        try:
            worker.connection.send(job)
        except OSError:  # it died idle: `wait` finds that out
            return

    def _start(self) -> Worker:
        number = min(set(range(1, self._size + 1)) - set(self._workers))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._workplace, device_of(number, self._gpus))
        process = context.Process(target=serve, args=arguments, name=f"worker {number}")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a Ctrl-C is for the driver,
        process.start()  # which ends its workers; they inherit the mask
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        self._workers[number] = Worker(number, process, ours)
        return self._workers[number]

    def wait(self, seconds: float) -> list[Outcome]:
        """Steps that ended, after `seconds` at the latest."""
        sources = {worker.connection: worker for worker in self._workers.values()}
        outcomes = [self._receive(sources[source]) for source in wait(sources, seconds)]  # type: ignore[arg-type, index]
        return [outcome for outcome in outcomes if outcome]

    def _receive(self, worker: Worker) -> Outcome | None:
        """One message of a worker; the end of its messages is the end of the worker."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if isinstance(message, Outcome):
            worker.job = None
            return message
        self._tell(worker.number, message)
        return None

    def _bury(self, worker: Worker) -> Outcome | None:
        worker.process.join()
        worker.connection.close()
        del self._workers[worker.number]
        if worker.job is None:
            return None
        reason = f"its worker died (exit code {worker.process.exitcode})"
        return Outcome(worker.job.fingerprint, "lost", message=reason)

    def stop(self) -> list[Owner]:
        """End all workers. One that is at work closes its run as KILLED first."""
        for worker in self._workers.values():
            worker.connection.close() if worker.job is None else worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(STOP_SECONDS)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()
        return []  # processes of this host: whoever asks can see that they are gone


def device_of(number: int, gpus: float) -> str | None:
    """CUDA_VISIBLE_DEVICES for a worker: its part of those visible here. None to leave it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus:
        return None
    first, last = int((number - 1) * gpus + 1e-9), int(number * gpus - 1e-9)
    names = visible.split(",") if visible else [str(i) for i in range(last + 1)]
    return ",".join(names[i % len(names)] for i in range(first, last + 1))


def serve(connection: Connection, workplace: Workplace, device: str | None) -> None:
    """Do steps until no more come, or until the driver is gone."""
    interrupt_on_sigterm()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    limit_threads(workplace.cpus)
    threading.Thread(target=_follow_driver, daemon=True).start()

    def tell(news: News) -> None:
        with suppress(OSError):  # the driver may be gone; the step does not fail for that
            connection.send(news)

    try:
        store = connect(workplace)
        while True:
            job = connection.recv()
            connection.send(attempt(store, job, workplace, tell))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _follow_driver() -> None:
    """When the driver is killed, end like it does: closing the run, losing no checkpoint."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os.kill(os.getpid(), signal.SIGTERM)
