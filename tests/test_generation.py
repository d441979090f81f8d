"""Greedy decoding against `model.generate(do_sample=False)` of transformers."""

import copy

import numpy as np
import pytest
import torch

from worldrep.data.tokens import EOS, decode, encode_prompts
from worldrep.evaluation.suites import generate, generate_tokens
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve

NEW_TOKENS = 8


@pytest.fixture(scope="module")
def model():
    """Random weights scaled up, so that answers differ from row to row and some of them end."""
    model = build_model(resolve(ModelName("pt1"), scale="mini"))
    with torch.no_grad():
        model.lm_head.weight[EOS] *= 2.5
    return model.eval()


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    ids = [f"{i:02d}" for i in range(100)]
    forms = ("dist(c_{},c_{})=", "inside(c_{};c_{},c_{},c_{})=", "perimeter(c_{},c_{},c_{})=")
    return [forms[i % 3].format(*rng.choice(ids, form_size(forms[i % 3]))) for i in range(60)]


def form_size(form):
    return form.count("{}")


def transformers_text(model, prompt):
    tokens = torch.from_numpy(encode_prompts([prompt])[0]).long()[None]
    produced = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW_TOKENS
    )
    return decode(produced[0, tokens.shape[1] :].numpy())


def test_text_equals_that_of_transformers_row_for_row(model, prompts):
    expected = [transformers_text(model, prompt) for prompt in prompts]
    assert len(set(expected)) > 10
    assert any(len(text) < NEW_TOKENS for text in expected), "no row ended early"
    assert generate(model, prompts, NEW_TOKENS) == expected


def test_the_plain_pass_gives_the_same_text(model, prompts, monkeypatch):
    packed = generate_tokens(model, encode_prompts(prompts), NEW_TOKENS)
    monkeypatch.setattr("worldrep.evaluation.suites.PackedQwen2", None)  # not to be used
    plain = generate_tokens(model, encode_prompts(prompts), NEW_TOKENS, plain=True)
    assert np.array_equal(packed, plain)


def test_rows_are_answered_in_the_order_in_which_they_were_given(model, prompts):
    turned = generate(model, prompts[::-1] + prompts[:5], NEW_TOKENS)
    expected = generate(model, prompts, NEW_TOKENS)
    assert turned == expected[::-1] + expected[:5]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_text_on_cuda_is_that_of_the_plain_pass_there(model, prompts):
    moved = copy.deepcopy(model).cuda()
    plain = generate_tokens(moved, encode_prompts(prompts), NEW_TOKENS, plain=True)
    assert np.array_equal(generate_tokens(moved, encode_prompts(prompts), NEW_TOKENS), plain)


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_text_does_not_depend_on_the_batch(model, prompts, rows, monkeypatch):
    expected = generate(model, prompts, NEW_TOKENS)
    monkeypatch.setattr("worldrep.evaluation.suites.CPU_ROWS", rows)
    assert generate(model, prompts, NEW_TOKENS) == expected


def test_nothing_follows_the_end(model, prompts):
    rows = generate_tokens(model, encode_prompts(prompts), NEW_TOKENS)
    for row in rows:
        end = np.flatnonzero(row == EOS)
        assert len(end) <= 1
        assert (row[end[0] + 1 :] == 0).all() if len(end) else True


def test_no_prompts_give_no_texts(model):
    assert generate(model, [], NEW_TOKENS) == []


def test_a_prompt_beyond_the_models_positions_is_refused(model):
    with pytest.raises(ValueError, match="128 positions"):
        generate(model, ["9" * 130], NEW_TOKENS)
