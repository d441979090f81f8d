"""What training reports to: the only thing that the training core knows of the outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from worldrep.training.checkpoint import latest_complete


class Recorder(Protocol):
    """Receives the numbers and the checkpoints of a training."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured after `step` optimizer steps."""

    def checkpoint(self, folder: Path) -> None:
        """A complete checkpoint folder `step-N`; it may be gone after this call returns."""


class FolderRecorder:
    """Keeps a training in a plain folder: `metrics.jsonl` and `checkpoints/step-N/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def checkpoint(self, folder: Path) -> None:
        final = self.folder / "checkpoints" / folder.name
        part = final.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)

    def resume_from(self) -> Path | None:
        """The newest complete checkpoint, or None to start afresh."""
        return latest_complete(self.folder / "checkpoints")
