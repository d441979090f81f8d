"""Suites of test questions: the greedy answers of a model, and their scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import load_rows, suite_sets
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import EOS, EQUALS, PAD, Tokens, decode_rows, encode_prompts
from worldrep.digests import random_stream
from worldrep.model.packed import (
    KeyValueCache,
    Layout,
    PackedQwen2,
    SharedRows,
    on_device,
    prefix_order,
)
from worldrep.progress import Counter
from worldrep.settings import Settings

VAL = "val/"  # prefix of the metrics of validations during training
VALIDATED_FACTS = ("mean", "valid_ratio")
MAX_NEW_TOKENS = max(task.longest for task in TASKS.values()) + 1  # the longest answer and <eos>
CPU_ROWS = 256  # rows whose keys and values fit the cache of a CPU
CACHE_BYTES = 2**31  # most bytes of keys and values on another device


def generate(model: Qwen2ForCausalLM, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Return the greedy continuation of each prompt, up to <eos> or `max_new_tokens` tokens.

    Special tokens other than <eos> appear in the text by their names.

    Raises:
        ValueError: A prompt and its continuation are longer than the model's positions.
    """
    return decode_rows(generate_tokens(model, encode_prompts(prompts), max_new_tokens))


def generate_tokens(
    model: Qwen2ForCausalLM,
    prompts: Sequence[Tokens],
    max_new_tokens: int,
    plain: bool = False,
    counter: Counter | None = None,
) -> Tokens:
    """Return token rows (n, max_new_tokens) that follow each prompt: text, <eos>, then <pad>.

    Prompts of equal length are decoded together, without padding, and sorted, so that neighbours
    share a prefix. plain: use the forward pass of `transformers`; counter: of the prompts.
    """
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    limit = model.config.max_position_embeddings
    if len(prompts) and lengths.max() + max_new_tokens > limit:
        raise ValueError(f"prompt and answer take more than the model's {limit} positions")
    decode = _decode_plainly if plain else _decode_packed
    # Bytes of the keys and values of one column of a row; all heads together are D wide.
    column = 2 * model.config.num_hidden_layers * model.config.hidden_size * model.dtype.itemsize
    result = np.full((len(prompts), max_new_tokens), PAD, dtype=np.uint8)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        rows = np.stack([prompts[i] for i in members.tolist()])
        order = prefix_order(rows)
        fitting = CACHE_BYTES // (column * (int(length) + max_new_tokens))
        size = CPU_ROWS if model.device.type == "cpu" else max(CPU_ROWS, fitting)
        for start in range(0, len(members), size):
            batch = order[start : start + size]
            result[members[batch]] = decode(model, rows[batch], max_new_tokens)
            if counter:
                counter.add(len(batch))
    return result


@torch.inference_mode()
def _decode_packed(model: Qwen2ForCausalLM, prompts: Tokens, max_new_tokens: int) -> Tokens:
    """Return greedy continuations (n, max_new_tokens) of prompts (n, length) of one length."""
    (n, length), device = prompts.shape, model.device
    shared = SharedRows.of(prompts)
    packed, cache = PackedQwen2(model), KeyValueCache(model, n, length + max_new_tokens - 1)
    tokens = on_device(shared.tokens, device).long()
    ends = on_device(shared.number[:, -1], device)
    logits = packed(tokens, shared.layout(device), ends, cache)
    produced = torch.full((n, max_new_tokens), PAD, device=device)
    rows = torch.arange(n, device=device)  # those that have not ended
    for place in range(max_new_tokens):
        chosen = logits.argmax(dim=-1)
        produced[rows, place] = chosen
        going = (chosen != EOS).nonzero()[:, 0]
        if place == max_new_tokens - 1 or not len(going):
            break
        if len(going) < len(rows):
            rows, chosen = rows[going], chosen[going]
            cache.keep(going)
        logits = packed(chosen, Layout.column(len(rows), device), cache=cache)
    return produced.to(torch.uint8).cpu().numpy()[shared.order.argsort()]


def _decode_plainly(model: Qwen2ForCausalLM, prompts: Tokens, max_new_tokens: int) -> Tokens:
    """Return the same by `transformers`."""
    tokens = torch.from_numpy(prompts).to(model.device, torch.long)
    options = {"max_new_tokens": max_new_tokens, "do_sample": False}
    produced = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    found = np.full((len(prompts), max_new_tokens), PAD, dtype=np.uint8)
    new = produced[:, tokens.shape[1] :].cpu().numpy()
    found[:, : new.shape[1]] = new
    return found


@dataclass(frozen=True)
class Suite:
    """Questions of one task, from <bos> to the equals sign, and their expected answers."""

    name: str  # such as `atlantis/angle`
    prompts: list[Tokens]
    expected: list[str]

    @property
    def task(self) -> str:
        return self.name.rsplit("/", 1)[-1]


def suite_of(name: str, rows: Tokens) -> Suite:
    """Split token rows (n, length) after the equals sign into prompts and expected answers."""
    split = list(zip(rows, (rows == EQUALS).argmax(axis=1) + 1, strict=True))
    answers = decode_rows(row[end:] for row, end in split)
    return Suite(name, [row[:end] for row, end in split], answers)


def build_suites(maker: RowMaker, settings: Settings) -> list[Suite]:
    """Return the 14 suites `standard/<task>` and `atlantis/<task>`, in order."""
    return [suite_of(name, load_rows(maker, rows)) for name, rows in suite_sets(settings).items()]


def evaluate(
    model: Qwen2ForCausalLM, maker: RowMaker, settings: Settings, counter: Counter | None = None
) -> tuple[dict[str, float], pd.DataFrame]:
    """Evaluate a model in all 21 suites `standard/`, `atlantis/` and `multi/<task>`.

    Args:
        model: A model in evaluation mode, on any device.
        maker: The row maker of the model's world.
        settings: Sizes of the suites, and the forward pass to use.
        counter: Counts the questions that are answered.

    Returns:
        The metrics, as `summarize` names them, and the answers, as `answer_suites` returns them.
    """
    suites, plain = build_suites(maker, settings), settings.is_plain
    answers = answer_suites(model, suites, plain=plain, counter=counter)
    answers = pd.concat([answers, multi_rows(answers, settings)], ignore_index=True)
    return summarize(answers), answers


def validation_metrics(
    model: Qwen2ForCausalLM, suites: Iterable[Suite], plain: bool = False
) -> dict[str, float]:
    """Return `val/<suite>/mean` and `val/<suite>/valid_ratio` of suites of validation rows."""
    metrics = summarize(answer_suites(model, suites, plain=plain))
    return {f"{VAL}{k}": v for k, v in metrics.items() if k.rpartition("/")[2] in VALIDATED_FACTS}


def answer_suites(
    model: Qwen2ForCausalLM,
    suites: Iterable[Suite],
    plain: bool = False,
    counter: Counter | None = None,
) -> pd.DataFrame:
    """Return one row per question: suite, task, prompt, expected, generated, score, valid."""
    suites = list(suites)
    prompts = [prompt for suite in suites for prompt in suite.prompts]
    generated = decode_rows(generate_tokens(model, prompts, MAX_NEW_TOKENS, plain, counter))
    tables, remaining = [], iter(generated)
    for suite in suites:
        task, texts = TASKS[suite.task], list(islice(remaining, len(suite.prompts)))
        table = {
            "suite": suite.name,
            "task": suite.task,
            "prompt": decode_rows(prompt[1:] for prompt in suite.prompts),
            "expected": suite.expected,
            "generated": texts,
            "score": task.scores(suite.expected, texts),
            "valid": task.valid(texts),
        }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def multi_rows(answers: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return a fixed sample of all standard answers, as the suites `multi/<task>`."""
    union = answers[answers["suite"].str.startswith("standard/")]
    rng = random_stream(settings.world_seed, "multi")
    chosen = union.iloc[np.sort(rng.permutation(len(union))[: settings.multi_rows])]
    return chosen.assign(suite="multi/" + chosen["task"])


def summarize(answers: pd.DataFrame) -> dict[str, float]:
    """Return `<suite>/mean|median|std|min|max|n|valid_ratio` of every suite (std with ddof=0)."""
    metrics: dict[str, float] = {}
    for name, part in answers.groupby("suite", sort=False):
        scores = part["score"].to_numpy()
        facts = {
            fact: getattr(np, fact)(scores) for fact in ("mean", "median", "std", "min", "max")
        }
        facts |= {"n": len(scores), "valid_ratio": part["valid"].mean()}
        metrics |= {f"{name}/{fact}": float(value) for fact, value in facts.items()}
    return metrics
