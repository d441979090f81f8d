"""The interface of executors, their options, and how one is opened."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worldrep.errors import InputError, unknown
from worldrep.executors.jobs import PERFORM_STEP, Job, Outcome, Report, WorkerContext
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner

EXECUTORS = ("auto", "inline", "processes", "ray")
AUTO = "auto"


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
    """Where jobs run.

    executor: auto is inline for one worker and processes for several; workers: jobs at once; cpus:
    cores of each worker, 0 for an equal part of this machine's (of a cluster: one); gpus: share of
    a GPU for each worker, None for an equal part of those available; address: of the Ray cluster;
    perform: function that does a job, as `module:function`.
    Raises InputError for values that do not go together.
    """

    executor: str = AUTO
    workers: int = 1
    cpus: int = 0
    gpus: float | None = None
    address: str = "local"
    perform: str = PERFORM_STEP

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.workers < 1:
            raise InputError(f"workers={self.workers} is too small; it must be at least 1")
        if self.executor == AUTO:
            object.__setattr__(self, "executor", "inline" if self.workers == 1 else "processes")
        if self.cpus < 0 or (self.gpus or 0) < 0:
            raise InputError("cpus and gpus must not be negative")
        if self.executor == "inline" and self.workers > 1:
            raise InputError(
                f"executor=inline does one step at a time; for workers={self.workers} "
                "choose executor=processes or executor=ray"
            )
        if self.gpus and self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError(f"gpus={self.gpus:g} must be a share of one GPU or a whole number")

    @classmethod
    def parse(cls, typed: Mapping[str, str]) -> ExecutorOptions:
        """Build from what the user typed for executor, workers, cpus, gpus and address."""
        return cls(
            typed["executor"],
            int(_number("workers", typed["workers"], int)),
            0 if typed["cpus"] == AUTO else int(_number("cpus", typed["cpus"], int)),
            None if typed["gpus"] == AUTO else _number("gpus", typed["gpus"], float),
            typed["address"],
        )

    @property
    def worker_cpus(self) -> int:
        """Cores of a worker; 0 for no limit."""
        if self.cpus or self.executor == "inline":
            return self.cpus
        return 1 if self.executor == "ray" else max(1, len(os.sched_getaffinity(0)) // self.workers)


def open_executor(options: ExecutorOptions, store: Store, report: Report) -> Executor:
    """Start an executor. report: callback that receives progress and lines of the workers.

    Raises InputError when an option does not fit the cluster or Ray is not installed, StateError
    when no Ray cluster answers.
    """
    uri = absolute_uri(store.uri)
    context = WorkerContext(uri, store.experiment_name, options.worker_cpus, options.perform)
    if options.executor == "ray":
        from worldrep.executors.ray_tasks import RayTasks

        return RayTasks(context, options.workers, options.gpus, options.address, report)
    from worldrep.executors.local import Inline, Processes

    if options.executor == "inline":
        return Inline(store, context, report)
    equal_part = min(1.0, visible_gpus() / options.workers)
    gpus = equal_part if options.gpus is None else options.gpus
    return Processes(context, options.workers, gpus, report)


def _number(name: str, text: str, kind: type) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{name}={text!r} is not {what}") from None
    return value


def visible_gpus() -> int:
    """Return the number of CUDA devices visible to this process, without initialising CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(name.strip() not in ("", "-1") for name in visible.split(","))
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def absolute_uri(uri: str) -> str:
    """Return a tracking URI that is valid in every folder of this machine."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", "file:")):
        return uri
    return f"sqlite:///{Path(path).resolve()}"
