"""How a command ends when something is wrong: one sentence and the right exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from worldrep.errors import InputError, StateError, first_line
from worldrep.interruption import listen_to_polite_stops

STORE_PACKAGES = ("mlflow", "requests", "sqlalchemy")  # whose errors mean that the store failed


def one_sentence(function: Callable[..., None]) -> Callable[..., None]:
    """Make faults end with one sentence: 2 for what the user typed, 1 for the store or a file.

    A polite kill (SIGTERM) is treated like Ctrl-C, so that the open run is closed as KILLED.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        listen_to_polite_stops()
        try:
            function(*args, **kwargs)
        except InputError as fault:
            _end(str(fault), 2)
        except StateError as fault:
            _end(str(fault), 1)
        except KeyboardInterrupt:
            click.echo("Interrupted: the same command goes on from the last checkpoint.", err=True)
            sys.exit(130)
        except OSError as fault:
            _end(f"a file could not be read or written: {fault}", 1)
        except Exception as fault:
            if type(fault).__module__.split(".")[0] in STORE_PACKAGES:
                _end(f"the MLflow store failed: {first_line(fault)}", 1)
            raise

    return wrapped


def _end(sentence: str, code: int) -> None:
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)
