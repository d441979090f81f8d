"""Evaluation against `generate` and extraction against `output_hidden_states` of transformers.

Both are what the setting compute=plain does: batches of prompts of equal length, and the batches of
cities of worldrep. With --batches padded they are 512 padded prompts and 64 cities. The model is
trained for a moment first, so that it answers in the form of the tasks and ends its answers; the
texts of both ways must be equal.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from benchmarks.report import Tables, benchmark, in_turns
from benchmarks.training import BLOCK, Ours
from worldrep.data.tokens import PAD, Tokens, decode_rows
from worldrep.errors import check_name
from worldrep.evaluation.representations import Request, extract
from worldrep.evaluation.suites import MAX_NEW_TOKENS, Suite, build_suites, generate_tokens

PLAIN, PADDED = "plain", "padded"  # batches of transformers
PROMPTS, CITIES = 512, 64  # in a padded batch
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
    batches: str = PLAIN,
) -> Tables:
    """Answer test rows and extract representations both ways.

    --rows are of each suite, --worlds lists numbers of cities, --steps are those of the training
    before, --batches (plain or padded) are those of transformers.
    """
    check_name("batches", batches, (PLAIN, PADDED))
    ours = trained(scale, width, steps, test_rows=rows, cities=cities)
    suites = build_suites(ours.maker, ours.settings)
    answered = [answer(ours, suite, rounds, batches) for suite in suites]
    rates = [f"{way}, rows/s" for way in ("generate", "worldrep")]
    whole = {rate: harmonic_mean([row[rate] for row in answered]) for rate in rates}
    whole["ratio"] = whole[rates[1]] / whole[rates[0]]
    answered.append({"suite": "all", "rows": rows * len(suites)} | whole)
    cases = product(worlds, ("default", "all"))
    extracted = [represent(ours, *case, rounds, batches) for case in cases]
    return {"Evaluation:": answered, "Extraction:": extracted}


def trained(scale: str, width: str, steps: int, **overrides: Any) -> Ours:
    """Return a model trained for some steps, in evaluation mode."""
    ours = Ours(scale, width, -(-steps // BLOCK), **TRAINED | overrides)
    for _ in range(ours.blocks):
        ours.take_block()
    ours.training.plain.eval()
    return ours


def answer(ours: Ours, suite: Suite, rounds: int, batches: str) -> dict[str, Any]:
    """Time both ways on the prompts of a suite, and count the texts that differ."""
    model, prompts = ours.training.plain, suite.prompts
    own = partial(generate_tokens, model, prompts, MAX_NEW_TOKENS)
    padded, plain = partial(generate_padded, model, prompts), partial(own, plain=True)
    theirs = padded if batches == PADDED else plain
    rates, texts = both_ways(theirs, own, len(prompts), "generate", "rows", rounds)
    differ = sum(map(str.__ne__, *map(decode_rows, texts)))
    return {"suite": suite.name, "rows": len(prompts)} | rates | {"texts that differ": differ}


def generate_padded(model: Qwen2ForCausalLM, prompts: list[Tokens]) -> Tokens:
    """Answer prompts in the order given, in batches padded on the left to the longest prompt."""
    found = np.full((len(prompts), MAX_NEW_TOKENS), PAD, dtype=np.uint8)
    for start in range(0, len(prompts), PROMPTS):
        batch = prompts[start : start + PROMPTS]
        longest = max(map(len, batch))
        tokens = torch.full((len(batch), longest), PAD)
        for row, prompt in zip(tokens, batch, strict=True):
            row[longest - len(prompt) :] = torch.from_numpy(prompt)
        tokens = tokens.to(model.device)
        options = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False}
        answers = model.generate(tokens, attention_mask=tokens != PAD, **options)[:, longest:]
        found[start : start + len(batch), : answers.shape[1]] = answers.cpu().numpy()
    return found


def represent(ours: Ours, cities: int, layers: str, rounds: int, batches: str) -> dict[str, Any]:
    """Time both ways on the last cities of the world, and compare their numbers."""
    world = replace(ours.maker.world, cities=ours.maker.world.cities.iloc[-cities:])
    own = partial(extract, ours.training.plain, world, Request.parse(ours.settings, layers))
    size = {"batch_cities": CITIES} if batches == PADDED else {}
    ways = partial(own, plain=True, **size), own
    rates, (slow, fast) = both_ways(*ways, len(world.cities), "transformers", "cities", rounds)
    apart = max(float(np.abs(slow[layer] - fast[layer]).max()) for layer in fast)
    return {"cities": len(world.cities), "layers": layers} | rates | {"apart": apart}


def both_ways(
    theirs: Callable[[], Any], own: Callable[[], Any], n: int, name: str, unit: str, rounds: int
) -> tuple[dict[str, float], list[Any]]:
    """Return how much work each way does per second, and both results."""
    in_turns(1, theirs, own)  # not counted
    (slow, fast), results = zip(*in_turns(rounds, theirs, own), strict=True)
    rates = {f"{name}, {unit}/s": n / slow, f"worldrep, {unit}/s": n / fast}
    return rates | {"ratio": slow / fast}, list(results)


if __name__ == "__main__":
    main()
