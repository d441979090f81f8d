"""The feed: which rows each step sees, in which order, and which tokens the loss covers."""

import numpy as np
import pytest
import torch

from worldrep.data.sets import Schedule
from worldrep.data.tokens import BOS, EOS, PAD, encode
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.training.feed import RowFeed

TEXTS = [
    "dist(c_01,c_02)=7",
    "dist(c_03,c_02)=4025",
    "compass(c_01,c_02)=NE",
    "a=1",
    "angle(c_1)=90",
]
CPU = torch.device("cpu")


def token_rows(texts):
    width = 2 + max(map(len, texts))
    rows = np.full((len(texts), width), PAD, dtype=np.uint8)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text) + 2] = [BOS, *encode(text), EOS]
    return rows


def feed_of(rows=None, n=103, seed=42, **overrides):
    overrides = {"batch_size": 10, "epochs": 3} | overrides
    settings = resolve(ModelName("pt1"), scale="smoke", seed=seed, overrides=overrides)
    return RowFeed(token_rows(TEXTS * (1 + n // 5))[:n] if rows is None else rows, settings, CPU)


def order(feed):
    return [feed.batch(step).tolist() for step in range(feed.schedule.steps)]


# The schedule


def test_the_last_batch_of_an_epoch_may_be_smaller():
    assert Schedule(rows=103, batch_size=10, epochs=3).steps_per_epoch == 11
    assert Schedule(rows=100, batch_size=10, epochs=3).steps == 30


@pytest.mark.parametrize("count", [1, 2, 3, 10, 33, 100])
def test_marks_are_evenly_spaced_and_end_with_the_last_step(count):
    marks = sorted(Schedule(rows=103, batch_size=10, epochs=3).marks(count))
    assert len(marks) == min(count, 33)
    assert marks[-1] == 33
    assert marks[0] >= 1
    assert np.ptp(np.diff([0, *marks])) <= 1


# Order


def test_every_row_is_seen_once_in_every_epoch():
    feed = feed_of()
    batches = order(feed)
    assert [len(batch) for batch in batches] == ([10] * 10 + [3]) * 3
    for epoch in range(3):
        seen = sum(batches[11 * epoch : 11 * (epoch + 1)], [])
        assert sorted(seen) == list(range(103))


def test_a_step_does_not_depend_on_the_steps_before_it():
    expected, feed = order(feed_of()), feed_of()
    for step in np.random.default_rng(0).permutation(33):
        assert feed.batch(int(step)).tolist() == expected[step]


def test_another_seed_gives_another_order():
    assert order(feed_of(seed=1)) != order(feed_of(seed=2))


def test_every_epoch_has_its_own_order():
    batches = order(feed_of())
    assert batches[:11] != batches[11:22] != batches[22:]


def test_rows_are_shuffled():
    first_epoch = np.concatenate([feed_of(n=1000).batch(step) for step in range(100)])
    assert abs(np.corrcoef(first_epoch, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize(
    "other", [{"learning_rate": 0.5}, {"loss": "answer"}, {"n_layers": 1}, {"epochs": 7}]
)
def test_other_settings_leave_the_order_as_it_is(other):
    assert order(feed_of(**other))[:33] == order(feed_of())


def test_the_order_is_the_same_for_another_batch_size():
    small = sum(order(feed_of(batch_size=10)), [])
    assert sum(order(feed_of(batch_size=32)), []) == small


def test_the_order_does_not_depend_on_the_rows():
    assert order(feed_of(rows=token_rows(["x=1"] * 103))) == order(feed_of())


def test_the_global_random_state_has_no_influence():
    expected = order(feed_of())
    np.random.seed(5)
    torch.manual_seed(5)
    assert order(feed_of()) == expected


# Tokens and targets


def pairs(packed):
    """Each token that the loss asks for, after the one that it follows; sorted."""
    before = packed.tokens[packed.at][packed.asked]
    return sorted(zip(before.tolist(), packed.targets.tolist(), strict=True))


def places_of(packed):
    """The packed tokens in each row's columns, by the text of its input tokens."""
    rows = [places for gather in packed.layout.gathers for places in gather.tolist()]
    return {tuple(packed.tokens[places].tolist()): places for places in rows}


def following(tokens):
    """Each token of a row after the one that it follows."""
    return list(zip(tokens, tokens[1:], strict=False))


def test_inputs_are_the_rows_without_their_ends():
    chosen = np.array([3, 0, 1])
    packed = feed_of(rows=token_rows(TEXTS)).tensors(chosen)
    found = sorted(places_of(packed))
    expected = sorted((BOS, *encode(TEXTS[i]).tolist()) for i in chosen)
    assert [row[: len(e)] for row, e in zip(found, expected, strict=True)] == expected


def test_the_full_loss_covers_every_token_but_bos_and_padding():
    packed = feed_of(rows=token_rows(TEXTS), loss="full").tensors(np.arange(5))
    expected = sum((following([BOS, *encode(text), EOS]) for text in TEXTS), [])
    assert pairs(packed) == sorted(expected)


def test_the_answer_loss_covers_the_answer_and_its_end():
    packed = feed_of(rows=token_rows(TEXTS), loss="answer").tensors(np.arange(5))
    answers = [text[text.index("=") :] for text in TEXTS]
    assert pairs(packed) == sorted(sum((following([*encode(text), EOS]) for text in answers), []))


@pytest.mark.parametrize("loss", ["full", "answer"])
def test_a_target_is_asked_for_at_its_place_in_its_own_row(loss):
    packed = feed_of(rows=token_rows(TEXTS), loss=loss).tensors(np.arange(5))
    expected = []
    rows = places_of(packed)
    for text in TEXTS:
        start = (BOS, *encode(text).tolist())
        places = next(places for row, places in rows.items() if row[: len(start)] == start)
        first = text.index("=") + 1 if loss == "answer" else 0
        expected += places[first : len(start)]
    assert sorted(packed.at[packed.asked].tolist()) == sorted(expected)


def test_the_largest_batch_of_all_epochs_is_known():
    feed = feed_of(rows=token_rows(TEXTS * 7), batch_size=4, epochs=3)
    sizes = [feed.token_count(b) - len(b) for b in map(feed.batch, range(feed.schedule.steps))]
    assert feed.most_tokens() == max(sizes) > min(sizes)


@pytest.mark.parametrize("loss", ["full", "answer"])
def test_counts_are_those_of_the_tensors(loss):
    feed = feed_of(rows=token_rows(TEXTS), loss=loss)
    for batch in (np.array([1]), np.array([4, 2]), np.arange(5)):
        assert feed.target_count(batch) == len(feed.tensors(batch).targets)
        assert feed.token_count(batch) == sum(len(TEXTS[i]) + 2 for i in batch)


def test_token_ids_are_those_that_a_model_takes():
    packed = feed_of(rows=token_rows(TEXTS)).tensors(np.arange(5))
    assert packed.tokens.dtype == packed.targets.dtype == torch.int64
