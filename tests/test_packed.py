"""The packed forward pass against the plain one of transformers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from worldrep.data.rows import RowMaker
from worldrep.data.sets import stack_rows, training_sets
from worldrep.data.world import world_of
from worldrep.model.packed import KeyValueCache, Layout, PackedQwen2, PlainQwen2, SharedRows
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.training.feed import RowFeed


@pytest.fixture(scope="module", params=["mini", "paper"])
def model(request):
    return build_model(resolve(ModelName("pt1"), scale=request.param))


def random_rows(n=9, longest=57):
    """Random token rows (n, longest), their lengths, and what they share with their neighbours."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest + 1, n)
    rows = rng.integers(4, 98, (n, longest)).astype(np.uint8)
    rows[1, :20], lengths[1] = rows[0, :20], 30
    rows[2], lengths[2] = rows[1], 12  # a row that is the beginning of another
    rows[np.arange(longest) >= lengths[:, None]] = 0
    return rows, lengths, SharedRows.of(rows)


def packed_tokens(shared):
    return torch.from_numpy(shared.tokens).long()


def plain_logits(model, rows, shared):
    """Logits (T, vocabulary) of `transformers` at the cells of the packed tokens."""
    tokens = torch.from_numpy(rows[shared.order]).long()
    logits = model(input_ids=tokens, use_cache=False).logits
    return logits.flatten(0, 1)[torch.from_numpy(shared.cells)]


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_gradients_close(found, expected):
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_unpacking_puts_each_token_where_it_stands(groups):
    rows, lengths, shared = random_rows()
    tokens, layout = packed_tokens(shared), shared.layout(groups=groups)
    unpacked = layout.unpack(tokens[:, None].float())
    found = [row[:, 0].tolist() for group in unpacked for row in group]
    expected = {tuple(row[:length]) for row, length in zip(rows.tolist(), lengths, strict=True)}
    assert len(found) == len(rows) and len(unpacked) == groups
    assert all(any(tuple(row[: len(e)]) == e for row in found) for e in expected)
    assert torch.equal(layout.pack(unpacked)[:, 0], tokens.float())


def test_what_rows_begin_with_alike_is_held_once():
    rows = np.array([[5, 6, 7, 0], [5, 6, 8, 9], [5, 6, 7, 0], [4, 6, 7, 9]], dtype=np.uint8)
    shared = SharedRows.of(rows)
    assert packed_tokens(shared).tolist() == [4, 6, 7, 9, 5, 6, 7, 8, 9]
    assert shared.order.tolist() == [3, 0, 2, 1]
    assert shared.number[1].tolist() == shared.number[2].tolist() == [4, 5, 6, 0]
    assert shared.number[3].tolist() == [4, 5, 7, 8]
    assert shared.layout().columns.tolist() == [0, 1, 2, 3, 0, 1, 2, 2, 3]


@pytest.mark.parametrize("groups", [1, 3])
def test_logits_equal_those_of_transformers(model, groups):
    rows, _, shared = random_rows()
    plain = plain_logits(model, rows, shared)
    assert plain.std() > 0.1
    found = PackedQwen2(model)(packed_tokens(shared), shared.layout(groups=groups))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    also = PlainQwen2(model)(packed_tokens(shared), shared.layout(groups=groups))
    torch.testing.assert_close(also, plain, rtol=1e-4, atol=1e-4)


def test_logits_at_chosen_places_are_those_of_all_places(model):
    rows, _, shared = random_rows()
    at = torch.tensor([0, 7, 3])
    for passes in (PackedQwen2(model), PlainQwen2(model)):
        everywhere = passes(packed_tokens(shared), shared.layout())
        found = passes(packed_tokens(shared), shared.layout(), at)
        torch.testing.assert_close(found, everywhere[at], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_equal_those_of_transformers(model, groups):
    rows, _, shared = random_rows()
    expected = gradients_of(model, plain_logits(model, rows, shared).logsumexp(-1).sum())
    found = PackedQwen2(model)(packed_tokens(shared), shared.layout(groups=groups))
    assert_gradients_close(gradients_of(model, found.logsumexp(-1).sum()), expected)


def test_a_row_does_not_depend_on_its_neighbours(model):
    rows, lengths, shared = random_rows()
    together = PackedQwen2(model)(packed_tokens(shared), shared.layout())
    for place, i in enumerate(shared.order):
        alone = SharedRows.of(rows[i : i + 1])
        single = PackedQwen2(model)(packed_tokens(alone), alone.layout())
        found = together[torch.from_numpy(shared.number[place, : lengths[i]])]
        torch.testing.assert_close(found, single, rtol=1e-4, atol=1e-4)


def test_columns_after_others_continue_them(model):
    rows = np.random.default_rng(0).integers(4, 98, (6, 12)).astype(np.uint8)
    shared = SharedRows.of(rows)
    whole = PackedQwen2(model)(packed_tokens(shared), shared.layout())
    begun = SharedRows.of(rows[:, :11])
    cache = KeyValueCache(model, 6, 12)
    PackedQwen2(model)(packed_tokens(begun), begun.layout(), cache=cache)
    kept = torch.tensor([0, 3, 4])
    cache.keep(kept)
    last = torch.from_numpy(rows[begun.order, 11]).long()[kept]
    found = PackedQwen2(model)(last, Layout.column(3), cache=cache)
    expected = whole[torch.from_numpy(shared.number[:, -1])][kept]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["full", "answer"])
@pytest.mark.parametrize("name", ["pt1", "pt1-3", "pt1_ftwb2-13"])
def test_loss_and_gradients_of_real_rows_are_those_of_the_plain_pass(name, loss):
    """With shared prefixes, places without a target and rows of many lengths in one batch."""
    pretrain, _, ft = name.partition("_")
    model_name = ModelName(pretrain, ft or "none")
    settings = resolve(model_name, scale="smoke", overrides={"loss": loss, "batch_size": 96})
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    model = build_model(settings)
    feed = RowFeed(rows, settings, torch.device("cpu"))
    batch = feed.batch(0)

    tokens = torch.from_numpy(rows[batch]).long()
    targets = tokens[:, 1:].masked_fill(tokens[:, 1:] == 0, -100)
    if loss == "answer":
        equals = torch.from_numpy((rows[batch] == 32).argmax(axis=1))
        before = torch.arange(targets.shape[1]) < equals[:, None]
        targets = targets.masked_fill(before, -100)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    plain = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    expected = gradients_of(model, plain)

    packed = feed.tensors(batch)
    found = PackedQwen2(model)(packed.tokens, packed.layout, packed.at)[packed.asked]
    ours = cross_entropy(found, packed.targets)
    assert len(packed.targets) == feed.target_count(batch) == int((targets >= 0).sum())
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    assert_gradients_close(gradients_of(model, ours), expected)


def test_rows_of_a_batch_share_what_they_begin_with():
    settings = resolve(ModelName("pt1-1"), scale="smoke")
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    feed = RowFeed(rows, settings, torch.device("cpu"))
    inputs = [bytes(rows[i]).rstrip(b"\0")[:-1] for i in feed.batch(0)]
    beginnings = {row[:length] for row in inputs for length in range(1, len(row) + 1)}
    assert len(feed.tensors(feed.batch(0)).tokens) == len(beginnings)
    assert len(beginnings) < 0.7 * sum(map(len, inputs))
