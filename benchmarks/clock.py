"""Seconds that a thread spends in the public methods of some classes."""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch


class Clock:
    """Seconds and calls by method, of the thread that made it. A call within a call is the outer's.

    What other threads do meanwhile is not counted: this one does not wait for it.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._thread, self._inside = threading.get_ident(), False

    @property
    def total(self) -> float:
        return sum(self.seconds.values(), 0.0)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, under whose name its time is counted."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self._inside, begun = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[name] += time.perf_counter() - begun
                self.calls[name] += 1

        return call


@contextmanager
def clocked(*classes: type) -> Iterator[Clock]:
    """A clock of all calls of these classes' own public methods while the block lasts.

    Methods that are context managers are left out, because the time within the block is not
    theirs; what they call on entering and leaving is counted where it is a method itself.
    """
    clock = Clock()
    with ExitStack() as stack:
        for owner in classes:
            for name, function in vars(owner).items():
                if _is_counted(name, function):
                    stack.enter_context(patch.object(owner, name, clock.timed(name, function)))
        yield clock


def _is_counted(name: str, function: Any) -> bool:
    is_block = inspect.isgeneratorfunction(inspect.unwrap(function))
    return not name.startswith("_") and inspect.isfunction(function) and not is_block
