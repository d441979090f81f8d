"""Representations against the hidden states of transformers, and the probe on known ones."""

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection

from worldrep.data.tokens import encode_prompts
from worldrep.data.world import world_of
from worldrep.errors import InputError
from worldrep.evaluation.representations import (
    Request,
    city_prompts,
    extract,
    load_representations,
    probe_positions,
    save_representations,
)
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.stages.measure import draw_map


@pytest.fixture(scope="module")
def mini():
    settings = resolve(ModelName("pt1"), scale="mini")
    return settings, world_of(settings), build_model(settings).eval()


@pytest.mark.parametrize("task", ["distance", "inside", "crossing"])
def test_all_layers_equal_the_hidden_states_of_transformers(mini, task):
    settings, world, model = mini
    tables = extract(model, world, Request.parse(settings, "all", task, "default"))
    assert sorted(tables) == list(range(settings.n_layers + 1))
    for row, prompt in enumerate(city_prompts(world, task)):
        tokens = torch.from_numpy(encode_prompts([prompt])[0]).long()[None]
        with torch.no_grad():
            states = model(input_ids=tokens, output_hidden_states=True).hidden_states
        for layer, table in tables.items():
            digit, delimiter = states[layer][0, -2], states[layer][0, -1]
            expected = torch.cat((digit, delimiter)).numpy()
            np.testing.assert_allclose(table[row], expected, rtol=1e-4, atol=1e-5)
    assert all(t.shape == (len(world.cities), 2 * settings.hidden_size) for t in tables.values())
    assert all(table.dtype == np.float32 for table in tables.values())


def test_neither_the_plain_pass_nor_the_batches_change_the_tables(mini, monkeypatch):
    settings, world, model = mini
    request = Request.parse(settings, "0,2,3", "angle", "default")
    with monkeypatch.context() as patched:
        patched.setattr("worldrep.model.packed.PackedQwen2", None)  # not to be used
        expected = extract(model, world, request, plain=True)
    for cities in (1000, 7):
        tables = extract(model, world, request, batch_cities=cities)
        assert list(tables) == [0, 2, 3]
        for layer, table in tables.items():
            np.testing.assert_allclose(table, expected[layer], rtol=1e-4, atol=1e-5)


def test_layers_above_the_last_one_asked_for_are_not_run(mini):
    settings, world, model = mini

    def refuse(*_):
        raise AssertionError("a layer ran that nobody asked for")

    hooks = [model.model.layers[i].mlp.down_proj.register_forward_pre_hook(refuse) for i in (1, 2)]
    try:
        tables = extract(model, world, Request.parse(settings, "1", "default", "default"))
    finally:
        for hook in hooks:
            hook.remove()
    assert list(tables) == [1]


def test_prompts_end_behind_the_delimiter_of_the_first_city(mini):
    _, world, _ = mini
    first = world.cities["city_id"].iloc[0]
    assert city_prompts(world, "distance")[0] == f"dist(c_{first},"
    assert city_prompts(world, "inside")[0] == f"inside(c_{first};"
    assert city_prompts(world, "crossing")[0] == f"cross(c_{first},"


def test_the_default_request_is_that_of_the_contract():
    paper = resolve(ModelName("pt1"), scale="paper")
    assert Request.parse(paper, "default", "default", "default") == Request(
        (5,), "distance", ("last_digit", "delimiter")
    )
    tuned = resolve(ModelName("pt1", "ftwb2-13"), scale="mini")
    assert Request.parse(tuned, "default", "default", "default").task == "distance"
    tuned = resolve(ModelName("pt1", "ftwb2-2"), scale="mini")
    assert Request.parse(tuned, "default", "default", "default").task == "angle"


@pytest.mark.parametrize(
    ("layers", "task", "positions", "sentence"),
    [
        ("4", "default", "default", "layer '4' is not one of the model's: 0 to 3"),
        ("-1", "default", "default", "layer '-1'"),
        ("1,x", "default", "default", "layer 'x'"),
        ("1", "distnace", "default", "did you mean 'distance'"),
        ("1", "default", "comma", "unknown position 'comma'"),
    ],
)
def test_unknown_requests_are_refused(mini, layers, task, positions, sentence):
    with pytest.raises(InputError, match=sentence):
        Request.parse(mini[0], layers, task, positions)


def test_a_layer_that_the_model_lacks_is_refused(mini):
    _, world, model = mini
    with pytest.raises(InputError, match="layer 4 is not one of the model's: 0 to 3"):
        extract(model, world, Request((0, 4), "angle"))


def test_stored_representations_come_back(mini, tmp_path):
    settings, world, model = mini
    tables = extract(model, world, Request.parse(settings, "0,3", "default", "delimiter"))
    save_representations(tmp_path, tables, {"city_ids": world.cities["city_id"].tolist()})
    loaded, manifest = load_representations(tmp_path)
    assert sorted(loaded) == [0, 3]
    np.testing.assert_array_equal(loaded[3], tables[3])
    assert manifest["city_ids"] == world.cities["city_id"].tolist()


def test_the_probe_finds_positions_that_are_linear_in_the_representation(mini):
    _, world, _ = mini
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 6))
    probe = probe_positions((world.positions @ mixing + 3).astype(np.float32), world)
    assert probe.errors.max() < 0.1
    assert probe.trained.sum() == round(0.8 * (~world.is_atlantis).sum())
    assert not (probe.trained & (probe.baseline | probe.atlantis)).any()
    assert (probe.trained | probe.baseline | probe.atlantis).all()


def test_the_probe_finds_nothing_in_noise(mini):
    _, world, _ = mini
    noise = np.random.default_rng(0).normal(size=(len(world.cities), 4)).astype(np.float32)
    assert probe_positions(noise, world).summary()["world"] > 300


def test_the_map_marks_every_city(mini, tmp_path):
    _, world, _ = mini
    probe = probe_positions(world.positions.astype(np.float32), world)
    figure = draw_map(world, probe, "a map")
    found = figure.axes[0].collections
    drawn = sum(len(c.get_offsets()) for c in found if isinstance(c, PathCollection))
    assert drawn == 2 * len(world.cities)
    figure.savefig(tmp_path / "map.png")
