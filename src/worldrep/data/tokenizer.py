"""Character tokens: four special ones, then the 94 printable ASCII characters without space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")
PAD, UNK, BOS, EOS = range(4)
CHARACTERS = "".join(chr(code) for code in range(33, 127))
VOCABULARY = (*SPECIAL, *CHARACTERS)
VOCABULARY_SIZE = len(VOCABULARY)
EQUALS = VOCABULARY.index("=")
ZERO = VOCABULARY.index("0")

_SHIFT = 33 - len(SPECIAL)


def encode(text: str) -> NDArray[np.uint8]:
    """Token ids (length,) of printable ASCII text, without <bos> and <eos>; others become <unk>."""
    codes = np.array([ord(character) for character in text], dtype=np.int64)
    return np.where((codes >= 33) & (codes < 127), codes - _SHIFT, UNK).astype(np.uint8)


def decode(tokens: NDArray[np.integer]) -> str:
    """Text of token ids (length,) up to the first <eos>; special tokens appear by their names."""
    ids = tokens.tolist()
    return "".join(VOCABULARY[i] for i in (ids[: ids.index(EOS)] if EOS in ids else ids))


def decode_rows(tokens: Iterable[NDArray[np.integer]]) -> list[str]:
    """Texts of token rows (n, length) or of n rows of any lengths, each up to its first <eos>."""
    return [decode(row) for row in tokens]


def encode_prompts(prompts: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Token ids of each prompt with <bos> before it."""
    return [np.concatenate([[np.uint8(BOS)], encode(prompt)]) for prompt in prompts]


@lru_cache(maxsize=1)
def _hugging_face() -> PreTrainedTokenizerFast:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path) -> None:
    """Write the same vocabulary as a Hugging Face fast tokenizer, for AutoTokenizer to load."""
    _hugging_face().save_pretrained(folder)
