"""Character tokens: text to token ids and back, and rows of questions written as tokens."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldrep.data.tasks import ChoiceTask, Task

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")
PAD, UNK, BOS, EOS = range(4)
VOCABULARY = (*SPECIAL, *map(chr, range(33, 127)))  # printable ASCII without space
VOCABULARY_SIZE = len(VOCABULARY)
EQUALS = VOCABULARY.index("=")
_SHIFT = 33 - len(SPECIAL)  # from the code of a character to its token id

Tokens = NDArray[np.uint8]


def encode(text: str) -> Tokens:
    """Return the token ids (length,) of a text, one a character, without <bos> and <eos>."""
    codes = np.array(list(map(ord, text)), dtype=np.int64)
    return np.where((codes >= 33) & (codes < 127), codes - _SHIFT, UNK).astype(np.uint8)


def decode(tokens: NDArray[np.integer]) -> str:
    """Return the text of token ids (length,) up to the first <eos>; `<pad>` etc. by name."""
    ids = tokens.tolist()
    return "".join(VOCABULARY[i] for i in (ids[: ids.index(EOS)] if EOS in ids else ids))


def decode_rows(rows: Iterable[NDArray[np.integer]]) -> list[str]:
    """Return the text of each of n rows of token ids."""
    return [decode(row) for row in rows]


def encode_prompts(prompts: Sequence[str]) -> list[Tokens]:
    """Return the token ids of each prompt, with <bos> before it."""
    return [np.concatenate([[np.uint8(BOS)], encode(prompt)]) for prompt in prompts]


def stack_padded(parts: Sequence[Tokens]) -> Tokens:
    """Concatenate token rows (n_i, length_i), padded on the right to the greatest length."""
    rows = np.full((sum(map(len, parts)), max(p.shape[1] for p in parts)), PAD, dtype=np.uint8)
    start = 0
    for part in parts:
        rows[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return rows


def row_length(task: Task, k: int, city_tokens: Tokens) -> int:
    """Return the tokens of the longest row of a task with k cities, <bos> and <eos> included."""
    question = task.question(["0" * (city_tokens.shape[1] - len("c_"))] * k)
    return len(question) + task.longest + 2


def encode_rows(
    task: Task, city_tokens: Tokens, cities: NDArray, values: NDArray[np.int64], width: int
) -> Tokens:
    """Write questions as token rows (n, width): <bos> question answer <eos> <pad> ...

    city_tokens: (n_cities, w) tokens of each `c_ID`; cities: (n, k) indices into them; values: (n,)
    answers, as `Task.values` returns them; width: at least `row_length`.
    """
    n, k = cities.shape
    parts = [np.array([BOS], dtype=np.uint8), encode(f"{task.label}(")]
    for column, mark in enumerate((*task.separators(k), ")=")):
        parts += [city_tokens[cities[:, column]], encode(mark)]
    answers = encode_answers(task, values)
    texts = [np.broadcast_to(part, (n, part.shape[-1])) for part in (*parts, answers)]
    rows = np.full((n, width), PAD, dtype=np.uint8)
    np.concatenate(texts, axis=1, out=rows[:, : sum(text.shape[1] for text in texts)])
    return rows


def encode_answers(task: Task, values: NDArray[np.int64]) -> Tokens:
    """Return token rows (n, task.longest + 1): each answer, then <eos> and padding."""
    if isinstance(task, ChoiceTask):
        texts = np.array(task.choices, dtype="S")[values]
    else:
        texts = values.astype("S")
    padded = texts.astype(f"S{task.longest + 1}")  # with zeros, which no text contains
    codes = padded.view(np.uint8).reshape(len(values), task.longest + 1)
    rows = np.where(codes > 0, codes - _SHIFT, PAD).astype(np.uint8)
    rows[np.arange(len(rows)), (codes == 0).argmax(axis=1)] = EOS
    return rows


def save_tokenizer(folder: Path) -> None:
    """Write the vocabulary as a Hugging Face fast tokenizer, which `AutoTokenizer` loads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    names = {f"{token[1:-1]}_token": token for token in SPECIAL}  # pad_token="<pad>" and so on
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )
    fast.save_pretrained(folder)
