"""Checkpoints: folders `step-N` with a model and the state of its training, complete or invalid.

A manifest with the size and SHA-256 of every file is written last. A folder without a manifest, or
with a file that differs from it, is not a checkpoint. The state is needed to resume a training, the
rest to evaluate the model. Importing this module does not load torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldrep.errors import StateError, first_line

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
    from safetensors.torch import save

    from worldrep.model.qwen2 import save_model

    final = parent / folder_name(step)
    part = final.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_model(model, part)
    (part / STATE).write_bytes(save(state))
    write_manifest(part)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    return final


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint folder; raise StateError if it is not complete, or of another step.

    `Training.load_checkpoint` checks that it fits the training.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    verify(folder)
    if not (folder / STATE).is_file():
        raise StateError(f"it has no {STATE}: older checkpoints keep the model alone")
    try:
        checkpoint = Checkpoint(load_file(folder / WEIGHTS), load_file(folder / STATE))
        if checkpoint.step != step_of(folder.name):
            raise StateError(f"its state is of step {checkpoint.step}")
        torch.Generator().set_state(checkpoint.state["rng"])
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as fault:
        if isinstance(fault, StateError):
            raise
        raise StateError(f"its content is not that of a checkpoint: {first_line(fault)}") from None
    for name, tensor in (checkpoint.weights | checkpoint.state).items():
        if not tensor.isfinite().all():
            raise StateError(f"{name} is not finite")
    return checkpoint


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
    (folder / MANIFEST).write_text(json.dumps(content, indent=1))


def verify(folder: Path) -> None:
    """Raise StateError if a folder has no manifest or a file that differs from it.

    The state may be missing, because older checkpoints are kept without it. Messages do not name
    the folder, which is a copy of one in the store.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        raise StateError(f"it is not complete: there is no readable {MANIFEST}") from None
    for name, facts in manifest.items():
        path = folder / name
        if name == STATE and not path.exists():
            continue
        size = path.stat().st_size if path.is_file() else None
        if size != facts["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise StateError(f"{name} {found}, should have {facts['bytes']}: truncated or damaged")
        if _sha256(path) != facts["sha256"]:
            raise StateError(f"{name} is damaged: its digest is not the manifest's")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
