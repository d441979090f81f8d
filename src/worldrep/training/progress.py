"""Loss and speed between two points of the training curve, and a bar for who watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

LOOK_SECONDS = 0.2  # least time between two signs of progress


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is: steps done of all, and what they are like."""

    title: str
    done: int
    total: int
    text: str = ""


Watch = Callable[[Progress], None]


class Bar:
    """A Watch that draws a bar, when on a terminal.

    position: line of the screen, counted from the first bar.
    """

    def __init__(self, position: int = 0) -> None:
        self._position = position
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None or (self._bar.desc, self._bar.total) != (
            progress.title,
            progress.total,
        ):
            self.close()
            self._bar = tqdm(
                desc=progress.title,
                total=progress.total,
                initial=progress.done,
                position=self._position,
                leave=self._position == 0,
                unit="step",
                disable=None,
            )
            self._bar.desc = progress.title  # tqdm adds a colon
        self._bar.set_postfix_str(progress.text, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Meter:
    """Counts real tokens per second, and tells a watch how far it is."""

    def __init__(self, steps: int, done: int, title: str, watch: Watch | None) -> None:
        self._steps, self._done, self._title, self._watch = steps, done, title, watch
        self._text, self._told = "", 0.0
        self._clear()

    def _clear(self) -> None:
        self._tokens, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def add(self, tokens: int) -> None:
        """Count one step."""
        now = self._count_time()
        self._tokens += tokens
        self._done += 1
        if now - self._told >= LOOK_SECONDS or self._done == self._steps:
            self._tell()

    def _count_time(self) -> float:
        now = time.perf_counter()
        self._seconds, self._since = self._seconds + now - self._since, now
        return now

    def skip(self) -> None:
        """Leave out the time since the last step: it was not spent on training."""
        self._since = time.perf_counter()

    def flush(self, loss: float) -> dict[str, float]:
        """Tokens per second since the last flush; the loss is what the watch is told."""
        self._count_time()  # a device that ran behind the host has been waited for
        speed = self._tokens / max(self._seconds, 1e-9)
        self._text = f"loss {loss:.3f}, {speed:,.0f} tokens/s"
        self._clear()
        return {"train/tokens_per_second": speed}

    def _tell(self) -> None:
        self._told = time.perf_counter()
        if self._watch:
            self._watch(Progress(self._title, self._done, self._steps, self._text))
