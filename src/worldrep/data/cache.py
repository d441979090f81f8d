"""Row sets on disk, memory-mapped, each under the digest of what determines it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from worldrep.data.encoding import Tokens


def cache_folder() -> Path:
    """$WORLDREP_CACHE, else worldrep/ in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("WORLDREP_CACHE") or Path(home) / "worldrep")


def cached(name: str, make: Callable[[], Tokens]) -> Tokens:
    """The read-only array stored under `name`, made and stored first if it is not there.

    A file appears under its name only when it is complete; one truncated later is made again.
    """
    path = cache_folder() / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        pass  # absent or damaged
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.save(file, make())
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # a cache may be shared
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return np.load(path, mmap_mode="r")
