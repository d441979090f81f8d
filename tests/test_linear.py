"""Linear layers by oneDNN against torch's default: results, gradients, losses, and the choice."""

import numpy as np
import pytest
import torch
from torch import nn

from worldrep.data.world import world_of
from worldrep.evaluation.representations import Request, extract
from worldrep.evaluation.suites import generate
from worldrep.model import linear as linear_module
from worldrep.model.linear import (
    DEFAULT,
    FEWEST_ROWS,
    ONEDNN,
    _library_for,
    linear,
    linear_library,
    padded,
)
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.stages.provenance import identity_tags

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


@pytest.fixture(autouse=True)
def fresh_choice(on_cpu):
    _library_for.cache_clear()
    yield
    _library_for.cache_clear()


def choose(monkeypatch, library):
    monkeypatch.setattr(linear_module, "linear_library", lambda: library)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [256, 301, 1024])
def test_onednn_gives_the_results_and_gradients_of_the_default(monkeypatch, rows, bias):
    torch.manual_seed(0)
    layer = nn.Linear(48, 96, bias=bias)
    given = torch.randn(rows, 48)
    found = []
    for library in (DEFAULT, ONEDNN):
        choose(monkeypatch, library)
        layer.zero_grad()
        x = given.clone().requires_grad_()
        out = linear(layer, x)
        out.square().sum().backward()
        found.append([out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())])
    assert len(found[0]) == 3 + bias
    for default, onednn in zip(*found, strict=True):
        torch.testing.assert_close(onednn, default, rtol=1e-5, atol=1e-3)


@needs_onednn
def test_a_training_by_onednn_has_the_losses_of_the_default(monkeypatch):
    from test_steps import eager, take_all

    curves = []
    for library in (DEFAULT, ONEDNN):
        choose(monkeypatch, library)
        monkeypatch.setattr("worldrep.model.packed.linear", linear)
        steps, _, feed = eager(compute="packed", batch_size=96)
        curves.append([numbers["train/loss"] for numbers in take_all(steps, feed)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    lengths = {len(feed.tensors(feed.batch(step)).tokens) for step in range(3)}
    assert all(length % FEWEST_ROWS == 0 for length in lengths)


@needs_onednn
def test_answers_and_hidden_states_by_onednn_are_those_of_the_default(monkeypatch):
    settings = resolve(ModelName("pt1"), scale="mini")
    model, world = build_model(settings).eval(), world_of(settings)
    ids = world.cities["city_id"]
    prompts = [f"dist(c_{a},c_{b})=" for a in ids[:20] for b in ids[20:40]]
    products, found = [], []
    counted = linear_module.onednn_product

    def counting(*given):
        products.append(len(given[0]))
        return counted(*given)

    monkeypatch.setattr(linear_module, "onednn_product", counting)
    for library in (DEFAULT, ONEDNN):
        choose(monkeypatch, library)
        before = len(products)
        texts = generate(model, prompts, 6)
        (states,) = extract(
            model, world, Request.parse(settings, "1", "distance", "default")
        ).values()
        found.append((texts, states, len(products) - before))
    (texts, states, none), (same_texts, same_states, several) = found
    assert none == 0 and several > 0 and set(products) > {FEWEST_ROWS}
    assert texts == same_texts
    np.testing.assert_allclose(same_states, states, rtol=1e-4, atol=1e-5)


def test_few_indices_are_not_padded(monkeypatch):
    choose(monkeypatch, ONEDNN)
    assert len(padded(np.arange(FEWEST_ROWS - 1))) == FEWEST_ROWS - 1  # of the default products
    assert padded(np.arange(FEWEST_ROWS + 1)).tolist()[-2:] == [FEWEST_ROWS, FEWEST_ROWS]
    assert len(padded(np.arange(FEWEST_ROWS + 1))) == 2 * FEWEST_ROWS


def test_runs_that_choose_no_library_have_no_tag_of_it():
    packed, plain = (
        resolve(ModelName("pt1"), scale="smoke", overrides={"compute": compute})
        for compute in ("packed", "plain")
    )
    assert identity_tags(packed)["linear_library"] in (DEFAULT, ONEDNN)
    assert "linear_library" not in identity_tags(plain)


@pytest.mark.parametrize("measured", [DEFAULT, ONEDNN])
def test_the_choice_is_measured_once_and_kept(monkeypatch, tmp_path, measured):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(linear_module, "_measured", lambda: calls.append(1) or measured)
    for _ in range(2):
        _library_for.cache_clear()  # as in another process
        assert linear_library() == measured
    assert calls == [1]
    (kept,) = tmp_path.glob("linear-*.txt")
    kept.write_text("onednm")
    _library_for.cache_clear()
    assert linear_library() == measured and calls == [1, 1]


def test_the_choice_is_that_of_the_number_of_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path))
    monkeypatch.setattr(
        linear_module, "_measured", lambda: (DEFAULT, ONEDNN)[torch.get_num_threads() == 1]
    )
    usual = torch.get_num_threads()
    try:
        for threads, library in ((1, ONEDNN), (2, DEFAULT), (1, ONEDNN)):
            torch.set_num_threads(threads)
            assert linear_library() == library
    finally:
        torch.set_num_threads(usual)


def test_a_library_that_rounds_is_not_chosen(monkeypatch):
    def rounded(x, weight, bias=None):
        return (x.bfloat16() @ weight.bfloat16().T).float()

    monkeypatch.setattr(linear_module, "onednn_product", rounded)
    monkeypatch.setattr(linear_module, "LEAST_GAIN", 0.0)  # as fast as one likes
    assert linear_module._measured() == DEFAULT


def test_without_onednn_the_default_is_chosen(monkeypatch):
    def absent(*given):
        raise AttributeError("no such operator")

    monkeypatch.setattr(linear_module, "onednn_product", absent)
    assert linear_module._measured() == DEFAULT


@needs_onednn
def test_a_right_and_faster_library_is_chosen(monkeypatch):
    monkeypatch.setattr(linear_module, "LEAST_GAIN", 0.0)
    assert linear_module._measured() == ONEDNN
