"""Make texts safe to print and to store: passwords are hidden, control characters are escaped.

Texts of a store or of a server were written by others. `line` is for texts that are read,
`clean_streams` for what is printed, `plain` for what tables and figures show.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote

if TYPE_CHECKING:
    from pandas import DataFrame

LONGEST = 8000  # characters of one text of a store, as MLflow's server allows
SHORTEST = 4  # characters of a password that is looked for by itself
HIDDEN = "***"

_SCHEME = r"(\b[a-z][\w+.-]*://)"
_USER = re.compile(
    rf"""(\b(?:postgres|mysql|mariadb|mssql|oracle)[\w+]*://)[^\s'"]*@
    |{_SCHEME}(?:[^\s/'"]*@|[^\s/:@'"]+:(?!\d+/)[^\s@'"]*@)""",
    re.IGNORECASE | re.VERBOSE,
)
_QUERY = re.compile(
    r"""([?&][\w.-]*(?:password|passwd|token|secret|sig(?:nature)?)=)[^\s&'"]+""", re.I
)
_SECRET_VARIABLE = re.compile(r"(PASSWORD|TOKEN|SECRET|ACCESS_KEY)$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CURSOR_UP = re.compile(r"\n*(\x1b\[A)*")  # what a progress bar writes beside its own line
# Control characters without tab and line feed, surrogates, line separators, and what changes the
# direction or the place of the text around it. Joiners (200c, 200d) are part of some scripts.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_FORMULA = re.compile(r"\s*[=+@\-\uff1d\uff0b\uff0d\uff20]")  # or in full width
_addresses: set[str] = set()  # with a password


def remember(address: str) -> None:
    """Hide the password of an address wherever `masked` is called from now on."""
    if "@" in address:
        _addresses.add(address)


def without_passwords(text: str) -> str:
    """Return the text without user names and passwords of the addresses in it."""
    if "://" in text:
        text = _USER.sub(lambda found: found[1] or found[2], text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def without_user(address: str) -> str:
    """Return an address without user name, password and query (which may hold a password)."""
    return without_passwords(address.partition("?")[0])


def masked(text: str) -> str:
    """Return a text without passwords: of addresses in it, of known ones, of the environment."""
    text = without_passwords(text)
    for secret in _secrets():
        if secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _secrets() -> list[str]:
    """Return the passwords and tokens that this process knows, the longest first."""
    named = [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)]
    addresses = {*_addresses, *(value for value in os.environ.values() if "://" in value)}
    parts = [*named, *(part for address in addresses for part in _password_parts(address))]
    forms = {form.strip() for part in parts for form in (part, unquote(part))}
    return sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)


def _password_parts(address: str) -> Iterable[str]:
    """Return the password of an address, and its parts: a driver may take one for the host."""
    user = _USER.match(address)
    password = user[0].partition("://")[2].rpartition("@")[0].partition(":")[2] if user else ""
    return [password, *re.split(r"[@/?#:]", password)]


def plain(text: str) -> str:
    r"""Return a text in which control characters and changes of direction are escaped."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def line(text: str, longest: int = LONGEST) -> str:
    """Return a text that others wrote as one plain line of at most `longest` characters."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if text.isprintable() else plain(re.sub(r"\s+", " ", text))


def duration_in_words(seconds: float) -> str:
    """Return a rounded duration, such as `90 minutes` or `4 hours`."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds > 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    whole = max(1, round(seconds))
    return f"{whole} second{'' if whole == 1 else 's'}"


def size_in_words(count: float) -> str:
    """Return a number of bytes, such as `106.4 kB` or `2.5 MB`."""
    for unit, size in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 1e3 * size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:,.1f} GB" if count < 1e14 else f"{count / 1e9:.1e} GB"


def write_csv(table: DataFrame, path: Path, **options: Any) -> None:
    """Write a table as CSV without control characters and without formulas of a spreadsheet.

    A text that a spreadsheet would take for a formula gets an apostrophe before it. options: of
    `to_csv`.
    """
    table = table.copy(deep=False)
    for name in table.select_dtypes(include=["object", "string", "category"]):
        table[name] = table[name].map(_cell)
    table.rename(index=_cell, columns=_cell).to_csv(path, **options)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if _FORMULA.match(value) and not _is_numbers(value) else plain(value)


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in re.split(r"[\s,;]+", text.strip())])
    except ValueError:
        return False


class CleanStream:
    """Writes text to another stream without passwords and control characters."""

    def __init__(self, stream: TextIO, every_secret: bool) -> None:
        """every_secret: hide what `masked` hides, also where a word happens to be a password."""
        self._stream, self._hide = stream, masked if every_secret else without_passwords

    def write(self, text: str) -> int:
        self._stream.write(text if _CURSOR_UP.fullmatch(text) else self._cleaned(text))
        return len(text)

    def _cleaned(self, text: str) -> str:
        body = text.strip("\r")  # progress bars begin and end with it
        start = text[: len(text) - len(text.lstrip("\r"))]
        end = text[len(start) + len(body) :]
        shown = start + plain(_COLOUR.sub("", self._hide(body))) + end
        encoding = self._stream.encoding or "utf-8"
        return shown.encode(encoding, "backslashreplace").decode(encoding)

    def writelines(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "_stream"):  # would bypass this object
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Print clean text only, while the block runs and in tracebacks after it."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = CleanStream(streams[0], False), CleanStream(streams[1], True)  # type: ignore[assignment]
    sys.excepthook = _print_traceback
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def _print_traceback(*fault: Any) -> None:
    with clean_streams():
        sys.__excepthook__(*fault)
