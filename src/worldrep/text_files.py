"""Text files that users write: studies and search spaces in YAML, and CSV files of cities."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from worldrep.errors import InputError, first_line, reason_of, shown

MEGABYTE = 10**6
MOST_YAML = MEGABYTE // 4
MOST_NODES, DEEPEST = 20_000, 12  # of a YAML file, aliases replaced by what they stand for
_FORMATS = {  # first bytes -> what the file is
    b"PK\x03\x04": "an Excel workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed",
}


def read_text(path: Path, kind: str, most: int) -> str:
    """Return the text of a UTF-8 file. Raises InputError if it is none, or too large.

    kind: what the file is, for messages; most: bytes.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the name
        where = "" if path.is_absolute() else f", looked for in {Path.cwd()}"
        raise InputError(f"cannot read {kind}{path}: {reason_of(fault)}{where}") from None
    if len(content) > most:
        raise InputError(f"{kind}{path} has more than {most / MEGABYTE:g} MB")
    found = [name for start, name in _FORMATS.items() if content.startswith(start)]
    if found or b"\0" in content:
        name = found[0] if found else "no text, or UTF-16"
        raise InputError(f"{kind}{path} is {name}: save it as text in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise InputError(
            f"{kind}{path} line {line} is not UTF-8 (byte {content[fault.start]:#x}), perhaps "
            "Windows-1252: save it as UTF-8"
        ) from None


def read_yaml(path: Path, kind: str) -> Any:
    """Return a YAML file as dictionaries, lists and texts. Raises InputError.

    Every scalar is a text: YAML would take `no` for false, 010 for 8 and 2026-10-10 for a date.
    """
    text = read_text(path, f"{kind} ", MOST_YAML)
    try:
        return _Document(text).content
    except InputError as fault:
        raise InputError(f"{kind} {path}: {fault}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(fault, "problem", None) or first_line(fault)
        raise InputError(f"{kind} {path}{where} is not YAML: {reason}") from None


class _Document:
    """Builds the content of a YAML text from its events, within the limits."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.BaseLoader)
        self._nodes = self._depth = 0
        self._anchors: dict[str, tuple[Any, int]] = {}  # value, number of nodes
        self.content = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self.content is not None:
                    raise InputError("has several documents, separated by ---")
                self.content = self._value(next(self._events), ())

    def _value(self, event: yaml.Event, path: tuple[str, ...]) -> Any:
        """Return the value that begins with an event. path: the keys that lead to it."""
        self._count(1, path)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise InputError(f"*{event.anchor}{_at(path)} stands for nothing before it")
            value, nodes = self._anchors[event.anchor]
            self._count(nodes, path)
            return value
        before = self._nodes
        if isinstance(event, yaml.SequenceStartEvent):
            value = [self._value(item, path) for item in self._until(yaml.SequenceEndEvent, path)]
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(path)
        else:
            value = event.value
        if event.anchor:
            self._anchors[event.anchor] = value, self._nodes - before
        return value

    def _mapping(self, path: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent, path):
            key = self._value(event, path)
            if not isinstance(key, str):
                raise InputError(f"a key{_at(path)} is not a name")
            if key in found:
                raise InputError(f"{shown(key)} is there twice{_at(path)}")
            found[key] = self._value(next(self._events), (*path, key))
        return found

    def _until(self, end: type[yaml.Event], path: tuple[str, ...]) -> Iterator[yaml.Event]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise InputError(f"is nested more than {DEEPEST} deep{_at(path)}")
        for event in self._events:
            if isinstance(event, end):
                self._depth -= 1
                return
            yield event

    def _count(self, nodes: int, path: tuple[str, ...]) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise InputError(f"has more than {MOST_NODES} values{_at(path)}")


def _at(path: tuple[str, ...]) -> str:
    return f" in {shown('.'.join(path))}" if path else ""
