"""What a run has logged and the store does not have yet, in order, in a folder of the cache.

The folder belongs to one claim on the run. The process that makes the next claim takes it over, so
nothing is lost when a process ends while the store is away. If another process has worked on the
run in between, what was kept is out of date and is deleted.
"""

import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldrep.data.sets import cache_folder
from worldrep.errors import interrupts_delayed

CONTENT, FILES = "content.json", "files"


@dataclass(frozen=True)
class Entry:
    """One request: what it says, and the folder of the files that belong to it."""

    content: Mapping[str, Any]
    files: Path


class Outbox:
    """The queue of one run, appended to by one thread and emptied by another."""

    def __init__(self, run_id: str, claim: int) -> None:
        """Take over what the process with the claim before this one left, if there is any."""
        parent = cache_folder() / "outbox"
        self.folder = parent / f"{run_id}.{claim}"
        with suppress(OSError):
            (parent / f"{run_id}.{claim - 1}").rename(self.folder)
        for old in parent.glob(f"{run_id}.*"):
            if old != self.folder:
                shutil.rmtree(old, ignore_errors=True)
        names = [path.parent.name for path in self.folder.glob(f"*/{CONTENT}")]
        self._names = deque(sorted(filter(str.isdecimal, names), key=int))
        self._next = int(self._names[-1]) + 1 if self._names else 0

    def __bool__(self) -> bool:
        return bool(self._names)

    def put(self, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        """Append a request. Raises OSError if the disk does not take it."""
        self._make()
        with interrupts_delayed():
            part = Path(tempfile.mkdtemp(suffix=".part", dir=self.folder))
            try:
                (part / FILES).mkdir()
                for path in files:
                    _link(path, part / FILES / path.name)
                (part / CONTENT).write_text(json.dumps(content))
                part.rename(self.folder / str(self._next))
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            self._names.append(str(self._next))
            self._next += 1

    def _make(self) -> None:
        """Make the folder; in the temporary one when the cache cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            self.folder = Path(tempfile.mkdtemp(prefix="worldrep-outbox-"))

    def oldest(self) -> Entry | None:
        while self._names:
            folder = self.folder / self._names[0]
            try:
                return Entry(json.loads((folder / CONTENT).read_text()), folder / FILES)
            except ValueError:  # cut off by a power failure
                self.drop()
        return None

    def drop(self) -> None:
        """Remove the oldest request, which the store has now."""
        folder = self.folder / self._names[0]
        (folder / CONTENT).unlink()  # a folder without it is not a request
        shutil.rmtree(folder, ignore_errors=True)
        self._names.popleft()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
