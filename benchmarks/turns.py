"""Two ways to do the same work, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.rows import synchronize


def in_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and the last result of each way."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for way, work in ways.items():
            synchronize()
            begun = time.perf_counter()
            results[way] = work()
            synchronize()
            seconds[way].append(time.perf_counter() - begun)
    return {way: statistics.median(found) for way, found in seconds.items()}, results
