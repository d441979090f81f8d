"""A recorder that needs no MLflow: metrics and checkpoints in a plain folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from worldrep.errors import StateError
from worldrep.training.checkpoint import Checkpoint, read_checkpoint, step_of


class FolderRecorder:
    """Writes `metrics.jsonl` and `checkpoints/step-N/` below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def checkpoint(self, folder: Path) -> None:
        shutil.copytree(folder, self.checkpoints / folder.name, dirs_exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """Return the complete checkpoint of the highest step, or None."""
        steps = sorted((step_of(path.name) or 0, path) for path in self.checkpoints.iterdir())
        for _, path in reversed(steps):
            try:
                return read_checkpoint(path)
            except StateError:
                continue
        return None
