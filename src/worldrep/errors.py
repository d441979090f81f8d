"""The two kinds of trouble that a user is told about in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user typed or supplied is wrong: the sentence says what is allowed (exit code 2)."""


class StateError(RuntimeError):
    """The store, a file or another process is not as the command needs it (exit code 1)."""


def unknown(kind: str, value: object, allowed: Iterable[object]) -> InputError:
    """An InputError that names the unknown value, the nearest allowed one, and all of them."""
    names = [str(name) for name in allowed]
    nearest = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return InputError(f"unknown {kind} {str(value)!r}{hint}; allowed: {', '.join(_ranges(names))}")


def first_line(fault: BaseException) -> str:
    """The first line of a fault's message, or its kind if it has none; at most 300 characters."""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]


def _ranges(names: list[str]) -> list[str]:
    """Names with runs such as ft2-1, ft2-2, ... written as ft2-1..21."""
    highest = {stem: number for stem, _, number in (name.rpartition("-") for name in names)}
    return list(
        dict.fromkeys(
            f"{stem}-1..{highest[stem]}" if stem and number.isdigit() else name
            for name in names
            for stem, _, number in [name.rpartition("-")]
        )
    )
