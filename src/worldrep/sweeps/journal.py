"""Optuna's journal file, safe against writers that were killed and full disks."""

import json
import os
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from worldrep.disk import writing_to
from worldrep.errors import InputError

_START = b'{"op_code"'


class Journal(JournalFileBackend):
    """A journal, one record a line, whose last record may have been cut off.

    A record without a line break was not written: no process reads it, and the next writer removes
    it. The system removes the lock when its process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal; create it if it is absent. Raises InputError for another kind of file."""
        is_other = path.exists() and not path.is_file()  # such as /dev/zero, which has no end
        first = path.open("rb").read(len(_START)) if path.is_file() else b""
        if is_other or not (first.startswith(_START) or _START.startswith(first)):
            raise InputError(f"storage={path} is a file of something else, not a journal of Optuna")
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path.resolve()))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, all of them or none. Raises FullError if the disk is full."""
        path = Path(self._file_path)
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with (
            writing_to("the journal of the sweep", path.parent, len(content)),
            FileLock(f"{path}.flock"),
            path.open("r+b", buffering=0) as file,
        ):
            end = _end_of_records(file)
            try:
                file.truncate(end)
                file.seek(end)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise


def _end_of_records(file: FileIO) -> int:
    """Return the number of bytes up to the last line break."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1
