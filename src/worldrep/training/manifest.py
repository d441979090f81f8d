"""Checkpoint folders: how they are named, and when their files are complete.

A manifest with the size and digest of every file is written last; a folder without one, or with a
file that differs from it, is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from worldrep.errors import StateError

MANIFEST = "manifest.json"


def folder_name(step: int) -> str:
    return f"step-{step}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder name, or None for another name."""
    number = name.removeprefix("step-")
    return (
        int(number)
        if name.startswith("step-") and number.isascii() and number.isdecimal()
        else None
    )


def write_manifest(folder: Path) -> None:
    """Describe every file that the folder holds now."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    content = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1))


def verify(folder: Path) -> None:
    """Check every file against the manifest. Raises StateError naming the first that differs."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        raise StateError(f"{folder} is not a complete checkpoint: no readable {MANIFEST}") from None
    for name, facts in manifest.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != facts["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise StateError(f"{path} {found}, should have {facts['bytes']}: truncated or damaged")
        if _sha256(path) != facts["sha256"]:
            raise StateError(f"{path} is damaged: its digest is not the manifest's")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
