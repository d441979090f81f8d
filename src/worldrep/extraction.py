"""Hidden states of every city, from one forward pass over one short prompt each."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2ForCausalLM

from worldrep.request import POSITIONS, Request
from worldrep.tasks import TASKS
from worldrep.tokenizer import encode_prompts
from worldrep.world import World

BATCH_CITIES = 1024


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
