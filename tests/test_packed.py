"""The packed forward pass against the plain one of transformers."""

import pytest
import torch

from worldrep.model import build_model
from worldrep.names import ModelName
from worldrep.packed import Layout, PackedQwen2
from worldrep.scales import resolve


@pytest.fixture(scope="module", params=["mini", "paper"])
def model(request):
    return build_model(resolve(ModelName("pt1"), scale=request.param))


def random_rows(n=9, longest=57):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    tokens = torch.randint(4, 98, (n, int(lengths.max())), generator=generator)
    return tokens, Layout.of(lengths)


def test_unpacking_and_packing_are_inverse():
    tokens, layout = random_rows()
    packed = layout.pack(tokens)
    assert len(packed) == len(layout.rows) == int((layout.columns >= 0).sum())
    assert torch.equal(layout.pack(layout.unpack(packed)), packed)


def test_logits_equal_those_of_transformers(model):
    tokens, layout = random_rows()
    plain = layout.pack(model(input_ids=tokens, use_cache=False).logits)
    packed = PackedQwen2(model)(layout.pack(tokens), layout)
    assert plain.std() > 0.1
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)


def test_logits_at_chosen_places_are_those_of_all_places(model):
    tokens, layout = random_rows()
    packed = PackedQwen2(model)
    at = torch.tensor([0, 7, 3])
    everywhere = packed(layout.pack(tokens), layout)
    torch.testing.assert_close(packed(layout.pack(tokens), layout, at), everywhere[at])


def test_gradients_equal_those_of_transformers(model):
    tokens, layout = random_rows()

    def gradients(logits):
        model.zero_grad()
        logits.logsumexp(-1).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    plain = gradients(layout.pack(model(input_ids=tokens, use_cache=False).logits))
    packed = gradients(PackedQwen2(model)(layout.pack(tokens), layout))
    for name, expected in plain.items():
        scale = float(expected.abs().max()) + 1e-6
        torch.testing.assert_close(packed[name], expected, rtol=1e-3, atol=1e-4 * scale)


def test_a_row_does_not_depend_on_its_neighbours(model):
    tokens, layout = random_rows()
    packed = PackedQwen2(model)
    together = packed(layout.pack(tokens), layout)
    row = 4
    length = int((layout.rows == row).sum())
    alone = packed(tokens[row, :length], Layout.of(torch.tensor([length])))
    torch.testing.assert_close(together[layout.rows == row], alone, rtol=1e-4, atol=1e-4)
