"""Checkpoints: folders `step-N` with a model and the state of its training, complete or invalid.

A manifest with the size and SHA-256 of every file is written last. A folder without a manifest, or
with a file that differs from it, is not a checkpoint. Importing this module does not load torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldrep.errors import StateError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2ForCausalLM

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
STATE = "training_state.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: the weights by name, and what `Training.state_dict` returned."""

    weights: dict[str, Tensor]
    state: dict[str, Tensor]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def write_checkpoint(
    parent: Path, step: int, model: Qwen2ForCausalLM, state: dict[str, Tensor]
) -> Path:
    """Write the folder `parent/step-N` under a temporary name, rename it and return its path."""
    from safetensors.torch import save_file

    from worldrep.model.qwen2 import save_model

    final = parent / folder_name(step)
    part = final.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_model(model, part)
    save_file(state, part / STATE)
    write_manifest(part)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    return final


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint folder; raise StateError if it is not complete."""
    from safetensors.torch import load_file

    verify(folder)
    return Checkpoint(load_file(folder / WEIGHTS), load_file(folder / STATE))


def folder_name(step: int) -> str:
    """Return the name of the checkpoint folder of a step."""
    return f"step-{step}"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint folder's name, or None for another name."""
    prefix, _, number = name.partition("-")
    is_step = prefix == "step" and number.isascii() and number.isdecimal()
    return int(number) if is_step else None


def write_manifest(folder: Path) -> None:
    """Write a manifest of all files that a folder holds now."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    content = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def verify(folder: Path) -> None:
    """Raise StateError if a folder has no manifest or a file that differs from it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
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
