"""Extraction against `output_hidden_states=True` in batches of 64: cities per second, alternating.

python -m benchmarks.extraction --width wide
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import click
import numpy as np

from benchmarks.report import Table, ratio, write
from benchmarks.rows import sample
from benchmarks.turns import in_turns
from worldrep.errors import one_sentence

BATCH = 64
SIZES = 500, 1500, 5175  # cities of the cost curve; the last are all of paper


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of model and world.")
@click.option("--width", default="base", show_default=True, help="Width of the model.")
@click.option("--rounds", default=3, show_default=True, help="Times that each side extracts.")
@click.option("--cities", "csv", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(scale: str, width: str, rounds: int, csv: str, out: str) -> None:
    """Extract all cities' representations both ways, at several sizes of the world."""
    cases = [
        measure(scale, width, layers, cities, rounds, csv)
        for cities in SIZES
        for layers in ("default", "all")
    ]
    header = "cities", "layers", "transformers, cities/s", "worldrep, cities/s", "ratio", "apart"
    rows = [
        (
            case["cities"],
            case["layers"],
            case["cities"] / case["transformers_seconds"],
            case["cities"] / case["seconds"],
            ratio(case["transformers_seconds"] / case["seconds"]),
            f"{case['apart']:.1e}",
        )
        for case in cases
    ]
    write("extraction", {"scale": scale, "width": width, "cases": cases}, Table(header, rows), out)


def measure(
    scale: str, width: str, layers: str, cities: int, rounds: int, csv: str = "none"
) -> dict[str, Any]:
    """Median seconds of both ways for the same world, and how far their tables are apart."""
    from worldrep.evaluation.extraction import extract
    from worldrep.evaluation.representations import Request
    from worldrep.model.qwen2 import build_model
    from worldrep.training.device import best_device

    found = sample(scale, width, 100, cities=csv)
    world = found.maker.world
    world = (
        replace(world, cities=world.cities.iloc[-cities:]) if cities < len(world.cities) else world
    )
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


def transformers_states(model: Any, world: Any, request: Any) -> dict[int, Any]:
    """Representations by layer from the model's own hidden states."""
    import torch

    from worldrep.data.tokens import encode_prompts
    from worldrep.evaluation.extraction import city_prompts
    from worldrep.evaluation.representations import POSITIONS

    prompts = torch.from_numpy(np.stack(encode_prompts(city_prompts(world, request.task))))
    columns = [POSITIONS[name] for name in request.positions]
    parts: dict[int, list[Any]] = {layer: [] for layer in request.layers}
    with torch.inference_mode():
        for batch in prompts.split(BATCH):
            output = model(input_ids=batch.to(model.device).long(), output_hidden_states=True)
            for layer in request.layers:
                parts[layer].append(output.hidden_states[layer][:, columns].flatten(1).cpu())
    return {layer: torch.cat(rows).numpy() for layer, rows in parts.items()}


if __name__ == "__main__":
    main()
