"""Representations of cities: taken from hidden states, stored in files, read by a linear probe.

Importing this module does not load torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from worldrep.data.tasks import TASKS
from worldrep.data.tokens import Tokens, encode_prompts
from worldrep.data.world import World
from worldrep.digests import random_stream
from worldrep.disk import sha256
from worldrep.errors import InputError, check_name
from worldrep.settings import Settings, parse_names
from worldrep.stored import DamagedError, RepresentationsManifest, read_json, tensor_facts

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

POSITIONS = {"last_digit": -2, "delimiter": -1}  # columns of the prompt `<bos>dist(c_0865,`
DEFAULT_LAYER = 5
REPRESENTATIONS = "representations"  # artifact folder
TENSORS, MANIFEST = "representations.safetensors", "manifest.json"
BATCH_CITIES = 1024
TRAIN_CITIES, BASELINE_CITIES = 4000, 100  # of the probe
SMALL_WORLD_SHARE = 0.8  # of world cities, for training the probe in a smaller world

Tables = dict[int, NDArray[np.float32]]  # layer -> (n_cities, positions * hidden size)


@dataclass(frozen=True)
class Request:
    """What to take from the hidden states."""

    layers: tuple[int, ...]  # indices of hidden states; 0 is the embeddings
    task: str  # whose prompt is used
    positions: tuple[str, ...] = tuple(POSITIONS)  # in the prompt

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def parse(
        settings: Settings, layers: str = "default", task: str = "default",
        positions: str = "default",
    ) -> Request:  # fmt: skip
        """Return the request for a model from what the user typed, or raise InputError.

        The default is layer 5 (the last but one of a model with fewer layers), the first task that
        the model was trained on, and both positions. layers may be `0,5` or `all`.
        """
        deepest = settings.n_layers
        known = {str(layer): layer for layer in range(deepest + 1)}
        default = str(min(DEFAULT_LAYER, max(0, deepest - 1)))
        chosen = {"default": [default], "all": list(known)}.get(layers, parse_names(layers))
        for text in chosen:
            if text not in known:
                allowed = f"0 to {deepest}, or all"
                raise InputError(f"layer {text!r} is not one of the model's: {allowed}")
        task = settings.tasks[0] if task == "default" else task
        names = list(POSITIONS) if positions == "default" else parse_names(positions)
        check_name("task", task, TASKS)
        for name in names:
            check_name("position", name, POSITIONS)
        numbers = tuple(known[text] for text in chosen)
        return Request(numbers, task, tuple(names))


def city_prompts(world: World, task: str) -> list[str]:
    """Return for every city the start of a question, up to the delimiter after the city."""
    label, mark = TASKS[task].label, TASKS[task].separators(max(TASKS[task].sizes))[0]
    return [f"{label}(c_{city}{mark}" for city in world.cities["city_id"]]


def extract(
    model: Qwen2ForCausalLM,
    world: World,
    request: Request,
    plain: bool = False,
    batch_cities: int = BATCH_CITIES,
) -> Tables:
    """Return representations by layer: float32 arrays (n_cities, positions * hidden size).

    Args:
        model: A model in evaluation mode, on any device.
        world: The cities; rows of the result are in their order.
        request: Layers, prompt and positions. Layers after the last one are not computed.
        plain: Use the forward pass of `transformers`.
        batch_cities: How many cities are computed together, at most.

    Raises:
        InputError: The model has fewer layers than the request names.
    """
    from worldrep.model.packed import prefix_order

    deepest = model.config.num_hidden_layers
    for layer in request.layers:
        if not 0 <= layer <= deepest:
            raise InputError(f"layer {layer} is not one of the model's: 0 to {deepest}")
    prompts = np.stack(encode_prompts(city_prompts(world, request.task)))
    order = prefix_order(prompts)
    batches = np.array_split(prompts[order], -(-len(prompts) // batch_cities))
    parts = [_states(model, batch, request, plain) for batch in batches]
    back = order.argsort()
    return {i: np.concatenate([part[i] for part in parts])[back] for i in request.layers}


def _states(model: Qwen2ForCausalLM, prompts: Tokens, request: Request, plain: bool) -> Tables:
    import torch

    from worldrep.model.packed import PackedQwen2, PlainQwen2, SharedRows, on_device

    shared = SharedRows.of(prompts)
    tokens = on_device(shared.tokens, model.device).long()
    columns = [POSITIONS[name] for name in request.positions]
    places = on_device(shared.number[shared.order.argsort()][:, columns], model.device)
    passes = (PlainQwen2 if plain else PackedQwen2)(model)
    with torch.inference_mode():
        states = passes.states(tokens, shared.layout(model.device))
        taken = list(islice(states, max(request.layers) + 1))
        return {i: taken[i][places].flatten(1).float().cpu().numpy() for i in request.layers}


def save_representations(folder: Path, tables: Tables, manifest: Mapping[str, Any]) -> None:
    """Write tables to a safetensors file, under the names `layer_N`, and a manifest beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save({f"layer_{layer}": table for layer, table in tables.items()})
    (folder / TENSORS).write_bytes(tensors)
    content = {**manifest, "sha256": sha256(folder / TENSORS)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_representations(folder: Path) -> tuple[Tables, dict[str, Any]]:
    """Return the tables by layer and the manifest that `save_representations` wrote.

    Raises DamagedError if a file is missing or damaged, or the two do not agree.
    """
    manifest, path = read_json(folder / MANIFEST, RepresentationsManifest), folder / TENSORS
    layers = {}
    for name, (kind, shape) in tensor_facts(path).items():
        layer = re.fullmatch("layer_([0-9]{1,4})", name)
        if not layer or kind != "F32" or len(shape) != 2:
            raise DamagedError(path, f"{name!r} is not a float32 table of a layer")
        layers[name] = int(layer[1])
    if manifest.layers is not None and sorted(manifest.layers) != sorted(layers.values()):
        raise DamagedError(path, f"it does not have the layers that {MANIFEST} names")
    if manifest.sha256 not in (None, sha256(path)):
        raise DamagedError(path, f"its digest is not the one in {MANIFEST}")
    return {layers[name]: table for name, table in load_file(path).items()}, manifest.model_dump()


@dataclass(frozen=True)
class ProbeResult:
    """Predicted positions of all n cities, their errors, and masks (n,) of three kinds of them."""

    predicted: NDArray[np.float64]  # (n, 2) positions x, y in 0.1 degree
    errors: NDArray[np.float64]  # (n,) Euclidean distances to the true positions, in 0.1 degree
    trained: NDArray[np.bool_]  # the probe was fitted on these cities
    baseline: NDArray[np.bool_]  # world cities that were held out
    atlantis: NDArray[np.bool_]  # all of them are held out

    def summary(self) -> dict[str, float]:
        """Return the mean errors of `train`, `world` (held out) and `atlantis`, if they exist."""
        parts = {"train": self.trained, "world": self.baseline, "atlantis": self.atlantis}
        return {name: float(self.errors[mask].mean()) for name, mask in parts.items() if mask.any()}


def probe_positions(representations: NDArray[np.float32], world: World) -> ProbeResult:
    """Fit least squares from representations (n, d) to x and y, on world cities only.

    4,000 world cities are fitted and 100 held out; in a smaller world 80% are fitted and the rest
    held out. With more features than cities, the solution of least norm is taken.
    """
    atlantis = world.is_atlantis
    cities = np.flatnonzero(~atlantis)
    order = random_stream(0, "probe", len(cities)).permutation(cities)
    large = len(cities) >= TRAIN_CITIES + BASELINE_CITIES
    fitted = TRAIN_CITIES if large else round(SMALL_WORLD_SHARE * len(cities))
    held_out = BASELINE_CITIES if large else len(cities) - fitted
    parts = np.split(order, [fitted, fitted + held_out])[:2]
    trained, baseline = (np.isin(np.arange(len(atlantis)), part) for part in parts)
    features = np.asarray(representations, dtype=np.float64)
    centre = features[trained].mean(axis=0)
    target = world.positions.astype(np.float64)
    middle = target[trained].mean(axis=0)
    weights = np.linalg.lstsq(features[trained] - centre, target[trained] - middle, rcond=None)[0]
    predicted = (features - centre) @ weights + middle
    errors = np.linalg.norm(predicted - target, axis=1)
    return ProbeResult(predicted, errors, trained, baseline, atlantis)
