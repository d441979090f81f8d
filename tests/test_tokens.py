"""Tokens: rows are written as their texts say, and Hugging Face reads and writes the same ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrep.data.tasks import TASKS
from worldrep.data.tokens import (
    BOS,
    EOS,
    PAD,
    UNK,
    VOCABULARY,
    VOCABULARY_SIZE,
    decode,
    decode_rows,
    encode,
    encode_answers,
    encode_prompts,
    encode_rows,
    row_length,
    save_tokenizer,
)

PRINTABLE = "".join(map(chr, range(33, 127)))
NUMBERS = {  # values at which the number of digits changes, up to the longest answer
    "distance": [0, 1, 9, 10, 99, 100, 769, 999, 1000, 4025, 9999],
    "trianglearea": [0, 9, 10, 999_999, 1_000_000, 3_240_000, 9_999_999],
    "angle": [0, 5, 9, 10, 90, 99, 100, 180],
    "perimeter": [0, 7, 10, 101, 9999, 10_000, 20_125, 99_999],
}


def values_of(task):
    choices = getattr(task, "choices", None)
    return np.array(NUMBERS[task.name] if choices is None else range(len(choices)))


def city_tokens(digits):
    """Ids 0, 1, 4, 9, ... and their tokens."""
    ids = [f"{i * i:0{digits}d}" for i in range(10)]
    return ids, np.stack([encode(f"c_{text}") for text in ids])


# Characters


def test_the_vocabulary_is_four_special_tokens_and_94_characters():
    assert ("<pad>", "<unk>", "<bos>", "<eos>", *PRINTABLE) == VOCABULARY
    assert VOCABULARY_SIZE == 98
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)


def test_each_character_is_one_token():
    assert encode(PRINTABLE).tolist() == list(range(4, 98))
    assert encode("").tolist() == []


@pytest.mark.parametrize("character", [" ", "\n", "\x7f", "é", "\u4e16", "\U0001f30d"])
def test_other_characters_are_unknown(character):
    assert encode(f"a{character}b").tolist() == [*encode("a"), UNK, *encode("b")]


@given(st.text(alphabet=PRINTABLE))
def test_decoding_gives_the_text_back(text):
    assert decode(encode(text)) == text


def test_decoding_stops_at_the_first_end():
    tokens = np.array([*encode("NE"), EOS, *encode("x"), EOS, PAD])
    assert decode(tokens) == "NE"
    assert decode_rows(np.stack([tokens, tokens])) == ["NE", "NE"]


def test_decoding_shows_special_tokens_by_name():
    assert decode(np.array([BOS, *encode("1"), UNK, PAD])) == "<bos>1<unk><pad>"


def test_prompts_begin_with_bos():
    first, second = encode_prompts(["dist(", "a"])
    assert first.tolist() == [BOS, *encode("dist(")]
    assert second.tolist() == [BOS, *encode("a")]


# Rows


@pytest.mark.parametrize("digits", [2, 4, 6])
@pytest.mark.parametrize(("name", "k"), [(name, k) for name in TASKS for k in TASKS[name].sizes])
def test_a_row_is_its_question_and_answer_between_bos_and_eos(name, k, digits):
    task, (ids, tokens) = TASKS[name], city_tokens(digits)
    values = values_of(task)
    rng = np.random.default_rng(0)
    cities = np.stack([rng.permutation(10)[:k] for _ in values])
    width = row_length(task, max(task.sizes), tokens)
    rows = encode_rows(task, tokens, cities, values, width)
    assert rows.shape == (len(values), width)
    assert rows.dtype == np.uint8
    for row, chosen, answer in zip(rows, cities, task.texts(values), strict=True):
        text = task.question([ids[i] for i in chosen]) + answer
        padding = [PAD] * (width - len(text) - 2)
        assert row.tolist() == [BOS, *encode(text), EOS, *padding]


@pytest.mark.parametrize("name", TASKS)
def test_the_longest_row_fills_its_width(name):
    task, (_, tokens) = TASKS[name], city_tokens(4)
    k = max(task.sizes)
    longest = values_of(task)[[np.argmax([len(text) for text in task.texts(values_of(task))])]]
    rows = encode_rows(task, tokens, np.arange(k)[None], longest, row_length(task, k, tokens))
    assert rows[0, -1] == EOS


@pytest.mark.parametrize("name", TASKS)
def test_answers_end_in_eos_and_padding(name):
    task = TASKS[name]
    values = values_of(task)
    rows = encode_answers(task, values)
    assert rows.shape == (len(values), task.longest + 1)
    for row, text in zip(rows, task.texts(values), strict=True):
        assert row.tolist() == [*encode(text), EOS, *[PAD] * (task.longest - len(text))]


# Hugging Face


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_auto_tokenizer_has_the_same_vocabulary(hugging_face):
    assert hugging_face.is_fast
    assert len(hugging_face) == 98
    assert hugging_face.convert_ids_to_tokens(range(98)) == list(VOCABULARY)


def test_auto_tokenizer_knows_the_special_tokens(hugging_face):
    names = ("pad", "unk", "bos", "eos")
    assert [getattr(hugging_face, f"{name}_token_id") for name in names] == [PAD, UNK, BOS, EOS]


@pytest.mark.parametrize("name", TASKS)
def test_auto_tokenizer_writes_rows_as_we_do(hugging_face, name):
    task, (ids, _) = TASKS[name], city_tokens(4)
    for k, answer in zip(task.sizes, task.texts(values_of(task)), strict=False):
        text = task.question(ids[:k]) + answer
        assert hugging_face(text)["input_ids"] == [BOS, *encode(text), EOS]


def test_auto_tokenizer_writes_every_character_as_we_do(hugging_face):
    for text in (PRINTABLE, PRINTABLE[::-1], "a b\nc", "é\u4e16", " ", "\n\n", ""):
        assert hugging_face(text)["input_ids"] == [BOS, *encode(text), EOS]


def test_auto_tokenizer_pads_to_the_right(hugging_face):
    batch = hugging_face(["dist(", "a"], padding=True)["input_ids"]
    assert batch[1] == [BOS, *encode("a"), EOS, PAD, PAD, PAD, PAD]


def test_auto_tokenizer_reads_rows_as_we_do(hugging_face):
    text = "inside(c_0865;c_4879,c_0012,c_7777)=TRUE"
    tokens = [BOS, *encode(text), EOS, PAD]
    assert hugging_face.decode(tokens, skip_special_tokens=True) == text
    assert hugging_face.decode(tokens) == f"<bos>{text}<eos><pad>"
