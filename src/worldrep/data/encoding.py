"""Writing rows as tokens, all rows of a kind at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldrep.data.tasks import ChoiceTask, Task
from worldrep.data.tokenizer import BOS, EOS, PAD, ZERO, encode

Tokens = NDArray[np.uint8]


def pad_together(parts: Sequence[Tokens]) -> Tokens:
    """Token rows below one another, padded to the longest."""
    rows = np.full((sum(map(len, parts)), max(p.shape[1] for p in parts)), PAD, dtype=np.uint8)
    start = 0
    for part in parts:
        rows[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return rows


def row_length(task: Task, k: int, city_tokens: Tokens) -> int:
    """Tokens of the longest row with k cities, <bos> and <eos> included."""
    brackets, equals, ends = 2, 1, 2
    cities = k * city_tokens.shape[1] + k - 1
    return ends + len(task.label) + brackets + cities + equals + task.longest


def encode_rows(
    task: Task,
    city_tokens: Tokens,
    cities: NDArray[np.integer],
    values: NDArray[np.int64],
    width: int,
) -> Tokens:
    """Token rows (n, width): <bos> question answer <eos>, then <pad>.

    city_tokens (n_cities, w): the tokens of each city's `c_ID`; cities (n, k): indices into it;
    values (n,): integer answers.
    """
    n, k = cities.shape
    rows = np.full((n, width), PAD, dtype=np.uint8)
    place = 0

    def write(part: Tokens | int, length: int) -> None:
        nonlocal place
        rows[:, place : place + length] = part
        place += length

    write(BOS, 1)
    write(encode(f"{task.label}("), len(task.label) + 1)
    for column, mark in enumerate((*task.separators(k), ")=")):
        write(city_tokens[cities[:, column]], city_tokens.shape[1])
        write(encode(mark), len(mark))
    write(encode_answers(task, values), task.longest + 1)
    return rows


def encode_answers(task: Task, values: NDArray[np.int64]) -> Tokens:
    """Token rows (n, longest + 1) of integer answers, each followed by <eos> and <pad>."""
    if isinstance(task, ChoiceTask):
        table = np.full((len(task.choices), task.longest + 1), PAD, dtype=np.uint8)
        for row, text in zip(table, task.choices, strict=True):
            row[: len(text) + 1] = [*encode(text), EOS]
        return table[values]
    return _encode_numbers(values, task.longest)


def _encode_numbers(values: NDArray[np.int64], longest: int) -> Tokens:
    powers = 10 ** np.arange(longest, dtype=np.int64)
    digits = 1 + (values[:, None] >= powers[1:]).sum(axis=1)
    rows = np.full((len(values), longest + 1), PAD, dtype=np.uint8)
    for column in range(longest):
        left = digits - 1 - column  # how many digits follow this one
        digit = values // powers[np.maximum(left, 0)] % 10 + ZERO
        rows[:, column] = np.where(left >= 0, digit, np.where(left == -1, EOS, PAD))
    rows[:, longest] = np.where(digits == longest, EOS, PAD)
    return rows
