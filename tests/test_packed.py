"""The packed forward pass against the plain one of transformers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from worldrep.data import stack_rows, training_sets
from worldrep.feed import RowFeed
from worldrep.model import build_model
from worldrep.names import ModelName
from worldrep.packed import Layout, PackedQwen2
from worldrep.rows import RowMaker
from worldrep.scales import resolve
from worldrep.world import world_of


@pytest.fixture(scope="module", params=["mini", "paper"])
def model(request):
    return build_model(resolve(ModelName("pt1"), scale=request.param))


def random_rows(n=9, longest=57):
    """Random token rows (n, longest), their lengths, and the packed ones."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    tokens = torch.randint(4, 98, (n, int(lengths.max())), generator=generator)
    packed = torch.cat([row[:length] for row, length in zip(tokens, lengths, strict=True)])
    return tokens, lengths, packed


def pack(values, lengths):
    """Real places of (n, longest, ...) end to end."""
    return torch.cat([row[:length] for row, length in zip(values, lengths, strict=True)])


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_gradients_close(found, expected):
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_unpacking_puts_each_token_where_it_stands():
    _, lengths, packed = random_rows()
    layout = Layout.of(lengths)
    rows = layout.unpack(packed[:, None].float())
    assert torch.equal(pack(rows, lengths)[:, 0], packed.float())
    assert torch.equal(layout.pack(rows)[:, 0], packed.float())
    assert torch.equal(layout.columns, torch.cat([torch.arange(n) for n in lengths]))


def test_logits_equal_those_of_transformers(model):
    tokens, lengths, packed = random_rows()
    plain = pack(model(input_ids=tokens, use_cache=False).logits, lengths)
    assert plain.std() > 0.1
    found = PackedQwen2(model)(packed, Layout.of(lengths))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_logits_at_chosen_places_are_those_of_all_places(model):
    _, lengths, packed = random_rows()
    at = torch.tensor([0, 7, 3])
    everywhere = PackedQwen2(model)(packed, Layout.of(lengths))
    found = PackedQwen2(model)(packed, Layout.of(lengths), at)
    torch.testing.assert_close(found, everywhere[at], rtol=1e-4, atol=1e-4)


def test_gradients_equal_those_of_transformers(model):
    tokens, lengths, packed = random_rows()
    plain = pack(model(input_ids=tokens, use_cache=False).logits, lengths)
    expected = gradients_of(model, plain.logsumexp(-1).sum())
    found = PackedQwen2(model)(packed, Layout.of(lengths))
    assert_gradients_close(gradients_of(model, found.logsumexp(-1).sum()), expected)


def test_a_row_does_not_depend_on_its_neighbours(model):
    _, lengths, packed = random_rows()
    together = PackedQwen2(model)(packed, Layout.of(lengths)).split(lengths.tolist())[4]
    row = packed.split(lengths.tolist())[4]
    alone = PackedQwen2(model)(row, Layout.of(lengths[4:5]))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


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


def test_rows_of_one_task_share_their_prefix():
    settings = resolve(ModelName("pt1-1"), scale="smoke")
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    feed = RowFeed(rows, settings, torch.device("cpu"))
    batch = feed.batch(0)
    shared = len("<dist(c_")
    expected = feed.token_count(batch) - len(batch) - shared * (len(batch) - 1)
    assert len(feed.tensors(batch).tokens) == expected
    assert np.unique(rows[batch, :shared], axis=0).shape[0] == 1
