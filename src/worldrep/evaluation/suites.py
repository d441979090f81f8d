"""Evaluation of a model in suites of test questions: from a model and rows to numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import load_rows, suite_sets
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import EQUALS, Tokens, decode_rows
from worldrep.digests import random_stream
from worldrep.evaluation.generation import generate_tokens
from worldrep.settings import Settings

VAL = "val/"  # prefix of the metrics of validations during training
VALIDATED_FACTS = ("mean", "valid_ratio")
MAX_NEW_TOKENS = max(task.longest for task in TASKS.values()) + 1  # the longest answer and <eos>


@dataclass(frozen=True)
class Suite:
    """Questions of one task.

    Attributes:
        name: Such as `atlantis/angle`.
        prompts: Token ids of each question, from <bos> to the equals sign.
        expected: The answers.
    """

    name: str
    prompts: list[Tokens]
    expected: list[str]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.name.rsplit("/", 1)[-1]


def suite_of(name: str, rows: Tokens) -> Suite:
    """Split token rows (n, length) after the equals sign into prompts and expected answers."""
    ends = (rows == EQUALS).argmax(axis=1) + 1
    prompts = [row[:end] for row, end in zip(rows, ends, strict=True)]
    answers = [row[end:] for row, end in zip(rows, ends, strict=True)]
    return Suite(name, prompts, decode_rows(answers))


def build_suites(maker: RowMaker, settings: Settings) -> list[Suite]:
    """Return the 14 suites `standard/<task>` and `atlantis/<task>`, in order."""
    return [suite_of(name, load_rows(maker, rows)) for name, rows in suite_sets(settings).items()]


def evaluate(
    model: Qwen2ForCausalLM, maker: RowMaker, settings: Settings
) -> tuple[dict[str, float], pd.DataFrame]:
    """Evaluate a model in all 21 suites `standard/`, `atlantis/` and `multi/<task>`.

    Args:
        model: A model in evaluation mode, on any device.
        maker: The row maker of the model's world.
        settings: Sizes of the suites, and the forward pass to use.

    Returns:
        The metrics, as `summarize` names them, and the answers, as `answer_suites` returns them.
    """
    answers = answer_suites(model, build_suites(maker, settings), plain=settings.is_plain)
    answers = pd.concat([answers, multi_rows(answers, settings)], ignore_index=True)
    return summarize(answers), answers


def validation_metrics(
    model: Qwen2ForCausalLM, suites: Iterable[Suite], plain: bool = False
) -> dict[str, float]:
    """Return `val/<suite>/mean` and `val/<suite>/valid_ratio` of suites of validation rows."""
    metrics = summarize(answer_suites(model, suites, plain=plain))
    kept = tuple(f"/{fact}" for fact in VALIDATED_FACTS)
    return {f"{VAL}{name}": value for name, value in metrics.items() if name.endswith(kept)}


def answer_suites(
    model: Qwen2ForCausalLM, suites: Iterable[Suite], plain: bool = False
) -> pd.DataFrame:
    """Return one row per question: suite, task, prompt, expected, generated, score, valid.

    plain: use the forward pass of `transformers`.
    """
    suites = list(suites)
    prompts = [prompt for suite in suites for prompt in suite.prompts]
    generated = decode_rows(generate_tokens(model, prompts, MAX_NEW_TOKENS, plain=plain))
    tables, start = [], 0
    for suite in suites:
        texts = generated[start : start + len(suite.prompts)]
        start += len(texts)
        task = TASKS[suite.task]
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
        facts = _facts(part["score"].to_numpy()) | {"valid_ratio": part["valid"].mean()}
        metrics |= {f"{name}/{fact}": float(value) for fact, value in facts.items()}
    return metrics


def _facts(scores: NDArray[np.float64]) -> dict[str, float]:
    return {
        "mean": scores.mean(),
        "median": np.median(scores),
        "std": scores.std(ddof=0),
        "min": scores.min(),
        "max": scores.max(),
        "n": len(scores),
    }
