"""One training step on packed rows against the plain step on padded rows, alternating.

Both take the same rows, model size and optimizer; the plain step calls the `transformers` model on
rows padded to the longest of the batch.
"""

from __future__ import annotations

import json
import statistics
import time

import click

from worldrep.names import ModelName

STEPS, WARM_UP = 30, 3


@click.command()
@click.option("--scale", default="mini", show_default=True, help="Scale of model and rows.")
@click.option("--loss", default="full", show_default=True, help="Tokens that the loss covers.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(scale: str, loss: str, out: str) -> None:
    """Time training steps both ways on the same rows."""
    numbers = measure(scale, loss)
    ratio = numbers["plain_tokens_per_second"], numbers["packed_tokens_per_second"]
    print(f"{scale}, {loss} loss, median of {STEPS} steps of the same rows, real tokens a second:")
    print(f"plain {ratio[0]:,.0f}, packed {ratio[1]:,.0f}, ratio {ratio[1] / ratio[0]:.2f}")
    if out:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)


def measure(scale: str, loss: str) -> dict:
    """Median real tokens per second of both kinds of step."""
    import torch
    from torch.nn.functional import cross_entropy

    from worldrep.data import load_rows, pad_together, training_sets
    from worldrep.feed import RowFeed
    from worldrep.model import build_model
    from worldrep.optimizer import build_optimizer
    from worldrep.rows import RowMaker
    from worldrep.scales import resolve
    from worldrep.tokenizer import EQUALS
    from worldrep.training import Training, make_accelerator, train_step
    from worldrep.world import world_of

    settings = resolve(ModelName("pt1"), scale=scale, overrides={"loss": loss})
    maker = RowMaker(world_of(settings), settings)
    sets = training_sets(settings, maker.world)
    rows = pad_together([load_rows(maker, rowset)[:20_000] for rowset in sets])
    accelerator = make_accelerator(settings)
    feed = RowFeed(rows, settings, accelerator.device)
    training = Training(build_model(settings), settings, accelerator)
    plain = build_model(settings).to(accelerator.device)
    optimizer = build_optimizer(plain, settings)

    def plain_step(batch) -> None:
        tokens = torch.from_numpy(rows[batch]).to(accelerator.device).long()
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        targets = tokens[:, 1:].masked_fill(tokens[:, 1:] == 0, -100)
        if loss == "answer":
            equals = (tokens == EQUALS).int().argmax(dim=1, keepdim=True)
            before = torch.arange(targets.shape[1], device=tokens.device) < equals
            targets = targets.masked_fill(before, -100)
        logits = plain(input_ids=tokens[:, :-1], use_cache=False).logits
        cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    rates: dict[str, list[float]] = {"plain": [], "packed": []}
    steps = {"plain": plain_step, "packed": lambda batch: train_step(training, feed, batch)}
    for step in range(WARM_UP + STEPS):
        batch = feed.batch(step)
        for kind, take in steps.items():
            started = time.perf_counter()
            take(batch)
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            rates[kind].append(feed.token_count(batch) / (time.perf_counter() - started))
    medians = {kind: statistics.median(found[WARM_UP:]) for kind, found in rates.items()}
    return {"scale": scale, "loss": loss} | {
        f"{kind}_tokens_per_second": rate for kind, rate in medians.items()
    }


if __name__ == "__main__":
    main()
