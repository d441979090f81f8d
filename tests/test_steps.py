"""Ways to compute a step, against each other: plain, packed, static, and on CUDA captured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recorder import FolderRecorder

from worldrep.data.rows import RowMaker
from worldrep.data.sets import stack_rows, training_sets
from worldrep.data.world import world_of
from worldrep.errors import InputError, StateError
from worldrep.model.packed import PackedQwen2, PlainQwen2
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.training.checkpoint import read_checkpoint, write_checkpoint
from worldrep.training.feed import RowFeed
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.state import Training, graph_obstacle, make_accelerator
from worldrep.training.steps import EagerSteps, StaticSteps, pack_static, steps_of

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def begin(name="pt1", **overrides):
    """A training at its first step, and its rows; float32, so that ways can be compared."""
    overrides = {"batch_size": 96, "precision": "no"} | overrides
    settings = resolve(ModelName(name), scale="smoke", overrides=overrides)
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    accelerator = make_accelerator(settings)
    training = Training(build_model(settings), settings, accelerator)
    return training, RowFeed(rows, settings, accelerator.device)


def take_all(steps, feed, count=None):
    """Numbers after each step."""
    found = []
    for _ in range(count or feed.schedule.steps):
        steps.take()
        found.append(steps.read())
    return found


def weights(training):
    return {name: p.detach().cpu().clone() for name, p in training.plain.named_parameters()}


def assert_same_training(left, right, rtol=1e-4, atol=1e-5):
    """Curves and final weights of two (steps, training, feed)."""
    curves = [take_all(steps, feed) for steps, _, feed in (left, right)]
    for found, expected in zip(*curves, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    initial = weights(begin()[0])
    for name, value in weights(right[1]).items():
        torch.testing.assert_close(weights(left[1])[name], value, rtol=rtol, atol=atol)
    assert any(
        not torch.allclose(initial[name], v, rtol=rtol, atol=atol)
        for name, v in weights(right[1]).items()
    )


def eager(**overrides):
    training, feed = begin(**overrides)
    return EagerSteps(training, feed), training, feed


def static(**overrides):
    training, feed = begin(**overrides)
    return StaticSteps(training, feed), training, feed


@pytest.mark.parametrize("loss", ["full", "answer"])
def test_the_plain_pass_trains_like_the_packed_one(loss):
    plain, packed = (eager(loss=loss, compute=compute) for compute in ("plain", "packed"))
    assert isinstance(plain[1].model, PlainQwen2) and isinstance(packed[1].model, PackedQwen2)
    assert_same_training(plain, packed)


@pytest.mark.parametrize("broken", [False, True])
def test_a_whole_training_takes_static_steps(broken, tmp_path, monkeypatch):
    """As on CUDA, with everything around the steps; a bad loss ends it before it is validated."""
    monkeypatch.setattr("worldrep.training.loop.steps_of", StaticSteps)
    training, feed = begin(epochs=4, **({"learning_rate": 1e30} if broken else {}))
    settings, recorder, validated = training.settings, FolderRecorder(tmp_path), []

    def validate(model):
        validated.append(all(bool(p.isfinite().all()) for p in model.parameters()))
        return {}

    inputs = TrainingInputs(training.plain, feed.rows, settings, training.accelerator)
    if broken:
        with pytest.raises(StateError, match=r"at step \d+; the step was not taken"):
            train(inputs, recorder, validate)
    else:
        train(inputs, recorder, validate)
        straight, feed = begin(epochs=4, compute="packed")
        take_all(EagerSteps(straight, feed), feed)
        for name, value in weights(straight).items():
            torch.testing.assert_close(weights(training)[name], value, rtol=1e-3, atol=1e-4)
    assert validated and all(validated)


@pytest.mark.parametrize(
    ("device", "processes", "accumulation", "obstacle"),
    [
        ("cuda", 1, 1, ""),
        ("cpu", 1, 1, "needs a CUDA device"),
        ("cuda", 2, 1, "is for one process"),
        ("cuda", 1, 2, "cannot be used with accumulation"),
    ],
)
def test_what_stands_in_the_way_of_a_graph(device, processes, accumulation, obstacle):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"accumulation": accumulation})
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    assert graph_obstacle(settings, accelerator) == obstacle


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("loss", ["full", "answer"])
def test_static_steps_train_like_packed_ones(loss, optimizer):
    """Epochs end with a smaller batch, so that there are rows to leave out."""
    how = {"loss": loss, "optimizer": optimizer}
    assert_same_training(static(**how), eager(compute="packed", **how))


def test_a_static_batch_holds_the_rows_and_their_weights():
    rows = torch.tensor([[2, 5, 32, 7, 3], [2, 9, 3, 0, 0], [0, 0, 0, 0, 0]])
    tokens, layout, targets, weights = pack_static(rows, capacity=8, answer_only=False)
    assert tokens.tolist()[:6] == [2, 5, 32, 7, 2, 9]
    assert targets.tolist()[:6] == [5, 32, 7, 3, 9, 3]
    assert weights.tolist() == pytest.approx([1 / 6] * 6 + [0, 0])
    gather = layout.gathers[0].tolist()
    assert gather[0] == [0, 1, 2, 3] and gather[1][:2] == [4, 5]
    assert max(map(max, gather)) < 8
    *_, weights = pack_static(rows[:1], capacity=4, answer_only=True)
    assert weights.tolist() == [0, 0, 0.5, 0.5]


def test_no_batch_of_a_training_outgrows_the_static_shape():
    _, feed = begin(epochs=3)
    rows = torch.from_numpy(feed.rows).long()
    for step in range(feed.schedule.steps):
        *_, weights = pack_static(rows[feed.batch(step)], feed.most_tokens(), answer_only=False)
        assert (weights > 0).sum() == feed.target_count(feed.batch(step))


def test_the_mean_loss_is_that_of_all_steps_since_the_last_reading():
    (one, _, feed), (three, _, _) = static(), static()
    singly = [numbers["train/loss"] for numbers in take_all(one, feed, 3)]
    for _ in range(3):
        three.take()
    assert three.read()["train/loss"] == pytest.approx(np.mean(singly), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_static_step_with_a_bad_loss_is_named_and_not_taken(optimizer):
    steps, training, feed = static(optimizer=optimizer)
    take_all(steps, feed, 2)
    before = weights(training)
    with torch.no_grad():
        training.plain.lm_head.weight.fill_(float("nan"))
    for _ in range(3):
        steps.take()
    with pytest.raises(StateError, match=r"the loss is nan at step 3; the step was not taken"):
        steps.read()
    assert training.step == 2
    after = weights(training)
    assert all(torch.equal(before[n], after[n]) for n in before if n != "lm_head.weight")


def test_a_static_step_with_a_bad_gradient_is_named_and_not_taken():
    steps, training, feed = static()
    take_all(steps, feed, 2)
    before = weights(training)
    hook = training.plain.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    steps.take()
    hook.remove()
    steps.take()
    with pytest.raises(StateError, match=r"the gradient norm is (nan|inf) at step 3"):
        steps.read()
    after = weights(training)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_static_training_goes_on_from_a_saved_state(tmp_path, optimizer):
    steps, training, feed = static(optimizer=optimizer)
    take_all(steps, feed, 4)
    state = training.state_dict()
    folder = write_checkpoint(tmp_path, training.step, training.plain, state)
    expected = take_all(steps, feed, 3)
    again, feed = begin(optimizer=optimizer)
    again.load_checkpoint(read_checkpoint(folder), 7)
    for found, numbers in zip(take_all(StaticSteps(again, feed), feed, 3), expected, strict=True):
        assert found == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_that_are_stopped_leave_all_as_it_was(optimizer):
    """What is done before a capture, after steps that have filled the optimizer's state."""
    steps, training, feed = static(optimizer=optimizer)
    take_all(steps, feed, 2)
    before = {name: value.clone() for name, value in training.state_dict().items()}
    then = weights(training)
    steps._stopped.fill_(1.0)
    steps._step()
    after = training.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, weights(training)[name]) for name, value in then.items())


@pytest.mark.parametrize("compute", ["graph", "compile"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_graph_needs_cuda(compute):
    with pytest.raises(InputError, match=f"compute={compute} needs a CUDA device; allowed here"):
        begin(compute=compute)


@needs_cuda
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("compute", ["graph", "compile"])
def test_captured_steps_train_like_plain_ones(compute, optimizer):
    training, feed = begin(compute=compute, optimizer=optimizer)
    steps = steps_of(training, feed)
    assert isinstance(steps, StaticSteps)
    assert_same_training(
        (steps, training, feed), eager(compute="plain", optimizer=optimizer), rtol=1e-2, atol=1e-4
    )


@needs_cuda
def test_what_cannot_be_captured_is_computed_step_by_step():
    training, feed = begin(accumulation=2)
    assert isinstance(steps_of(training, feed), EagerSteps)
    with pytest.raises(InputError, match="compute=graph cannot be used with"):
        begin(compute="graph", accumulation=2)
