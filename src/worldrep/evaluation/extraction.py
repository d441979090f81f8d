"""Hidden states of every city, from one forward pass over the prompts that name it."""

from __future__ import annotations

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from worldrep.data.tasks import TASKS
from worldrep.data.tokens import Tokens, encode_prompts
from worldrep.data.world import World
from worldrep.evaluation.representations import POSITIONS, Request, Tables
from worldrep.model.layout import SharedRows, on_device, prefix_order
from worldrep.model.packed import PackedQwen2
from worldrep.model.plain import PlainQwen2

BATCH_CITIES = 1024


def city_prompts(world: World, task: str) -> list[str]:
    """Return for every city the start of a question, up to the delimiter after the city."""
    label, mark = TASKS[task].label, TASKS[task].separators(max(TASKS[task].sizes))[0]
    return [f"{label}(c_{city}{mark}" for city in world.cities["city_id"]]


@torch.inference_mode()
def extract(model: Qwen2ForCausalLM, world: World, request: Request, plain: bool = False) -> Tables:
    """Return representations by layer: float32 arrays (n_cities, positions * hidden size).

    Args:
        model: A model in evaluation mode, on any device.
        world: The cities; rows of the result are in their order.
        request: Layers, prompt and positions. Layers after the last one are not computed.
        plain: Use the forward pass of `transformers`.
    """
    prompts = np.stack(encode_prompts(city_prompts(world, request.task)))
    order = prefix_order(prompts)
    batches = np.array_split(prompts[order], -(-len(prompts) // BATCH_CITIES))
    parts = [_states(model, batch, request, plain) for batch in batches]
    back = order.argsort()
    return {
        layer: np.concatenate([part[layer] for part in parts])[back] for layer in request.layers
    }


def _states(model: Qwen2ForCausalLM, prompts: Tokens, request: Request, plain: bool) -> Tables:
    """Return the requested states of prompts (n, length) by layer."""
    shared = SharedRows.of(prompts)
    tokens = on_device(shared.tokens, model.device).long()
    columns = [POSITIONS[name] for name in request.positions]
    places = on_device(shared.number[shared.order.argsort()][:, columns], model.device)
    passes = (PlainQwen2 if plain else PackedQwen2)(model)
    states = passes.states(tokens, shared.layout(model.device))
    numbered = zip(range(max(request.layers) + 1), states, strict=False)
    return {
        layer: packed[places].flatten(1).float().cpu().numpy()
        for layer, packed in numbered
        if layer in request.layers
    }
