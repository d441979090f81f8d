"""Errors that end a command with one sentence and an exit code, and the handling of signals."""

import difflib
import functools
import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from worldrep.text import clean_streams, line, masked

MOST_SHOWN = 80  # characters of a value in a message
LONGEST, LONGEST_OWN = 300, 4000  # characters of the message of an error, and of one of ours


class _Sentence:
    """An error that a command, and a notebook (IPython), shows as one sentence."""

    def _render_traceback_(self) -> list[str]:
        return [f"Error: {first_line(self)}"]  # type: ignore[arg-type]


class InputError(_Sentence, ValueError):
    """The user gave a wrong value; the message says what is allowed. Exit code 2."""


class StateError(_Sentence, RuntimeError):
    """The store, a file or another process is not as the command needs it. Exit code 1."""


def unknown(kind: str, value: object, allowed: Iterable[object]) -> InputError:
    """Return an InputError that names the unknown value, the nearest allowed one and all others."""
    names = list(map(str, allowed))
    lower = {name.lower(): name for name in reversed(names)}  # the first of equal ones stays
    nearest = difflib.get_close_matches(str(value)[:MOST_SHOWN].lower(), lower, n=1)
    hint = f" (did you mean {lower[nearest[0]]!r}?)" if nearest else ""
    given = f"{kind} {shown(str(value))}{hint}"
    return InputError(f"unknown {given}; allowed: {', '.join(_ranges(names))}")


def check_name(kind: str, value: object, allowed: Collection[object]) -> None:
    """Raise InputError, as `unknown` makes it, if a value is not among the allowed ones."""
    if value not in allowed:
        raise unknown(kind, value, allowed)


def shown(value: object) -> str:
    """Return a value as it stands in a message: quoted if it is text, and cut if it is long."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text)} characters)"


def _ranges(names: list[str]) -> list[str]:
    """Abbreviate runs such as ft2-1, ft2-2, ... to ft2-1..21."""
    parts = [name.rpartition("-") for name in names]
    last = {stem: number for stem, _, number in parts}
    shown = [f"{s}-1..{last[s]}" if s and n.isdigit() else f"{s}{dash}{n}" for s, dash, n in parts]
    return list(dict.fromkeys(shown))


def first_line(fault: BaseException) -> str:
    """Return the first line of an error's message, or its type's name, without passwords.

    The message of one of our errors is a sentence, of which a value may have several lines.
    """
    text = str(fault).strip() or type(fault).__name__
    if isinstance(fault, InputError | StateError):
        return line(masked(line(text)), LONGEST_OWN)
    return line(masked(line(text.splitlines()[0])), LONGEST)


def reason_of(fault: BaseException) -> str:
    """Return `first_line`, of an OSError without its number and the name of its file."""
    return getattr(fault, "strerror", None) or first_line(fault)


def one_sentence(
    function: Callable[..., None],
    goes_on: Callable[[], str] = lambda: "the same command begins anew",
) -> Callable[..., None]:
    """Decorate a command so that expected errors print one sentence instead of a traceback.

    The exit codes are 2 for wrong input, 1 for a problem with the store or a file, and 130 for
    Ctrl-C or SIGTERM, which says how the command goes on. Any other exception is a bug and keeps
    its traceback.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        # With Python's threshold, looking for garbage takes a fifth of the time of all imports.
        gc.set_threshold(10_000)
        interrupt_on_sigterm()
        try:
            with clean_streams(), interrupt_preserved():
                function(*args, **kwargs)
        except (InputError, StateError) as fault:
            _exit(f"Error: {first_line(fault)}", 2 if isinstance(fault, InputError) else 1)
        except KeyboardInterrupt:
            _exit(f"Interrupted: {goes_on()}", 130)
        except OSError as fault:
            _exit(f"Error: a file could not be read or written: {first_line(fault)}", 1)
        except Exception as fault:
            if type(fault).__module__.split(".")[0] in ("mlflow", "requests", "sqlalchemy"):
                _exit(f"Error: the MLflow store failed: {first_line(fault)}", 1)
            raise

    return wrapped


def _exit(sentence: str, code: int) -> None:
    with clean_streams():
        print(sentence, file=sys.stderr)
    sys.exit(code)


@contextmanager
def interrupt_preserved() -> Iterator[None]:
    """Raise KeyboardInterrupt again if an error in cleaning up after one has replaced it."""
    try:
        yield
    except Exception as fault:
        if interrupt := was_interrupted(fault):
            raise interrupt from None
        raise


def was_interrupted(fault: BaseException) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt during whose handling an error was raised, if any."""
    cause = fault.__context__
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause


def interrupt_on_sigterm() -> None:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that open runs end as KILLED.

    A SIGINT handler other than Python's own stays in place. An exception that Python drops, as it
    does in destructors, is raised again.
    """
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _repeat_interrupt


def _repeat_interrupt(fault: Any) -> None:
    """Raise a dropped KeyboardInterrupt again, a little later."""
    if isinstance(fault.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    else:
        sys.__unraisablehook__(fault)


# Signals received in each open block of `interrupts_delayed`, the innermost last.
_delayed: list[list[int]] = []


@contextmanager
def interrupts_delayed() -> Iterator[None]:
    """Delay KeyboardInterrupt until the block ends; only a second Ctrl-C is raised at once.

    Use it where a resource is created and its clean-up registered. It has an effect only after
    `interrupt_on_sigterm`.
    """
    _delayed.append([])
    try:
        yield
    finally:
        for signum in _delayed.pop():
            _interrupt(signum, None)


def raise_delayed() -> None:
    """Raise KeyboardInterrupt if a signal was delayed: a long wait must not outlast it."""
    if any(_delayed) and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _starts_a_thread(frame: FrameType | None) -> bool:
    """Whether a thread pool is starting a thread; interrupted there, it would block the exit."""
    while frame is not None and frame.f_code is not ThreadPoolExecutor.submit.__code__:
        frame = frame.f_back
    return frame is not None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    if _delayed and (signum != signal.SIGINT or not any(_delayed)):
        _delayed[-1].append(signum)
        return
    if _starts_a_thread(frame):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_IGN)  # a second one must not disturb closing the run
    # An interrupted query loses its connection, which SQLAlchemy would log with a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt
