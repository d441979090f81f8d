"""Whether the process that opened a run is still at work on it."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import psutil

HEARTBEAT_SECONDS = 15
CLOCK_SECONDS = 5.0  # by which a correction of the clock may move a process's start
SILENCE_SECONDS = 120  # a run of another host that was silent for longer is dead

HEARTBEAT = "worldrep.heartbeat"
HOST, PID, STARTED = "worldrep.host", "worldrep.pid", "worldrep.process_started"


def owner_tags() -> dict[str, str]:
    """Who works on a run: this process, now."""
    process = psutil.Process()
    return {
        HOST: socket.gethostname(),
        PID: str(process.pid),
        STARTED: f"{process.create_time():.2f}",
        **heartbeat_tag(),
    }


def heartbeat_tag() -> dict[str, str]:
    return {HEARTBEAT: f"{time.time():.0f}"}


def is_alive(tags: Mapping[str, str]) -> bool:
    """Whether the run with these tags is being worked on.

    On this host the process itself is looked up; for another one the heartbeat has to do.
    """
    if HEARTBEAT not in tags:
        return False
    if tags.get(HOST) == socket.gethostname():
        try:
            started = psutil.Process(int(tags[PID])).create_time()
        except (psutil.Error, KeyError, ValueError):
            return False
        return abs(started - float(tags.get(STARTED, "0"))) < CLOCK_SECONDS
    return time.time() - float(tags[HEARTBEAT]) < SILENCE_SECONDS
