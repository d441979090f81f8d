"""Evaluation against `generate` and extraction against `output_hidden_states` of transformers.

Both are what the setting compute=plain does. The model is trained for a moment first, so that it
answers in the form of the tasks and ends its answers; the texts of both ways must be equal.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import harmonic_mean
from typing import Any

import numpy as np

from benchmarks.report import Tables, benchmark, in_turns
from benchmarks.training import BLOCK, Ours
from worldrep.data.tokens import decode_rows
from worldrep.evaluation.representations import Request, extract
from worldrep.evaluation.suites import MAX_NEW_TOKENS, Suite, build_suites, generate_tokens

TRAINED = {"batch_size": 64, "learning_rate": 1e-3, "loss": "answer", "multi_rows": 1}


@benchmark
def main(
    scale: str = "paper",
    width: str = "base",
    rows: int = 2000,
    worlds: tuple[int, ...] = (500, 1500, 5175),
    rounds: int = 2,
    steps: int = 150,
    cities: str = "none",
) -> Tables:
    """Answer test rows and extract representations both ways.

    --rows are of each suite, --worlds lists numbers of cities, --steps are those of the training
    before.
    """
    ours = trained(scale, width, steps, test_rows=rows, cities=cities)
    suites = build_suites(ours.maker, ours.settings)
    answered = [answer(ours, suite, rounds) for suite in suites]
    rates = [f"{way}, rows/s" for way in ("generate", "worldrep")]
    whole = {rate: harmonic_mean([row[rate] for row in answered]) for rate in rates}
    whole["ratio"] = whole[rates[1]] / whole[rates[0]]
    answered.append({"suite": "all", "rows": rows * len(suites)} | whole)
    cases = product(worlds, ("default", "all"))
    return {"Evaluation:": answered, "Extraction:": [represent(ours, *c, rounds) for c in cases]}


def trained(scale: str, width: str, steps: int, **overrides: Any) -> Ours:
    """Return a model trained for some steps, in evaluation mode."""
    ours = Ours(scale, width, -(-steps // BLOCK), **TRAINED | overrides)
    for _ in range(ours.blocks):
        ours.take_block()
    ours.training.plain.eval()
    return ours


def answer(ours: Ours, suite: Suite, rounds: int) -> dict[str, Any]:
    """Time both ways on the prompts of a suite, and count the texts that differ."""
    prompts = suite.prompts
    work = partial(generate_tokens, ours.training.plain, prompts, MAX_NEW_TOKENS)
    rates, texts = both_ways(work, len(prompts), "generate", "rows", rounds)
    differ = sum(map(str.__ne__, *map(decode_rows, texts)))
    return {"suite": suite.name, "rows": len(prompts)} | rates | {"texts that differ": differ}


def represent(ours: Ours, cities: int, layers: str, rounds: int) -> dict[str, Any]:
    """Time both ways on the last cities of the world, and compare their numbers."""
    world = replace(ours.maker.world, cities=ours.maker.world.cities.iloc[-cities:])
    work = partial(extract, ours.training.plain, world, Request.parse(ours.settings, layers))
    rates, (theirs, own) = both_ways(work, len(world.cities), "transformers", "cities", rounds)
    apart = max(float(np.abs(theirs[layer] - own[layer]).max()) for layer in own)
    return {"cities": len(world.cities), "layers": layers} | rates | {"apart": apart}


def both_ways(
    work: Callable[..., Any], n: int, theirs: str, unit: str, rounds: int
) -> tuple[dict[str, float], list[Any]]:
    """Return how much work is done per second, plainly and packed, and both results."""
    ways = partial(work, plain=True), partial(work, plain=False)
    in_turns(1, *ways)  # not counted
    (plain, packed), results = zip(*in_turns(rounds, *ways), strict=True)
    rates = {f"{theirs}, {unit}/s": n / plain, f"worldrep, {unit}/s": n / packed}
    return rates | {"ratio": plain / packed}, list(results)


if __name__ == "__main__":
    main()
