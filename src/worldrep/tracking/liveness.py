"""Who works on a run, and whether that process is still at work.

A process owns a run by the newest claim on it. The first claim is a tag that the run is made with;
each later one is a param `claim.N`, because a param is the one thing of which every MLflow store
accepts a single value: of two processes that make the same claim one is refused.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from worldrep.errors import StateError

HEARTBEAT_SECONDS = 15
CLOCK_SECONDS = 5.0  # by which a correction of the clock may move a process's start
SILENCE_SECONDS = 120  # a process that was silent for longer is dead, or will stop

HEARTBEAT, OWNER, CLOSED = "worldrep.heartbeat", "worldrep.owner", "worldrep.closed_claim"
CLAIM = "claim."


class TakenError(StateError):
    """Another process is doing the work, or has just done it."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True)
class Owner:
    """A process: its number, its host, and when it started in seconds since 1970."""

    pid: int
    host: str
    started: float

    @classmethod
    def here(cls) -> Owner:
        process = psutil.Process()
        return cls(process.pid, socket.gethostname(), round(process.create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that a text such as `123 node1 1700000000.25` names; None for another text."""
        try:
            pid, host, started = text.split()
            return cls(int(pid), host, float(started))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.pid} {self.host} {self.started:.2f}"

    def exists(self, heard: float) -> bool:
        """Whether the process lives and was heard of lately; on this host it is looked up as well.

        heard: when it last gave a sign of life, in seconds since 1970.
        """
        if time.time() - heard >= SILENCE_SECONDS:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < CLOCK_SECONDS
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Claim:
    """The newest claim on a run.

    number: 0 for the one that made the run; heard: the owner's last sign of life, in seconds since
    1970; closed: its owner has ended its work on the run.
    """

    number: int
    owner: Owner
    heard: float
    closed: bool

    @classmethod
    def newest(cls, tags: Mapping[str, str], params: Mapping[str, str]) -> Claim | None:
        """The claim that holds now; None for a run that nobody ever claimed."""
        numbers = [int(key.removeprefix(CLAIM)) for key in params if key.startswith(CLAIM)]
        number = max(numbers, default=0)
        text = params[f"{CLAIM}{number}"] if number else tags.get(OWNER, "")
        process, _, made = text.rpartition(" ")
        owner = Owner.parse(process)
        if owner is None:
            return None
        heard = max(float(tags.get(HEARTBEAT, "0")), float(made))
        return cls(number, owner, heard, tags.get(CLOSED) == str(number))

    @property
    def alive(self) -> bool:
        """Whether its owner is at work on the run. (The run's status is set after a claim.)"""
        return not self.closed and self.owner.exists(self.heard)


def claim_text(owner: Owner) -> str:
    """A claim of an owner, made now."""
    return f"{owner} {time.time():.0f}"


def heartbeat_tag() -> dict[str, str]:
    return {HEARTBEAT: f"{time.time():.0f}"}
