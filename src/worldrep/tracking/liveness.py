"""Which process works on a run, and whether that process is still alive.

The newest claim on a run names its process. The first claim is a tag; each later one is a param
`claim.N`, because a store refuses a second value for a param: only one process can make it.
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import psutil

from worldrep.errors import StateError

HEARTBEAT_SECONDS = 15
CLOCK_SECONDS = 5.0  # a clock correction may change a process's start time by this much
SILENCE_SECONDS = 120  # a process without a heartbeat for this long counts as dead

HEARTBEAT, OWNER, CLOSED = "worldrep.heartbeat", "worldrep.owner", "worldrep.closed_claim"
CLAIM = "claim."
_CLAIM_KEY = re.compile(r"claim\.([1-9][0-9]*)")
DAY_SECONDS = 86_400  # clocks of hosts may differ by less


class TakenError(StateError):
    """Another process is doing the work, or has just finished it, in the run `run_id`."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True)
class Owner:
    """A process: its id, its host, and its start time in seconds since 1970."""

    pid: int
    host: str
    started: float

    @classmethod
    def here(cls) -> Self:
        process = psutil.Process()
        return cls(process.pid, socket.gethostname(), round(process.create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a text such as `123 node1 1700000000.25`; None for any other text."""
        try:
            pid, host, started = text.split()
            owner = cls(int(pid), host, float(started))
        except ValueError:
            return None
        return owner if 0 < owner.pid < 2**31 else None

    def __str__(self) -> str:
        return f"{self.pid} {self.host} {self.started:.2f}"

    def exists(self, heard: float) -> bool:
        """Return whether the process is alive, last heard at `heard` in seconds since 1970."""
        if time.time() - heard >= SILENCE_SECONDS:
            return False
        if self.host != socket.gethostname():
            return True  # a process on this host must also be in the process table
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < CLOCK_SECONDS
        except psutil.Error:
            return False


NOBODY = Owner(0, "", 0.0)


@dataclass(frozen=True)
class Claim:
    """The newest claim on a run, number 0 of the process that created it. heard: last heartbeat."""

    number: int
    owner: Owner
    heard: float
    closed: bool

    @classmethod
    def newest(cls, tags: Mapping[str, str], params: Mapping[str, str]) -> Self | None:
        """Return the claim in force; None for a run that was never claimed.

        Others may have written tags and params: a claim that cannot be read is a dead process's.
        """
        numbers = [int(match[1]) for match in map(_CLAIM_KEY.fullmatch, params) if match]
        number = max(numbers, default=0)
        text = params[f"{CLAIM}{number}"] if number else tags.get(OWNER, "")
        process, _, made = text.rpartition(" ")
        owner, begun = Owner.parse(process), _past(made)
        if owner is None or not begun:
            return cls(number, NOBODY, 0.0, True) if number else None
        heard = max(begun, _past(tags.get(HEARTBEAT, "")))
        return cls(number, owner, heard, tags.get(CLOSED) == str(number))

    @property
    def alive(self) -> bool:
        """Whether the owner works on the run, whose status is set after the claim."""
        return not self.closed and self.owner.exists(self.heard)


def _past(text: str) -> float:
    """Return a time in seconds since 1970; 0 for another text and for a time that is to come."""
    try:
        moment = float(text)
    except ValueError:
        return 0.0
    return moment if 0 < moment < time.time() + DAY_SECONDS else 0.0


def claim_text() -> str:
    """Return a claim of this process, made now."""
    return f"{Owner.here()} {time.time():.0f}"
