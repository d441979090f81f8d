"""Which process works on a run, and whether that process is still alive.

The newest claim on a run names its process. The first claim is a tag; each later one is a param
`claim.N`, because a store refuses a second value for a param: only one process can make it.

A process that this one can see in its process table is alive while it is there. Of any other
one the heartbeat counts, a text that changes while the process reaches the store. It is compared
with what was seen before, by the clock of this machine alone.
"""

import json
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

from worldrep.digests import digest
from worldrep.disk import cache_folder
from worldrep.errors import StateError
from worldrep.tracking.patience import OWNER, patience

HEARTBEAT_SECONDS = 15
CLOCK_SECONDS = 5.0  # a clock correction may change a process's start time by this much
LEAST_SILENCE = 4.0 * HEARTBEAT_SECONDS

HEARTBEAT, CLOSED = "worldrep.heartbeat", "worldrep.closed_claim"
CLAIM = "claim."
_CLAIM_KEY = re.compile(r"claim\.([1-9][0-9]*)")

_seen: dict[str, tuple[str, float]] = {}  # by claim: its heartbeat, and when that was seen first


class TakenError(StateError):
    """Another process is doing the work, or has just finished it, in the run `run_id`."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@cache
def place() -> str:
    """Return the name of the host, and a digest that differs where process ids are not shared."""
    facts = []
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
        # The root namespace has this inode on every machine and after every reboot.
        root = facts == ["pid:[4026531836]"]
        unique = "/etc/machine-id" if root else "/proc/sys/kernel/random/boot_id"
        facts.append(Path(unique).read_text(encoding="utf-8"))
    return f"{socket.gethostname()}/{digest(facts)[:8]}"


@dataclass(frozen=True)
class Owner:
    """A process: its id, its place (see `place`), and its start time in seconds since 1970."""

    pid: int
    place: str
    started: float

    @classmethod
    def here(cls) -> Self:
        process = psutil.Process()
        return cls(process.pid, place(), round(process.create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a text such as `123 node1/5b1e0c7a 1700000000.25`; None for any other text."""
        try:
            pid, where, started = text.split()
            owner = cls(int(pid), where, float(started))
        except ValueError:
            return None
        return owner if 0 < owner.pid < 2**31 else None

    def __str__(self) -> str:
        return f"{self.pid} {self.place} {self.started:.2f}"

    @property
    def host(self) -> str:
        return self.place.partition("/")[0]

    @property
    def is_visible(self) -> bool:
        """Whether this process can see that one in its process table, if it exists."""
        return self.place == place()

    @property
    def exists(self) -> bool:
        """Whether the process is in the process table, and not a zombie."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < CLOCK_SECONDS
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.AccessDenied:
            return True
        except (psutil.Error, ValueError, OverflowError):
            return False


@dataclass(frozen=True)
class Claim:
    """The newest claim on a run, number 0 of the process that created it.

    owner: None if the text of the claim names no process; text, heartbeat: as they are stored.
    """

    number: int
    owner: Owner | None
    text: str
    heartbeat: str
    closed: bool

    @classmethod
    def newest(cls, tags: Mapping[str, str], params: Mapping[str, str]) -> Self | None:
        """Return the claim in force; None for a run that was never claimed.

        Others may have written tags and params: a claim that cannot be read is a dead process's.
        """
        numbers = [int(match[1]) for match in map(_CLAIM_KEY.fullmatch, params) if match]
        number = max(numbers, default=0)
        text = params[f"{CLAIM}{number}"] if number else tags.get(OWNER, "")
        if not text and not number:
            return None
        owner = Owner.parse(text.rpartition(" ")[0])
        return cls(number, owner, text, tags.get(HEARTBEAT, ""), tags.get(CLOSED) == str(number))

    @property
    def alive(self) -> bool:
        """Whether the owner works on the run, whose status is set after the claim."""
        if self.closed or self.owner is None:
            return False
        if self.owner.is_visible:
            return self.owner.exists
        return self._unchanged_for() < silence()

    def _unchanged_for(self) -> float:
        """Return for how many seconds this host has seen the same heartbeat."""
        key = digest([place(), self.text])
        path = cache_folder() / "heartbeats" / f"{key}.json"  # for the next commands
        if key not in _seen:
            with suppress(OSError, ValueError, TypeError):
                heartbeat, since = json.loads(path.read_text(encoding="utf-8"))
                _seen[key] = str(heartbeat), min(float(since), time.time())
        if _seen.get(key, ("", 0.0))[0] != self.heartbeat or key not in _seen:
            _seen[key] = self.heartbeat, time.time()
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(_seen[key]), encoding="utf-8")
        return time.time() - _seen[key][1]


def silence() -> float:
    """Return how long a process may be silent; it may wait for the store that long."""
    return max(LEAST_SILENCE, patience())


def claim_text() -> str:
    """Return a claim of this process, made now, unlike any other."""
    return f"{Owner.here()} {time.time():.6f}"
