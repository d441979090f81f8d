"""How far work is: bars on a terminal, lines in a file or a job's log, and what a run shows.

Work reports to the callbacks of `reporting`, wherever it runs; without one, nothing is shown.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from worldrep.text import duration_in_words

REPORT_SECONDS = 0.2  # least time between two calls of a progress callback
LINE_SECONDS = 30.0  # between two lines about the same work
MILESTONE_SECONDS = 5.0  # before the line of a quarter that is done
HIDDEN_SECONDS = 1.0  # a bar of work before the first step, such as making rows
NOTE, SHARE = "mlflow.note.content", "progress"  # tag and metric of a run


class Recorder(Protocol):
    """Receives the metrics and checkpoints of a training."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics measured after `step` optimizer steps."""

    def checkpoint(self, folder: Path) -> None:
        """Record a complete checkpoint folder `step-N`, which is deleted after the call."""


class Described(Protocol):
    """A run with metrics and a description. resumed: an earlier process worked on it."""

    resumed: bool

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def tags(self, tags: Mapping[str, str]) -> None: ...


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is, in steps or in units such as questions."""

    title: str  # label of the progress bar
    done: int
    total: int
    text: str = ""  # shown after the bar, such as the loss and the speed
    unit: str = "step"

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 1.0

    @property
    def in_words(self) -> str:
        details = f", {self.text}" if self.text else ""
        return f"{self.unit} {self.done:,} of {self.total:,} ({self.share:.0%}){details}"


ProgressCallback = Callable[[Progress], None]
_callbacks: list[ProgressCallback] = []


@contextmanager
def reporting(callback: ProgressCallback) -> Iterator[None]:
    """Call a function with the progress of the work in this block, beside those around it."""
    _callbacks.append(callback)
    try:
        yield
    finally:
        _callbacks.pop()


@contextmanager
def shown() -> Iterator[None]:
    """Show the progress of the work in this block, unless somebody else receives it."""
    if _callbacks:
        yield
        return
    bar = Bar()
    try:
        with reporting(bar):
            yield
    finally:
        bar.close()


@contextmanager
def recorded_in(run: Described) -> Iterator[None]:
    """Log the progress of the work in this block as a metric and the description of a run.

    Work that ends before the first line would be due leaves neither, unless it was resumed.
    """
    begun = time.monotonic()

    def write(progress: Progress, line: str) -> None:
        run.metrics(progress.done, {SHARE: progress.share})
        run.tags({NOTE: f"{line} ({time.strftime('%H:%M:%S')})"})

    lines = Lines(write)

    def to_describe() -> Progress | None:
        return lines.last if lines.any_written or run.resumed else None

    try:
        with reporting(lines):
            yield
    except BaseException:
        if last := to_describe():
            with suppress(Exception):  # the error that ends the work is the one to raise
                run.tags({NOTE: f"{last.title}: ended after {last.in_words}"})
        raise
    if last := to_describe():
        took = duration_in_words(time.monotonic() - begun)
        run.metrics(last.total, {SHARE: 1.0})
        details = f", {last.text}" if last.text else ""
        run.tags({NOTE: f"{last.title}: {last.total:,} {last.unit}s in {took}{details}."})


class Lines:
    """A progress callback that writes a line every LINE_SECONDS, and when a quarter is done.

    Attributes:
        last: What it was called with last.
        any_written: Whether a line was due.
    """

    def __init__(self, write: Callable[[Progress, str], None]) -> None:
        self.last: Progress | None = None
        self.any_written = False
        self._write, self._written = write, time.monotonic()
        self._work: tuple[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        now, quarter = time.monotonic(), int(4 * progress.share)
        if self._work != (progress.title, progress.total):
            self._work = progress.title, progress.total
            self._since, self._from, self._quarter = now, progress.done, quarter
        waited = now - self._written
        is_milestone = quarter > self._quarter and waited >= MILESTONE_SECONDS
        if waited >= LINE_SECONDS or is_milestone:
            self._written, self._quarter, self.any_written = now, quarter, True
            self._write(progress, self._line(progress, now))

    def _line(self, progress: Progress, now: float) -> str:
        done, left = progress.done - self._from, progress.total - progress.done
        parts = [progress.in_words]
        if done > 0 and left:
            parts.append(f"{duration_in_words((now - self._since) / done * left)} left")
        return f"{progress.title}: {', '.join(parts)}"


class Bar:
    """A progress callback: a tqdm bar on line `position` of a terminal, else lines on stderr."""

    def __init__(self, position: int = 0) -> None:
        self._position = position
        self._bar: tqdm | None = None
        self._lines = Lines(lambda _, line: print(line, file=sys.stderr, flush=True))

    def __call__(self, progress: Progress) -> None:
        """Update the bar; another title or total starts a new one."""
        if not sys.stderr.isatty():
            self._lines(progress)
            return
        drawn = (self._bar.desc, self._bar.total) if self._bar else None
        if drawn != (progress.title, progress.total):
            self.close()
            self._bar = tqdm(
                desc=progress.title, total=progress.total, initial=progress.done,
                unit=progress.unit, position=self._position, leave=self._position == 0,
                delay=0 if progress.unit == "step" else HIDDEN_SECONDS,
            )  # fmt: skip
            self._bar.desc = progress.title  # tqdm adds a colon
        assert self._bar is not None
        self._bar.set_postfix_str(progress.text, refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Counter:
    """Counts the steps of a piece of work and reports them, at most every REPORT_SECONDS."""

    def __init__(
        self, title: str, total: int, done: int = 0, unit: str = "step",
        report: ProgressCallback | None = None,
    ) -> None:  # fmt: skip
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._own = [report] if report else []  # beside those of `reporting`
        self._text, self._reported = "", 0.0

    def add(self, steps: int = 1) -> None:
        self._done += steps
        now = time.perf_counter()
        if now - self._reported >= REPORT_SECONDS or self._done == self._total:
            self._reported = now
            progress = Progress(self._title, self._done, self._total, self._text, self._unit)
            for callback in (*_callbacks, *self._own):
                callback(progress)


class Meter(Counter):
    """Counts the steps of a training and measures tokens per second."""

    def __init__(self, steps: int, done: int, title: str, report: ProgressCallback | None) -> None:
        super().__init__(title, steps, done, report=report)
        self.restart()

    def restart(self) -> None:
        """Measure from now on, after work that is not training."""
        self._tokens, self._since = 0, time.perf_counter()

    def step(self, tokens: int) -> None:
        """Count one step and its tokens, padding excluded."""
        self._tokens += tokens
        self.add()

    def flush(self, loss: float) -> dict[str, float]:
        """Return `train/tokens_per_second` since the last call; first synchronise the device."""
        speed = self._tokens / max(time.perf_counter() - self._since, 1e-9)
        self._text = f"loss {loss:.3f}, {speed:,.0f} tokens/s"
        self.restart()
        return {"train/tokens_per_second": speed}
