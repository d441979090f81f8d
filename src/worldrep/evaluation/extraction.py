"""Hidden states of every city, from one forward pass over the beginnings of their questions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2ForCausalLM

from worldrep.data.encoding import Tokens
from worldrep.data.tasks import TASKS
from worldrep.data.tokenizer import encode_prompts
from worldrep.data.world import World
from worldrep.evaluation.request import POSITIONS, Request
from worldrep.model.layout import SharedRows, on_device, sorting
from worldrep.model.packed import PackedQwen2
from worldrep.model.plain import PlainQwen2

BATCH_CITIES = 1024


def city_prompts(world: World, task: str) -> list[str]:
    """The start of a question up to the delimiter behind its first city, for every city."""
    label, mark = TASKS[task].label, TASKS[task].separators(max(TASKS[task].sizes))[0]
    return [f"{label}(c_{city}{mark}" for city in world.cities["city_id"]]


@torch.inference_mode()
def extract(
    model: Qwen2ForCausalLM, world: World, request: Request, plain: bool = False
) -> dict[int, NDArray[np.float32]]:
    """Representations by layer: (n_cities, positions * hidden size) float32, in World's order.

    Cities share what their prompts begin with, and layers above the last one asked for are left
    out. plain: by the `transformers` forward pass.
    """
    prompts = np.stack(encode_prompts(city_prompts(world, request.task)))
    order = sorting(prompts)
    batches = np.array_split(prompts[order], -(-len(prompts) // BATCH_CITIES))
    parts = [_states(model, batch, request, plain) for batch in batches]
    back = order.argsort()
    return {
        layer: np.concatenate([part[layer] for part in parts])[back] for layer in request.layers
    }


def _states(
    model: Qwen2ForCausalLM, prompts: Tokens, request: Request, plain: bool
) -> dict[int, NDArray[np.float32]]:
    """What is asked for of prompts (n, length), by layer."""
    shared = SharedRows.of(prompts)
    tokens = on_device(shared.tokens, model.device).long()
    columns = [POSITIONS[name] for name in request.positions]
    places = on_device(shared.number[shared.order.argsort()][:, columns], model.device)
    states = (PlainQwen2 if plain else PackedQwen2)(model).states(
        tokens, shared.layout(model.device)
    )
    numbered = zip(range(max(request.layers) + 1), states, strict=False)  # and no layer above
    return {
        layer: packed[places].flatten(1).float().cpu().numpy()
        for layer, packed in numbered
        if layer in request.layers
    }
