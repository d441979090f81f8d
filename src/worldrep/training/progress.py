"""What a training reports to: a recorder, and optionally a progress callback such as a bar."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

REPORT_SECONDS = 0.2  # least time between two calls of a progress callback


class Recorder(Protocol):
    """Receives the metrics and checkpoints of a training."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics measured after `step` optimizer steps."""

    def checkpoint(self, folder: Path) -> None:
        """Record a complete checkpoint folder `step-N`, which is deleted after the call."""


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is, in steps."""

    title: str  # label of the progress bar
    done: int
    total: int
    text: str = ""  # shown after the bar, such as the loss and the speed


ProgressCallback = Callable[[Progress], None]


class Bar:
    """A progress callback that shows a tqdm bar on line `position` of a terminal, if any."""

    def __init__(self, position: int = 0) -> None:
        self._position = position
        self._bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        """Update the bar; another title or total starts a new one."""
        shown = (self._bar.desc, self._bar.total) if self._bar else None
        if shown != (progress.title, progress.total):
            self.close()
            self._bar = tqdm(
                desc=progress.title, total=progress.total, initial=progress.done, unit="step",
                position=self._position, leave=self._position == 0, disable=None,
            )  # fmt: skip
            self._bar.desc = progress.title  # tqdm adds a colon
        assert self._bar is not None
        self._bar.set_postfix_str(progress.text, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Meter:
    """Measures tokens per second of a training, and calls a progress callback."""

    def __init__(self, steps: int, done: int, title: str, report: ProgressCallback | None) -> None:
        self._steps, self._done, self._title, self._report = steps, done, title, report
        self._text, self._reported = "", 0.0
        self.restart()

    def restart(self) -> None:
        """Measure from now on, after work that is not training."""
        self._tokens, self._since = 0, time.perf_counter()

    def add(self, tokens: int) -> None:
        """Count one step and its tokens, padding excluded."""
        self._tokens += tokens
        self._done += 1
        now = time.perf_counter()
        due = now - self._reported >= REPORT_SECONDS or self._done == self._steps
        if due and self._report:
            self._reported = now
            self._report(Progress(self._title, self._done, self._steps, self._text))

    def flush(self, loss: float) -> dict[str, float]:
        """Return `train/tokens_per_second` since the last call; first synchronise the device."""
        speed = self._tokens / max(time.perf_counter() - self._since, 1e-9)
        self._text = f"loss {loss:.3f}, {speed:,.0f} tokens/s"
        self.restart()
        return {"train/tokens_per_second": speed}


def duration_in_words(seconds: float) -> str:
    """Return a rough duration, such as `about 4 minutes`."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    n = max(1, round(seconds))
    return f"about {n} second{'s' if n > 1 else ''}"
