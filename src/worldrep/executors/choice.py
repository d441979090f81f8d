"""Choosing where the steps run, checked before anything starts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worldrep.errors import InputError, unknown
from worldrep.executors.work import REAL, Job, Outcome, Tell, Workplace
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner

EXECUTORS = ("auto", "inline", "processes", "ray")
AUTO = "auto"


class Executor(Protocol):
    """Does steps. It knows nothing of the order that they have among one another."""

    @property
    def free(self) -> int:
        """How many steps it could begin now."""

    def submit(self, job: Job) -> None:
        """Begin a step; only when one is free."""

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """Steps that ended, after `seconds` at the latest if none has."""

    def stop(self) -> Sequence[Owner]:
        """End all that is going on; the processes whose work was ended."""


@dataclass(frozen=True)
class Choice:
    """An executor that was asked for.

    executor: auto is inline for one worker and processes for several; workers: steps at once;
    cpus: cores of each, 0 for an equal part of this machine's (of a cluster, one); gpus: share of a
    GPU for each, None for an equal part of those that are there.
    Raises InputError for values that do not go together.
    """

    executor: str = AUTO
    workers: int = 1
    cpus: int = 0
    gpus: float | None = None
    address: str = "local"
    perform: str = REAL

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise unknown("executor", self.executor, EXECUTORS)
        if self.workers < 1:
            raise InputError(f"workers={self.workers} is too small; it must be at least 1")
        if self.executor == AUTO:
            found = "inline" if self.workers == 1 else "processes"
            object.__setattr__(self, "executor", found)
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
    def parse(cls, typed: Mapping[str, str]) -> Choice:
        """From what the user typed: executor, workers, cpus, gpus, address."""
        return cls(
            typed["executor"],
            int(_number("workers", typed["workers"], int)),
            0 if typed["cpus"] == AUTO else int(_number("cpus", typed["cpus"], int)),
            None if typed["gpus"] == AUTO else _number("gpus", typed["gpus"], float),
            typed["address"],
        )

    def open(self, store: Store, tell: Tell) -> Executor:
        """Start it. Raises InputError or StateError when that cannot be done."""
        workplace = Workplace(
            absolute_uri(store.uri), store.experiment_name, self._cpus, self.perform
        )
        if self.executor == "processes":
            from worldrep.executors.processes import Processes

            return Processes(workplace, self.workers, self._gpus, tell)
        if self.executor == "ray":
            from worldrep.executors.ray_tasks import RayActors

            return RayActors(workplace, self.workers, self.gpus, self.address, tell)
        from worldrep.executors.inline import Inline

        return Inline(store, workplace, tell)

    @property
    def _cpus(self) -> int:
        if self.cpus or self.executor == "inline":
            return self.cpus
        return 1 if self.executor == "ray" else max(1, len(os.sched_getaffinity(0)) // self.workers)

    @property
    def _gpus(self) -> float:
        if self.gpus is not None:
            return self.gpus
        return min(1.0, visible_gpus() / self.workers)


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
    """How many CUDA devices this process would see, without starting CUDA in it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def absolute_uri(uri: str) -> str:
    """A store's address that means the same in every folder of this machine."""
    path = uri.removeprefix("sqlite:///")
    if path == uri or path.startswith(("/", "file:")):
        return uri
    return f"sqlite:///{Path(path).resolve()}"
