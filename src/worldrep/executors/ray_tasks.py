"""Long-lived workers on a Ray cluster, one actor each."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import worldrep
from worldrep.errors import InputError, StateError, first_line
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

LOOK_SECONDS = 1.0  # between two looks at how far the workers are
ANSWER_SECONDS = 5.0  # that the address of a cluster is given to answer
ROOM_SECONDS = 60.0  # that all workers may be without a place before that is said
MOST_STILLBORN = 10  # workers that may fail to start one after another
KEPT_BACK = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI")


class RemoteWorker:
    """The process of one worker on whatever node Ray put it."""

    def __init__(self, workplace: Workplace) -> None:
        limit_threads(workplace.cpus)
        self._workplace = workplace
        self._store = connect(workplace)
        self._news: list[News] = []
        self._lock = threading.Lock()

    def hello(self) -> Owner:
        """Which process this is: it must be known when it has died."""
        return Owner.here()

    def work(self, job: Job) -> Outcome:
        return attempt(self._store, job, self._workplace, self._keep)

    def _keep(self, news: News) -> None:
        with self._lock:
            self._news.append(news)

    def news(self) -> list[News]:
        """What there is to tell since the last time. Called while `work` goes on."""
        with self._lock:
            news, self._news = self._news, []
        return news


@dataclass
class Actor:
    """A worker as the driver sees it. owner: None until it has started."""

    number: int
    handle: Any
    hello: Any
    owner: Owner | None = None
    job: Job | None = None
    work: Any = None
    asked: list[Any] = field(default_factory=list)


class RayActors:
    """Workers on a cluster. One that dies loses its step; another is placed where there is room."""

    def __init__(
        self, workplace: Workplace, workers: int, gpus: float | None, address: str, tell: Tell
    ) -> None:
        environment = {"env_vars": _environment(workplace), "py_modules": [_package()]}
        self._ray = _join(address, environment)
        self._workplace, self._tell, self._looked = workplace, tell, 0.0
        self._stillborn, self._staffed = 0, time.monotonic()
        if gpus is None:
            gpus = min(1.0, self._ray.cluster_resources().get("GPU", 0) / workers)
        self._room(workers, workplace.cpus, gpus)
        self._class = self._ray.remote(RemoteWorker).options(
            num_cpus=workplace.cpus,
            num_gpus=gpus,
            max_concurrency=2,  # it tells how far it is while it works
        )
        self._actors = {number: self._place(number) for number in range(1, workers + 1)}

    def _room(self, workers: int, cpus: int, gpus: float) -> None:
        """Raise InputError when no node is large enough for a worker."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        places = sum(places_on(node, cpus, gpus) for node in nodes)
        if places == 0:
            largest = {k: max(n.get(k, 0) for n in nodes) for k in ("CPU", "GPU")}
            raise InputError(
                f"no node of the cluster has room for a worker with cpus={cpus} and gpus={gpus}; "
                f"the largest have {largest['CPU']:g} CPUs and {largest['GPU']:g} GPUs"
            )
        if places < workers:
            self._tell(0, f"the cluster has room for {places} of {workers} workers at once")

    def _place(self, number: int) -> Actor:
        handle = self._class.remote(self._workplace)
        return Actor(number, handle, handle.hello.remote())

    @property
    def free(self) -> int:
        return sum(actor.owner is not None and not actor.job for actor in self._actors.values())

    def submit(self, job: Job) -> None:
        """Give a step to an idle worker."""
        actor = next(a for a in self._actors.values() if a.owner and not a.job)
        actor.job, actor.work = job, actor.handle.work.remote(job)

    def wait(self, seconds: float) -> list[Outcome]:
        """Steps that ended, after `seconds` at the latest."""
        self._complain_of_no_room()
        pending = {a.work or a.hello: a for a in self._actors.values() if a.job or not a.owner}
        if not pending:
            time.sleep(seconds)
            return []
        self._look()
        ready, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(pending), timeout=min(seconds, LOOK_SECONDS))
        outcomes = [self._collect(pending[reference]) for reference in ready]
        return [outcome for outcome in outcomes if outcome]

    def _collect(self, actor: Actor) -> Outcome | None:
        from ray.exceptions import RayError

        try:
            if actor.owner is None:
                actor.owner, self._stillborn = self._ray.get(actor.hello), 0
                return None
            outcome = self._ray.get(actor.work)
        except RayError as fault:
            return self._replace(actor, fault)
        self._tell_news(actor)
        actor.job = actor.work = None
        return outcome

    def _replace(self, actor: Actor, fault: Exception) -> Outcome | None:
        """Put another worker in the place of one that died, or that cannot be reached."""
        self._ray.kill(actor.handle)
        self._actors[actor.number] = self._place(actor.number)
        if actor.job is not None:
            reason = "its worker or the worker's node died"
            return Outcome(actor.job.fingerprint, "lost", message=reason, owner=actor.owner)
        self._stillborn += 1
        if self._stillborn > MOST_STILLBORN:
            raise StateError(f"workers cannot start on the Ray cluster: {first_line(fault)}")
        return None

    def _complain_of_no_room(self) -> None:
        """Say so when no worker has had a place for long: the cluster may have shrunk."""
        now = time.monotonic()
        if any(actor.owner for actor in self._actors.values()):
            self._staffed = now
        elif now - self._staffed > ROOM_SECONDS:
            self._staffed = now
            self._tell(0, "no worker has a place on the cluster; waiting for one")

    def _look(self) -> None:
        """Ask the busy workers for news, and tell what they answered to the last question."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for actor in self._actors.values():
            if actor.job:
                self._tell_news(actor)
                if not actor.asked:
                    actor.asked = [actor.handle.news.remote()]

    def _tell_news(self, actor: Actor) -> None:
        from ray.exceptions import RayError

        ready, actor.asked = self._ray.wait(actor.asked, timeout=0) if actor.asked else ([], [])
        for reference in ready:
            try:
                for news in self._ray.get(reference):
                    self._tell(actor.number, news)
            except RayError:
                continue

    def stop(self) -> list[Owner]:
        """End all workers at once; the driver closes the runs that they leave."""
        owners = [actor.owner for actor in self._actors.values() if actor.owner]
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._ray.shutdown()
        return owners


def places_on(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many workers fit on a node."""
    room = [node.get("CPU", 0) // cpus if cpus else 1_000]
    if gpus:
        room.append(node.get("GPU", 0) // gpus)
    return int(min(room))


def _join(address: str, environment: dict[str, Any]) -> Any:
    """Ray, connected to a running cluster, or to one of its own for the address `local`.

    Raises InputError when ray is not installed, StateError when nothing answers.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor=ray needs the extra `cluster`: pip install -c constraints.txt -e '.[cluster]'"
        ) from None
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
        own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        polite_stop = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, runtime_env=environment, **quiet, **own)
        signal.signal(signal.SIGTERM, polite_stop)  # Ray puts its own in its place
    except (OSError, ValueError, RuntimeError) as fault:
        raise StateError(
            f"no Ray cluster answers at address={address!r} ({first_line(fault)}); "
            "allowed: local, auto for the one that runs on this machine, or HOST:PORT"
        ) from None
    return ray


def _environment(workplace: Workplace) -> dict[str, str]:
    """What workers need of this process's environment: how to reach the store."""
    named = {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW_", "AWS_", "WORLDREP_"))}
    kept = {key: value for key, value in named.items() if key not in KEPT_BACK}
    return kept | {"OMP_NUM_THREADS": str(workplace.cpus or 1)}


def _package() -> str:
    """This package's folder, which Ray copies to every node."""
    return str(Path(worldrep.__file__).parent)
