"""Evaluation against `generate` and extraction against `output_hidden_states` of transformers.

The model is trained for a moment first, so that it answers in the form of the tasks and ends its
answers; the texts of both ways must be equal.

    python -m benchmarks.inference --scale paper --rows 10000
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Rows, Tables, benchmark, in_turns
from benchmarks.training import BLOCK, Ours
from worldrep.data.tokens import decode_rows, encode_prompts
from worldrep.data.world import world_of
from worldrep.evaluation.representations import POSITIONS, Request, city_prompts, extract
from worldrep.evaluation.suites import MAX_NEW_TOKENS, build_suites, generate_tokens
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.training.state import best_device

CURVE = "standard/perimeter"  # the suite that is measured at several sizes
STATES_BATCH = 64
TRAINED = {"batch_size": 64, "learning_rate": 1e-3, "loss": "answer", "multi_rows": 1}


@benchmark
def main(
    scale: str = "paper",
    width: str = "base",
    rows: int = 2000,
    curve: tuple[int, ...] = (500, 2000, 8000),
    batch: int = 512,
    worlds: tuple[int, ...] = (500, 1500, 5175),
    rounds: int = 2,
    steps: int = 150,
    cities: str = "none",
) -> Tables:
    """Answer test rows and extract representations both ways.

    --rows are of each suite, --curve lists sizes of one suite, --batch is for generate, --worlds
    lists numbers of cities, --steps are those of the training before.
    """
    model, suites = trained(scale, width, max(rows, *curve), steps, cities)
    answered = [answer(model, name, suites[name][:rows], rounds, batch) for name in suites]
    answered.append(total(answered))
    answered += [answer(model, CURVE, suites[CURVE][:size], rounds, batch) for size in curve]
    extracted = [
        represent(scale, width, layers, size, rounds, cities)
        for size in worlds
        for layers in ("default", "all")
    ]
    return {"Evaluation:": answered, "Extraction:": extracted}


def trained(scale: str, width: str, rows: int, steps: int, cities: str) -> tuple[Any, dict]:
    """Return a model trained for some steps, and `rows` prompts of each suite."""
    ours = Ours(scale, width, -(-steps // BLOCK), test_rows=rows, cities=cities, **TRAINED)
    for _ in range(ours.blocks):
        ours.take_block()
    suites = build_suites(ours.maker, ours.settings)
    return ours.training.plain.eval(), {suite.name: suite.prompts for suite in suites}


def answer(model: Any, name: str, prompts: list, rounds: int, batch: int) -> dict[str, Any]:
    """Time both ways on the prompts of a suite, and count the texts that differ."""
    for way in (transformers_tokens, generate_tokens):  # not counted
        way(model, prompts[:batch], MAX_NEW_TOKENS)
    (their_seconds, theirs), (seconds, ours) = in_turns(
        rounds,
        lambda: transformers_tokens(model, prompts, MAX_NEW_TOKENS, batch),
        lambda: generate_tokens(model, prompts, MAX_NEW_TOKENS),
    )
    return {
        "suite": name,
        "rows": len(prompts),
        "generate, rows/s": len(prompts) / their_seconds,
        "worldrep, rows/s": len(prompts) / seconds,
        "ratio": their_seconds / seconds,
        "texts that differ": sum(map(str.__ne__, decode_rows(theirs), decode_rows(ours))),
    }


def total(answered: Rows) -> dict[str, Any]:
    rows = sum(row["rows"] for row in answered)
    theirs, ours = (
        rows / sum(row["rows"] / row[f"{way}, rows/s"] for row in answered)
        for way in ("generate", "worldrep")
    )
    rates = {"generate, rows/s": theirs, "worldrep, rows/s": ours, "ratio": ours / theirs}
    return {"suite": "all", "rows": rows} | rates


def transformers_tokens(
    model: Any, prompts: list, max_new_tokens: int, size: int = 512
) -> NDArray[np.uint8]:
    """Return token rows (n, max_new_tokens) from `generate`."""
    result = np.zeros((len(prompts), max_new_tokens), dtype=np.uint8)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        ids = np.stack([np.pad(prompt, (longest - len(prompt), 0)) for prompt in batch])
        tokens = torch.from_numpy(ids).long().to(model.device)
        mask = (tokens != 0).long()
        found = model.generate(
            tokens, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens
        )
        new = found[:, longest:].cpu().numpy()
        result[start : start + len(batch), : new.shape[1]] = new
    return result


def represent(
    scale: str, width: str, layers: str, cities: int, rounds: int, csv: str = "none"
) -> dict[str, Any]:
    """Time both ways on the last cities of the world, and compare their numbers."""
    settings = resolve(ModelName("pt1", width=width), scale=scale, overrides={"cities": csv})
    world = world_of(settings)
    world = replace(world, cities=world.cities.iloc[-cities:])
    model = build_model(settings).eval().to(best_device())
    request = Request.parse(settings, layers)
    ways = (
        lambda: transformers_states(model, world, request),
        lambda: extract(model, world, request),
    )
    in_turns(1, *ways)  # not counted
    (their_seconds, theirs), (seconds, ours) = in_turns(rounds, *ways)
    return {
        "cities": len(world.cities),
        "layers": layers,
        "transformers, cities/s": len(world.cities) / their_seconds,
        "worldrep, cities/s": len(world.cities) / seconds,
        "ratio": their_seconds / seconds,
        "apart": max(float(np.abs(theirs[layer] - ours[layer]).max()) for layer in ours),
    }


def transformers_states(model: Any, world: Any, request: Request) -> dict[int, Any]:
    """Return representations by layer from the hidden states of the model."""
    prompts = torch.from_numpy(np.stack(encode_prompts(city_prompts(world, request.task))))
    columns = [POSITIONS[name] for name in request.positions]
    parts: dict[int, list[Any]] = {layer: [] for layer in request.layers}
    with torch.inference_mode():
        for batch in prompts.split(STATES_BATCH):
            output = model(input_ids=batch.to(model.device).long(), output_hidden_states=True)
            for layer in request.layers:
                parts[layer].append(output.hidden_states[layer][:, columns].flatten(1).cpu())
    return {layer: torch.cat(rows).numpy() for layer, rows in parts.items()}


if __name__ == "__main__":
    main()
