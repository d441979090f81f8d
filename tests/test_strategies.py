"""Fine-tuning that forgets less: what each strategy changes, and that it is part of the name."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recorder import FolderRecorder
from torch.nn.functional import cross_entropy

from worldrep.data.sets import Schedule, base_sets, maker_of, stack_rows, training_sets
from worldrep.data.tokens import PAD
from worldrep.errors import InputError
from worldrep.model.qwen2 import build_model, load_model
from worldrep.names import STRATEGIES, parse_model
from worldrep.scales import base_settings, resolve
from worldrep.stages.commands import training_command
from worldrep.stages.plan import TrainingPlan
from worldrep.studies import Definition, expand
from worldrep.training.checkpoint import step_of
from worldrep.training.feed import RowFeed, replay
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.state import Training, make_accelerator
from worldrep.training.steps import EagerSteps, StaticSteps
from worldrep.training.strategies import Pull, fisher_information

pytestmark = pytest.mark.usefixtures("on_cpu")

CPU = torch.device("cpu")


def settings_of(strategy, **overrides):
    name = "pt1_ftwb1-4" + ("" if strategy == "plain" else f"+{strategy}")
    usual = {"precision": "no"} | ({"fisher_rows": 32} if strategy == "ewc" else {})
    return resolve(parse_model(name), scale="smoke", overrides=usual | overrides)


def rows_of(settings):
    """The training rows, and those of the base that its strategy goes back to."""
    maker = maker_of(settings)
    base_rows = base_sets(settings, maker.world)
    own = stack_rows(maker, training_sets(settings, maker.world))
    return own, stack_rows(maker, base_rows) if base_rows else None


def base_of(settings):
    return build_model(base_settings(settings))


class Stopped(Exception):
    pass


class StoppingRecorder(FolderRecorder):
    """Ends a training at its first checkpoint, as a kill would."""

    def checkpoint(self, folder):
        super().checkpoint(folder)
        raise Stopped


def tune(folder, strategy, recorder=FolderRecorder, **overrides):
    """The fine-tuned model; it goes on from a checkpoint in the folder if there is one."""
    settings = settings_of(strategy, **overrides)
    own, base_rows = rows_of(settings)
    accelerator, kept = make_accelerator(settings), recorder(folder)
    inputs = TrainingInputs(base_of(settings), own, settings, accelerator, base_rows)
    return train(inputs, kept, checkpoint=kept.latest())


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def changed(model, base):
    """Names of the parameters that are not as they were."""
    before = dict(base.named_parameters())
    return {name for name, weight in model.named_parameters() if not weight.equal(before[name])}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert weight.equal(other[name]), name


# The name


def test_a_strategy_is_part_of_name_tags_and_fingerprint():
    found = [settings_of(strategy) for strategy in STRATEGIES]
    assert [str(s.model_name) for s in found[:3]] == [
        "pt1_ftwb1-4", "pt1_ftwb1-4+replay", "pt1_ftwb1-4+l2sp",
    ]  # fmt: skip
    assert [s.labels["strategy"] for s in found] == list(STRATEGIES)
    assert len({TrainingPlan.of(s).fingerprint for s in found}) == len(STRATEGIES)
    for settings in found:
        assert parse_model(str(settings.model_name)) == settings.model_name
        assert settings.model_name.base == parse_model("pt1")
        assert base_settings(settings) == base_settings(found[0])


def test_the_command_that_trains_a_model_names_its_strategy():
    command = training_command(settings_of("lora", lora_rank=4))
    assert "-P ft=ftwb1-4 -P strategy=lora" in command and "-P lora_rank=4" in command


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("pt1_ftwb1-1+lara", {}, "unknown strategy 'lara' (did you mean 'lora'?)"),
        ("pt1+ewc", {}, "strategy=ewc is for fine-tuning; a pretraining is plain"),
        ("pt1_ftwb1-1+", {}, "is not of the form"),
        ("pt1_ftwb1-1", {"lora_rank": 4}, "lora_rank is read by strategy=lora alone"),
        ("pt1_ftwb1-1+ewc", {"l2sp_strength": 1.0}, "l2sp_strength is read by strategy=l2sp alone"),
        ("pt1_ftwb1-1+replay", {"replay_share": 1.0}, "leaves no place for anything else"),
        ("pt1_ftwb1-1+replay", {"replay_share": 1.5}, "replay_share=1.5 is too large"),
        ("pt1_ftwb1-1+freeze", {"trained_part": "last-9"}, "with K from 1 to n_layers=2"),
        ("pt1_ftwb1-1+freeze", {"trained_part": "head"}, "trained_part='head' is not one of"),
        (
            "pt1_ftwb1-1+l2sp",
            {"l2sp_strength": float("nan")},
            "l2sp_strength=nan is not a finite number",
        ),
        ("pt1_ftwb1-1+l2sp", {"l2sp_strength": -1.0}, "l2sp_strength=-1.0 is too small"),
        ("pt1", {"optimizer": "mouon"}, "unknown optimizer 'mouon' (did you mean 'muon'?)"),
        ("pt1", {"optimizer": "MUON"}, "unknown optimizer 'MUON' (did you mean 'muon'?)"),
        ("pt1", {"muon_learning_rate": 0.1}, "muon_learning_rate is read by optimizer=muon alone"),
        ("pt1", {"muon_learning_rate": 0.1}, "muon_learning_rate=0.1 has no effect"),
        ("pt1", {"muon_learning_rate": 0.1}, "leave it out or set optimizer=muon"),
        (
            "pt1_ftwb1-1+freeze",
            {"optimizer": "muon", "trained_part": "embeddings"},
            "trained_part=embeddings trains none; use optimizer=adamw",
        ),
    ],
)
def test_what_does_not_go_together_is_said(name, overrides, message):
    with pytest.raises(InputError) as fault:
        resolve(parse_model(name), scale="smoke", overrides=overrides)
    assert message in str(fault.value)


def test_a_study_names_strategies_and_their_settings_once():
    definition = Definition(
        "several",
        ("pt1", "pt1_ftwb1-1..2"),
        strategies=("plain", "lora"),
        scale="smoke",
        settings={"lora_rank": 4, "epochs": 1},
        steps=("train",),
    )
    graph = expand(definition)
    found = {str(s.settings.model_name): s.settings for s in graph.steps.values()}
    assert list(found) == [
        "pt1", "pt1_ftwb1-1", "pt1_ftwb1-2", "pt1_ftwb1-1+lora", "pt1_ftwb1-2+lora",
    ]  # fmt: skip
    assert [s.lora_rank for s in found.values()] == [8, 8, 8, 4, 4]
    assert {s.epochs for s in found.values()} == {1}
    for wrong, message in (
        ({"strategies": ("lorra",)}, "unknown strategy 'lorra' (did you mean 'lora'?)"),
        ({"models": ("pt1_ft1-1+ewc",), "strategies": ("ewc",)}, "names a strategy"),
        ({"models": ("pt1_ft1-1",), "settings": {"lora_rank": 2}}, "read by strategy=lora alone"),
    ):
        with pytest.raises(InputError) as fault:
            Definition("wrong", **{"models": ("pt1_ft1-1",), "scale": "smoke"} | wrong)
        assert message in str(fault.value)
    named = Definition("named", ("pt1_ftwb1-1..2+ewc",), scale="smoke")
    assert [str(s.model_name) for s in named.resolved] == ["pt1_ftwb1-1+ewc", "pt1_ftwb1-2+ewc"]


# What it does


def test_replay_of_share_0_and_a_pull_of_strength_0_equal_plain(tmp_path):
    plain = weights(tune(tmp_path / "plain", "plain"))
    assert_equal(weights(tune(tmp_path / "replay", "replay", replay_share=0.0)), plain)
    assert_equal(weights(tune(tmp_path / "l2sp", "l2sp", l2sp_strength=0.0)), plain)


@pytest.mark.parametrize("pull", [float("inf"), 1e30])
def test_an_infinite_pull_leaves_the_weights_where_they_were(tmp_path, pull):
    model = tune(tmp_path, "l2sp", l2sp_strength=pull)
    assert changed(model, base_of(settings_of("l2sp"))) == set()


def test_a_stronger_pull_leaves_the_weights_nearer_to_the_bases(tmp_path):
    distances = []
    for strategy, pull in (("l2sp", 1.0), ("l2sp", 1e3), ("ewc", 1.0), ("ewc", 1e4)):
        settings = settings_of(strategy)
        model = tune(tmp_path / f"{strategy}{pull}", strategy, **{f"{strategy}_strength": pull})
        base = dict(base_of(settings).named_parameters())
        squares = [(w - base[name]).detach().square().sum() for name, w in model.named_parameters()]
        distances.append(float(sum(squares)))
    assert 0 < distances[1] < distances[0] / 2 and 0 < distances[3] < distances[2] / 2


def test_a_pull_is_the_implicit_step_of_its_penalty():
    model = torch.nn.Linear(3, 2)
    information = [torch.rand_like(p) for p in model.parameters()]
    home, pull = weights(model), Pull(model, 50.0, information)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    before = weights(model)
    pull.apply(0.01)
    for (name, after), f in zip(weights(model).items(), information, strict=True):
        # w minimises 0.5 / rate * (w - before)**2 + 0.5 * pull * f * (w - home)**2
        slope = (after - before[name]) / 0.01 + 50.0 * f * (after - home[name])
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-4, rtol=0)


def test_fisher_information_is_the_mean_squared_gradient_of_single_rows():
    settings = settings_of("ewc", fisher_rows=5)
    _, base_rows = rows_of(settings)
    model, rows = base_of(settings), base_rows[:5]  # all five are drawn, in some order
    found = fisher_information(model, rows, settings)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for row in rows:
        ids = torch.from_numpy(row[row != PAD]).long()[None]
        logits = model(input_ids=ids[:, :-1]).logits[0]
        loss = cross_entropy(logits, ids[0, 1:], reduction="sum")
        for total, gradient in zip(
            expected, torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            total += gradient**2
    mean = torch.cat([part.flatten() for part in expected]).mean()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other / mean, rtol=1e-3, atol=1e-5)
    assert torch.cat([part.flatten() for part in found]).mean() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("embeddings", ("model.embed_tokens.",)),
        ("body", ("model.layers.", "model.norm.", "lm_head.")),
        ("last-1", ("model.layers.1.", "model.norm.", "lm_head.")),
        ("first-1", ("model.embed_tokens.", "model.layers.0.")),
    ],
)
def test_freezing_trains_one_part_alone(tmp_path, part, expected):
    model = tune(tmp_path, "freeze", trained_part=part)
    base = base_of(settings_of("freeze"))
    names = {name for name, _ in base.named_parameters() if name.startswith(expected)}
    # The bias of keys moves no attention: its gradient is rounding alone, or nothing.
    assert changed(model, base) | {n for n in names if n.endswith("k_proj.bias")} == names


def test_lora_stores_merged_weights_and_trains_nothing_else(tmp_path):
    model = tune(tmp_path, "lora")
    base = base_of(settings_of("lora"))
    assert set(weights(model)) == set(weights(base))  # a plain model
    projections = {name for name, _ in base.named_parameters() if name.endswith("_proj.weight")}
    assert changed(model, base) == projections
    ranks = [
        torch.linalg.matrix_rank(weight - dict(base.named_parameters())[name], atol=1e-5)
        for name, weight in model.named_parameters()
        if name in projections
    ]
    assert max(ranks) <= 8 and max(ranks) > 0
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda folder: step_of(folder.name))
    stored = load_model(newest)
    assert_equal(weights(stored), weights(model))


def test_adapters_answer_like_the_merged_model():
    settings = settings_of("lora")
    base = base_of(settings)
    training = Training(copy.deepcopy(base), settings, make_accelerator(settings))
    adapted = training._adapted
    assert_equal(weights(training.result()), weights(base))  # they start as nothing
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(40).reshape(2, 20)
    before = weights(adapted)
    torch.testing.assert_close(training.result()(ids).logits, adapted(ids).logits)
    assert not torch.allclose(base(ids).logits, adapted(ids).logits)
    assert_equal(weights(adapted), before)  # merging leaves it as it is


def test_a_batch_holds_its_share_of_replayed_rows():
    settings = settings_of("replay", replay_share=0.25, epochs=3)
    own, base_rows = rows_of(settings)
    feed = RowFeed(own, settings, CPU, base_rows)
    assert feed.schedule == Schedule(len(own), 24, 3)  # of 32 rows
    batches = [feed.batch(step) for step in range(feed.schedule.steps)]
    replayed = np.concatenate([batch[batch >= len(own)] for batch in batches]) - len(own)
    assert all((batch >= len(own)).sum() == 8 for batch in batches)
    first_pass = replayed[: len(base_rows)]
    assert len(set(first_pass)) == len(first_pass)  # none twice before all were there once
    epoch = np.concatenate(batches[: feed.schedule.steps_per_epoch])
    assert sorted(epoch[epoch < len(own)]) == list(range(len(own)))
    tokens = [int((feed.rows[batch] != PAD).sum()) - len(batch) for batch in batches]
    assert max(tokens) <= feed.most_tokens() <= 1.2 * max(tokens)
    resumed = RowFeed(own, settings, CPU, base_rows)
    assert np.array_equal(resumed.batch(len(batches) - 1), batches[-1])


def test_replayed_rows_come_round_again():
    seen = np.concatenate([replay(step, count=4, n=10, seed=1) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])


def test_replayed_rows_are_those_of_the_bases_training_and_enter_the_fingerprint():
    settings = settings_of("replay")
    base = base_settings(settings)
    maker = maker_of(settings)
    assert base_sets(settings, maker.world) == training_sets(base, maker.world)
    assert base_sets(settings_of("plain"), maker.world) == []
    plain = settings_of("plain")
    assert training_sets(settings, maker.world) == training_sets(plain, maker.world)
    single = resolve(parse_model("pt1-3_ft1-1+replay"), scale="smoke")
    assert {s.task for s in base_sets(single, maker.world)} == {"angle"}


# With everything else


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path, strategy, optimizer):
    straight = weights(tune(tmp_path / "straight", strategy, optimizer=optimizer))
    with pytest.raises(Stopped):
        tune(tmp_path / "stopped", strategy, StoppingRecorder, optimizer=optimizer)
    assert_equal(weights(tune(tmp_path / "stopped", strategy, optimizer=optimizer)), straight)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_static_steps_train_like_eager_ones(strategy):
    found = []
    for kind in (EagerSteps, StaticSteps):
        settings = settings_of(strategy)
        own, base_rows = rows_of(settings)
        training = Training(base_of(settings), settings, make_accelerator(settings), base_rows)
        feed = RowFeed(own, settings, CPU, base_rows)
        steps = kind(training, feed)
        for _ in range(4):
            steps.take()
        found.append(SimpleNamespace(weights=weights(training.result()), numbers=steps.read()))
    eager, static = found
    assert static.numbers == pytest.approx(eager.numbers, rel=1e-3, abs=1e-6)
    for name, value in eager.weights.items():
        torch.testing.assert_close(static.weights[name], value, rtol=1e-4, atol=1e-5)
