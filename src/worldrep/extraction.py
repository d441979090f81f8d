"""Hidden states of every city, from one forward pass over one short prompt each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import Qwen2ForCausalLM

from worldrep.request import POSITIONS, Request
from worldrep.tasks import TASKS
from worldrep.tokenizer import encode_prompts
from worldrep.world import World

BATCH_CITIES = 1024
TENSORS, MANIFEST = "representations.safetensors", "manifest.json"


def city_prompts(world: World, task: str) -> list[str]:
    """The start of a question up to the delimiter behind its first city, for every city."""
    label, mark = TASKS[task].label, TASKS[task].separators(max(TASKS[task].sizes))[0]
    return [f"{label}(c_{city}{mark}" for city in world.cities["city_id"]]


@torch.inference_mode()
def extract(
    model: Qwen2ForCausalLM, world: World, request: Request
) -> dict[int, NDArray[np.float32]]:
    """Representations by layer: (n_cities, positions * hidden size) float32, in World's order."""
    prompts = torch.from_numpy(np.stack(encode_prompts(city_prompts(world, request.task))))
    columns = [POSITIONS[name] for name in request.positions]
    parts: dict[int, list[torch.Tensor]] = {layer: [] for layer in request.layers}
    for batch in prompts.split(BATCH_CITIES):
        tokens = batch.to(model.device, torch.long)
        states = model.model(input_ids=tokens, output_hidden_states=True, use_cache=False)
        for layer in request.layers:
            taken = states.hidden_states[layer][:, columns]
            parts[layer].append(taken.flatten(1).float().cpu())
    return {layer: torch.cat(rows).numpy() for layer, rows in parts.items()}


def save_representations(
    folder: Path, tables: dict[int, NDArray[np.float32]], manifest: dict[str, Any]
) -> None:
    """Write the tables as safetensors under `layer_N`, with a manifest beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"layer_{layer}": table for layer, table in tables.items()}, folder / TENSORS)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def load_representations(
    folder: Path,
) -> tuple[dict[int, NDArray[np.float32]], dict[str, Any]]:
    """What `save_representations` wrote: tables by layer, and the manifest."""
    tables = load_file(folder / TENSORS)
    named = {int(name.removeprefix("layer_")): table for name, table in tables.items()}
    return named, json.loads((folder / MANIFEST).read_text())
