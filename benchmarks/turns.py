"""How long work takes, and two ways to do the same work, in turns."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def synchronize() -> None:
    """Wait for the device, so that a clock read afterwards tells what it did."""
    torch = sys.modules.get("torch")  # who has not imported it has nothing to wait for
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, its device's work included, and its result."""
    synchronize()
    begun = time.perf_counter()
    result = work()
    synchronize()
    return time.perf_counter() - begun, result


def in_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and the last result of each way."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for way, work in ways.items():
            passed, results[way] = timed(work)
            seconds[way].append(passed)
    return {way: statistics.median(found) for way, found in seconds.items()}, results
