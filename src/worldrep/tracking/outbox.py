"""The queue of what a run has logged and the store does not have yet, in a folder of the cache.

The folder belongs to one claim on the run. The process that makes the next claim takes it over, so
nothing is lost when a process ends while the store is away. If another process has worked on the
run in between, what was kept is out of date and is deleted.
"""

import glob
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

from worldrep.disk import TemporaryFolder, cache_folder, writing_to
from worldrep.errors import StateError, interrupts_delayed

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
        parent, run_id = cache_folder() / "outbox", Path(run_id).name
        self.folder = parent / f"{run_id}.{claim}"
        with suppress(OSError):
            (parent / f"{run_id}.{claim - 1}").rename(self.folder)
        for old in parent.glob(f"{glob.escape(run_id)}.*"):
            if old != self.folder:
                shutil.rmtree(old, ignore_errors=True)
        found = [path.parent for path in self.folder.glob(f"*/{CONTENT}")]
        known = (path for path in found if path.name.isdecimal())
        self._requests = deque(sorted(known, key=lambda path: int(path.name)))
        self._next = int(self._requests[-1].name) + 1 if self._requests else 0
        self._fallback: TemporaryFolder | None = None

    def __bool__(self) -> bool:
        return bool(self._requests)

    def put(self, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        """Append a request; to a temporary folder if the cache cannot be written, or is full.

        Raises FullError if that is full too, OSError for another fault of it.
        """
        files = list(files)
        if self._fallback is None:
            try:
                self._put(self.folder, content, files)
                return
            except OSError:
                self._fallback = TemporaryFolder()
        with writing_to("the temporary folder (TMPDIR)", self._fallback.path):
            self._put(self._fallback.path, content, files)

    def _put(self, folder: Path, content: Mapping[str, Any], files: Iterable[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with interrupts_delayed():
            part = Path(tempfile.mkdtemp(suffix=".part", dir=folder))
            try:
                (part / FILES).mkdir()
                for path in files:
                    _link(path, part / FILES / path.name)
                (part / CONTENT).write_text(json.dumps(content), encoding="utf-8")
                request = part.rename(folder / str(self._next))
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            self._requests.append(request)
            self._next += 1

    def oldest(self) -> Entry | None:
        while self._requests:
            folder = self._requests[0]
            try:
                content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
                return Entry(content, folder / FILES)
            except ValueError:  # cut off by a power failure
                self.drop()
        return None

    def explained(self, fault: Exception) -> Exception:
        """Return a StateError in place of a fault that comes from the removal of the folder."""
        removed = isinstance(fault, FileNotFoundError) and self.folder.name in str(fault.filename)
        text = f"{self.folder} was removed, with what the store does not have yet of a run: "
        return StateError(f"{text}the same command goes on") if removed else fault

    def drop(self) -> None:
        """Remove the oldest request, which the store has now."""
        folder = self._requests[0]
        (folder / CONTENT).unlink()  # a folder without it is not a request
        shutil.rmtree(folder, ignore_errors=True)
        self._requests.popleft()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
