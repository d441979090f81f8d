"""Checkpoints: folders `step-N` with a model and the state of its training, complete or invalid.

A manifest with the size and SHA-256 of every file is written last. A folder without a manifest, or
with other files than it names, is not a checkpoint. The state is needed to resume a training, the
rest to evaluate the model. Importing this module does not load torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldrep.disk import sha256
from worldrep.errors import first_line
from worldrep.stored import CONFIG, WEIGHTS, DamagedError, Manifest, read_json, tensor_facts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2ForCausalLM

MANIFEST = "manifest.json"
STATE = "training_state.safetensors"
ADDED = {"registered_model_meta", "__pycache__"}  # by MLflow, when it loads a model where it lies


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
    """Load a checkpoint folder; raise DamagedError if it is not complete, or of another step.

    `Training.load_checkpoint` checks that it fits the training.
    """
    import torch
    from safetensors.torch import load_file

    verify(folder, (CONFIG, WEIGHTS, STATE))
    if not (folder / STATE).is_file():
        raise DamagedError(folder / STATE, "older checkpoints keep the model alone")
    for name in (WEIGHTS, STATE):
        tensor_facts(folder / name)
    checkpoint = Checkpoint(load_file(folder / WEIGHTS), load_file(folder / STATE))
    try:
        step = checkpoint.step
        torch.Generator().set_state(checkpoint.state["rng"])
    except (KeyError, RuntimeError, TypeError, ValueError) as fault:
        text = f"it is not the state of a training: {first_line(fault)}"
        raise DamagedError(folder / STATE, text) from None
    if step != step_of(folder.name):
        raise DamagedError(folder / STATE, f"it is of step {step}")
    for name, tensor in (checkpoint.weights | checkpoint.state).items():
        if not tensor.isfinite().all():
            raise DamagedError(folder / STATE, f"{name} is not finite")
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
    content = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def verify(folder: Path, required: Collection[str] = (CONFIG, WEIGHTS)) -> None:
    """Raise DamagedError unless a folder holds exactly the files that its manifest names.

    The state may be missing, because older checkpoints are kept without it. Hidden files and those
    that MLflow adds are ignored. required: names that the manifest must have.
    """
    manifest = read_json(folder / MANIFEST, Manifest)
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    for name in sorted({*required} - manifest.keys()):
        raise DamagedError(folder / MANIFEST, f"it does not name {name}")
    for name in sorted(found - manifest.keys() - {MANIFEST} - ADDED):
        raise DamagedError(folder / name, f"{MANIFEST} does not name it")
    for name, facts in manifest.items():
        path = folder / name
        if name == STATE and not path.exists():
            continue
        size = path.stat().st_size if path.is_file() else None
        if size != facts.bytes:
            fault = "it is missing" if size is None else f"it has {size} bytes"
            raise DamagedError(path, f"{fault}, and should have {facts.bytes}")
        if sha256(path) != facts.sha256:
            raise DamagedError(path, f"its digest is not the one in {MANIFEST}")
