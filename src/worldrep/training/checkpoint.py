"""Checkpoints: a model and the state of its training in one folder, complete or absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2ForCausalLM

from worldrep.errors import StateError
from worldrep.model.qwen2 import save_model
from worldrep.training.manifest import folder_name, step_of, verify, write_manifest

WEIGHTS = "model.safetensors"
STATE = "training_state.safetensors"


def write_checkpoint(
    parent: Path, step: int, model: Qwen2ForCausalLM, state: dict[str, torch.Tensor]
) -> Path:
    """Write `parent/step-N` under a temporary name and rename it when it is whole."""
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
