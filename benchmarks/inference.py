"""Evaluation against `generate` and extraction against `output_hidden_states` of transformers.

Both ways alternate. `generate` decodes greedily in batches of one suite, padded on the left. The
model is trained for a moment first, so that it answers in the form of the tasks and ends its
answers; the texts of both must be equal.

    python -m benchmarks.inference --scale paper --rows 10000
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Results, benchmark, table
from benchmarks.timing import Ours, in_turns, sample
from worldrep.data.tokens import decode_rows, encode_prompts
from worldrep.evaluation.representations import POSITIONS, Request, city_prompts, extract
from worldrep.evaluation.suites import MAX_NEW_TOKENS, build_suites, generate_tokens
from worldrep.model.qwen2 import build_model
from worldrep.training.state import best_device

CURVE = "standard/perimeter"  # the suite that is measured at several sizes
STATES_BATCH = 64
TRAINED = {"batch_size": 64, "learning_rate": 1e-3, "epochs": 1, "loss": "answer"}
EVALUATION = {
    "suite": "suite",
    "rows": "rows",
    "generate, rows/s": lambda case: case["rows"] / case["generate_seconds"],
    "worldrep, rows/s": lambda case: case["rows"] / case["seconds"],
    "ratio": lambda case: case["generate_seconds"] / case["seconds"],
    "texts that differ": "differing",
}
EXTRACTION = {
    "cities": "cities",
    "layers": "layers",
    "transformers, cities/s": lambda case: case["cities"] / case["transformers_seconds"],
    "worldrep, cities/s": lambda case: case["cities"] / case["seconds"],
    "ratio": lambda case: case["transformers_seconds"] / case["seconds"],
    "apart": "apart",
}


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
) -> Results:
    """Answer test rows and extract representations both ways.

    --rows are of each suite, --curve lists sizes of one suite, --batch is for generate, --worlds
    lists numbers of cities, --steps are those of the training before.
    """
    model, suites = trained(scale, width, max(rows, *curve), steps, cities)
    answered = [answer(model, name, suite[:rows], rounds, batch) for name, suite in suites.items()]
    whole = {key: sum(c[key] for c in answered) for key in answered[0] if key != "suite"}
    curves = [answer(model, CURVE, suites[CURVE][:size], rounds, batch) for size in curve]
    answered += [{"suite": "all", **whole}, *curves]
    extracted = [
        represent(scale, width, layers, size, rounds, cities)
        for size in worlds
        for layers in ("default", "all")
    ]
    tables = [
        table(answered, EVALUATION, "Evaluation:"),
        table(extracted, EXTRACTION, "Extraction:"),
    ]
    return {"evaluation": answered, "extraction": extracted}, tables


def trained(scale: str, width: str, rows: int, steps: int, cities: str) -> tuple[Any, dict]:
    """Return a model trained for `steps` steps, and prompts by suite."""
    found = sample(scale, width, steps, test_rows=rows, multi_rows=1, cities=cities, **TRAINED)
    ours = Ours(found)
    for _ in range(steps):
        ours.steps.take()
    ours.steps.read()
    suites = build_suites(found.maker, found.settings)
    return ours.training.plain.eval(), {suite.name: suite.prompts for suite in suites}


def answer(model: Any, name: str, prompts: list, rounds: int, batch: int) -> dict[str, Any]:
    """Return the median seconds of both ways, and how many texts differ."""
    ways: dict[str, Callable[[list], Any]] = {
        "generate_seconds": lambda rows: transformers_tokens(model, rows, MAX_NEW_TOKENS, batch),
        "seconds": lambda rows: generate_tokens(model, rows, MAX_NEW_TOKENS),
    }
    in_turns({way: partial(work, prompts[:batch]) for way, work in ways.items()}, rounds=1)
    seconds, tokens = in_turns({way: partial(work, prompts) for way, work in ways.items()}, rounds)
    differing = sum(a != b for a, b in zip(*map(decode_rows, tokens.values()), strict=True))
    return {"suite": name, "rows": len(prompts), "differing": differing, **seconds}


def transformers_tokens(
    model: Any, prompts: list, max_new_tokens: int, size: int
) -> NDArray[np.uint8]:
    """Return token rows (n, max_new_tokens) from `generate`."""
    result = np.zeros((len(prompts), max_new_tokens), dtype=np.uint8)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        for row, prompt in zip(ids, batch, strict=True):
            row[longest - len(prompt) :] = prompt
        tokens = torch.from_numpy(ids).to(model.device)
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
    """Return the median seconds of both ways, and the largest difference of their numbers."""
    found = sample(scale, width, 1, cities=csv)
    world = found.maker.world
    if cities < len(world.cities):
        world = replace(world, cities=world.cities.iloc[-cities:])
    model = build_model(found.settings).eval().to(best_device())
    request = Request.parse(found.settings, layers, "default", "default")
    ways = {
        "transformers_seconds": partial(transformers_states, model, world, request),
        "seconds": partial(extract, model, world, request),
    }
    in_turns(ways, rounds=1)  # not counted
    medians, tables = in_turns(ways, rounds)
    theirs, ours = tables.values()
    apart = max(float(np.abs(theirs[layer] - ours[layer]).max()) for layer in request.layers)
    return {"cities": len(world.cities), "layers": layers, "apart": apart, **medians}


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
