"""Run jobs as tasks of a Ray cluster. Ray reuses worker processes, so imports are paid once."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import worldrep
from worldrep.errors import InputError, StateError, first_line
from worldrep.executors.jobs import Job, Message, Outcome, Report, WorkerContext, run_job
from worldrep.text import clean_streams
from worldrep.tracking.liveness import Owner

REFUSED_SECONDS, CONNECT_SECONDS = 5, 30  # time for an address to answer, and for Ray to connect
CONNECT = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='error')"
NO_TOKEN = "InvalidAuthToken"  # in what Ray prints
TOKEN_REMEDY = (
    "it asks for a token: export RAY_AUTH_MODE=token, and have the cluster's token in "
    "~/.ray/auth_token or RAY_AUTH_TOKEN"
)
PLACE_SECONDS = 60.0  # time without any running task before that is reported
MAX_FAILED_STARTS = 10  # tasks in a row that may end before their job begins
PASSED_ON = ("MLFLOW_", "AWS_", "WORLDREP_", "PG")  # prefixes of environment variables
NOT_PASSED_ON = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"}


def run_task(context: WorkerContext, job: Job) -> Iterator[Owner | Message | Outcome]:
    """Run a job on a node; yield this process, the job's messages, and its outcome."""
    messages: SimpleQueue[Message | None] = SimpleQueue()
    with clean_streams(), ThreadPoolExecutor(max_workers=1) as thread:
        store = _connected(context)
        yield Owner.here()
        outcome = thread.submit(run_job, store, job, context, messages.put)
        outcome.add_done_callback(lambda _: messages.put(None))
        while (message := messages.get()) is not None:
            yield message
        yield outcome.result()


_connected = cache(WorkerContext.connect)  # once per worker process


@dataclass
class Task:
    """A submitted job. owner: the process that runs it, None while it waits for a place."""

    number: int
    job: Job
    owner: Owner | None = None


class RayTasks:
    """Runs jobs as Ray tasks without retries: the driver must close a dead process's run first."""

    def __init__(
        self, context: WorkerContext, workers: int, gpus: float | None, address: str, report: Report
    ) -> None:
        self._ray = _start_ray(address, context)
        # Ray writes the variables of its own `env_vars` to logs that every user can read.
        names = {name for name in os.environ if name.startswith(PASSED_ON)} - NOT_PASSED_ON
        variables = tuple((name, os.environ[name]) for name in sorted(names))
        self._context = replace(context, variables=variables)
        self._workers, self._report = workers, report
        if gpus is None:
            gpus = min(1.0, self._ray.cluster_resources().get("GPU", 0) / workers)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._check_capacity(nodes, context.cpus, gpus)
        # A process keeps the GPU that it used first. Where a node has several, reuse none.
        several = bool(gpus) and any(node.get("GPU", 0) > 1 for node in nodes)
        self._run = self._ray.remote(
            num_cpus=context.cpus, num_gpus=gpus, max_retries=0, max_calls=int(several)
        )(run_task)
        self._tasks: dict[Any, Task] = {}  # by the generator of a task's messages
        self._failed_starts, self._last_running = 0, time.monotonic()

    def _check_capacity(self, nodes: list[dict[str, float]], cpus: int, gpus: float) -> None:
        """Raise InputError when no node is large enough for a worker."""
        capacity = sum(capacity_of(node, cpus, gpus) for node in nodes)
        if capacity == 0:
            largest = {k: max(n.get(k, 0) for n in nodes) for k in ("CPU", "GPU")}
            raise InputError(
                f"no node of the cluster has room for a worker with cpus={cpus} and gpus={gpus}; "
                f"the largest have {largest['CPU']:g} CPUs and {largest['GPU']:g} GPUs"
            )
        if capacity < self._workers:
            text = f"the cluster has room for {capacity} of {self._workers} workers at once"
            self._report(0, text)

    @property
    def free(self) -> int:
        return self._workers - len(self._tasks)

    def submit(self, job: Job) -> None:
        used = {task.number for task in self._tasks.values()}
        number = min(set(range(1, self._workers + 1)) - used)
        self._tasks[self._run.remote(self._context, job)] = Task(number, job)

    def wait(self, seconds: float) -> list[Outcome]:
        self._report_no_place()
        if not self._tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._tasks), timeout=seconds)
        outcomes = [self._receive(messages) for messages in ready]
        return [outcome for outcome in outcomes if outcome]

    def _receive(self, messages: Any) -> Outcome | None:
        from ray.exceptions import RayError

        task = self._tasks[messages]
        try:
            message = self._ray.get(next(messages))
        except RayError as fault:
            del self._tasks[messages]
            return self._lose(task, fault)
        if isinstance(message, Outcome):
            del self._tasks[messages]
            return message
        if isinstance(message, Owner):
            task.owner, self._failed_starts = message, 0
        else:
            self._report(task.number, message)
        return None

    def _lose(self, task: Task, fault: Exception) -> Outcome | None:
        """Return the outcome of a lost job. A job that had not begun is submitted again."""
        error = getattr(fault, "cause", None)  # an exception that `run_task` raised
        if task.owner is not None:
            died = "its worker or the worker's node died"
            reason = f"its worker failed: {first_line(error)}" if error else died
            return Outcome(task.job.fingerprint, "lost", message=reason, owner=task.owner)
        self._failed_starts += 1
        if self._failed_starts > MAX_FAILED_STARTS:
            reason = first_line(error or fault)
            raise StateError(f"workers cannot start on the Ray cluster: {reason}")
        self.submit(task.job)
        return None

    def _report_no_place(self) -> None:
        """Report when no job could begin for long: the cluster may have shrunk."""
        now = time.monotonic()
        if not self._tasks or any(task.owner for task in self._tasks.values()):
            self._last_running = now
        elif now - self._last_running > PLACE_SECONDS:
            self._last_running = now
            self._report(0, "no worker has a place on the cluster; waiting for one")

    def stop(self) -> list[Owner]:
        owners = [task.owner for task in self._tasks.values() if task.owner]
        for messages in self._tasks:
            self._ray.cancel(messages, force=True)
        self._tasks.clear()
        self._ray.shutdown()
        return owners


def capacity_of(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Return how many workers fit on a node."""
    by_cpus = node.get("CPU", 0) // cpus if cpus else 1_000
    return int(min(by_cpus, node.get("GPU", 0) // gpus) if gpus else by_cpus)


def _start_ray(address: str, context: WorkerContext) -> Any:
    """Return Ray, connected to a running cluster, or to a new one for the address `local`."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor=ray needs the extra `cluster`: pip install -c constraints.txt -e '.[cluster]'"
        ) from None
    modules = [str(Path(worldrep.__file__).parent)]  # Ray copies this package to every node
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    options |= {"include_dashboard": False} if address == "local" else {}
    stop_handler = signal.getsignal(signal.SIGTERM)
    try:
        if address != "local":
            _try_to_connect(address)
        environment = {"env_vars": context.thread_variables, "py_modules": modules}
        ray.init(address=address, runtime_env=environment, **options)
    except (OSError, ValueError, OverflowError, RuntimeError) as fault:
        raise StateError(
            f"no Ray cluster answers at address={address!r} ({first_line(fault)}); "
            "allowed: local, auto for the one that runs on this machine, or HOST:PORT"
        ) from None
    signal.signal(signal.SIGTERM, stop_handler)  # ray.init replaces the handler
    return ray


def _try_to_connect(address: str) -> None:
    """Connect in another process, which can be ended: Ray tries a wrong port for 14 minutes.

    Raises OSError if it does not succeed.
    """
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), REFUSED_SECONDS).close()
    command = [sys.executable, "-c", CONNECT, address]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=CONNECT_SECONDS)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as fault:
        said = (fault.stderr or b"").decode(errors="replace").strip()
        reason = (said.splitlines() or ["no reason is known"])[-1]
        if isinstance(fault, subprocess.TimeoutExpired):
            reason = f"nothing there speaks as Ray does, for {CONNECT_SECONDS} s"
        raise ConnectionError(TOKEN_REMEDY if NO_TOKEN in said else reason) from None
