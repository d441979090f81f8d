"""Checkpoints: folders with a model and the state of its training, complete or absent.

A manifest with the size and digest of every file is written last; a folder without one, or with a
file that differs from it, is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2ForCausalLM

from worldrep.errors import StateError
from worldrep.model import save_model

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
STATE = "training_state.safetensors"
_TEMPORARY = ".part"


def folder_name(step: int) -> str:
    return f"step-{step}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder name, or None for another name."""
    number = name.removeprefix("step-")
    return int(number) if name.startswith("step-") and number.isdigit() else None


def write_checkpoint(
    parent: Path, step: int, model: Qwen2ForCausalLM, state: dict[str, torch.Tensor]
) -> Path:
    """Write `parent/step-N` under a temporary name and rename it when it is whole."""
    final = parent / folder_name(step)
    part = final.with_suffix(_TEMPORARY)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_model(model, part)
    save_file(state, part / STATE)
    write_manifest(part)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    return final


def write_manifest(folder: Path) -> None:
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


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and training state of a complete checkpoint. Raises StateError for another folder."""
    verify(folder)
    return load_file(folder / WEIGHTS), load_file(folder / STATE)


def latest_complete(parent: Path) -> Path | None:
    """The complete checkpoint of the highest step, or None."""
    found = [
        (step, path) for path in parent.glob("step-*") if (step := step_of(path.name)) is not None
    ]
    for _, path in sorted(found, reverse=True):
        try:
            verify(path)
        except StateError:
            continue
        return path
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
