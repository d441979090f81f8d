"""The training core, without MLflow: resuming, accumulation, precision, refusal of bad losses."""

import json

import pytest
import torch
from recorder import FolderRecorder
from safetensors.torch import load_file

from worldrep.data.rows import RowMaker
from worldrep.data.sets import load_rows, stack_rows, training_sets, validation_sets
from worldrep.data.world import world_of
from worldrep.errors import InputError, StateError
from worldrep.evaluation.suites import suite_of, validation_metrics
from worldrep.model.qwen2 import build_model, load_model, save_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.training.checkpoint import WEIGHTS, read_checkpoint
from worldrep.training.feed import RowFeed
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.optimizer import Muon, build_optimizers, learning_rate_at
from worldrep.training.processes import GROUP, check_environment
from worldrep.training.state import make_accelerator

pytestmark = pytest.mark.usefixtures("on_cpu")


def train_smoke(folder, *, stop_after=None, **overrides):
    """Train at smoke scale, from the last checkpoint in a folder; weights, and metrics by step."""
    settings = resolve(ModelName("pt1"), scale="smoke", overrides=overrides)
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    recorder = StoppingRecorder(folder, stop_after) if stop_after else FolderRecorder(folder)
    inputs = TrainingInputs(build_model(settings), rows, settings, make_accelerator(settings))
    model = train(inputs, recorder, checkpoint=recorder.latest())
    return {name: p.detach().clone() for name, p in model.named_parameters()}, read(folder)


class StoppingRecorder(FolderRecorder):
    """Raises after a number of checkpoints, as a crash would."""

    def __init__(self, folder, count):
        super().__init__(folder)
        self.left = count

    def checkpoint(self, folder):
        super().checkpoint(folder)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def read(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


def assert_equal(left, right):
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_the_same_seed_gives_equal_weights_and_another_seed_differs(tmp_path):
    first, _ = train_smoke(tmp_path / "a")
    second, _ = train_smoke(tmp_path / "b")
    assert_equal(first, second)
    settings = resolve(ModelName("pt1"), scale="smoke", seed=1)
    assert not torch.equal(build_model(settings).lm_head.weight, first["lm_head.weight"])


def test_training_changes_every_weight_and_lowers_the_loss(tmp_path):
    trained, metrics = train_smoke(tmp_path, epochs=10)
    initial = dict(build_model(resolve(ModelName("pt1"), scale="smoke")).named_parameters())
    assert all(not torch.equal(trained[name], value) for name, value in initial.items())
    losses = [metrics[step]["train/loss"] for step in sorted(metrics)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("checkpoints", [1, 2])
def test_a_stopped_and_resumed_training_ends_with_the_same_weights(
    tmp_path, checkpoints, optimizer
):
    straight, curve = train_smoke(tmp_path / "straight", optimizer=optimizer)
    with pytest.raises(KeyboardInterrupt):
        train_smoke(tmp_path / "stopped", stop_after=checkpoints, optimizer=optimizer)
    assert FolderRecorder(tmp_path / "stopped").latest().step > 0
    resumed, resumed_curve = train_smoke(tmp_path / "stopped", optimizer=optimizer)
    assert_equal(straight, resumed)
    assert {s: m["train/loss"] for s, m in curve.items()} == {
        s: m["train/loss"] for s, m in resumed_curve.items()
    }


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path):
    whole, curve = train_smoke(tmp_path / "whole")
    parts, parts_curve = train_smoke(tmp_path / "parts", accumulation=5)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)
    for step, values in curve.items():
        assert parts_curve[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-4)


def test_the_first_loss_is_that_of_transformers(tmp_path):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"batch_size": 448})
    maker = RowMaker(world_of(settings), settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    assert len(rows) == settings.batch_size
    tokens = torch.from_numpy(rows).long()
    labels = tokens.masked_fill(tokens == 0, -100)
    with torch.no_grad():
        expected = float(build_model(settings)(input_ids=tokens, labels=labels).loss)
    _, metrics = train_smoke(tmp_path, batch_size=448)
    assert metrics[1]["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_answer_loss_covers_answers_only(tmp_path):
    _, full = train_smoke(tmp_path / "full", batch_size=448)
    _, answer = train_smoke(tmp_path / "answer", batch_size=448, loss="answer")
    assert answer[1]["train/loss"] != pytest.approx(full[1]["train/loss"], rel=1e-3)


def test_the_environment_does_not_change_a_training(tmp_path, on_cpu, monkeypatch, capsys):
    from accelerate.state import AcceleratorState

    expected, _ = train_smoke(tmp_path / "expected")
    AcceleratorState._reset_state(reset_partial_state=True)
    given = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "no"}
    given |= {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "PMI_SIZE": "2", "PMI_RANK": "1"}
    given |= {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    weights, _ = train_smoke(tmp_path / "weights")
    assert all(weights[name].equal(value) for name, value in expected.items())
    ignored = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS, ACCELERATE_DYNAMO_BACKEND"
    assert capsys.readouterr().err.count(f"ignored: {ignored};") == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"RANK": "0"}, "has RANK without WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK='x' is not a whole number"),
        (dict.fromkeys(GROUP, "2"), "has RANK, WORLD_SIZE, LOCAL_RANK, but RANK is not below"),
    ],
)
def test_half_a_group_of_processes_is_refused(monkeypatch, given, sentence):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=sentence):
        check_environment()


def test_bf16_trains_close_to_float32(tmp_path):
    from accelerate.state import AcceleratorState

    _, exact = train_smoke(tmp_path / "exact")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        weights, rough = train_smoke(tmp_path / "rough", precision="bf16")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert all(value.dtype == torch.float32 for value in weights.values())
    last = max(exact)
    assert rough[last]["train/loss"] != exact[last]["train/loss"]
    assert rough[last]["train/loss"] == pytest.approx(exact[last]["train/loss"], rel=0.02)


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step(tmp_path):
    with pytest.raises(StateError, match=r"the loss is (nan|inf) at step \d+"):
        train_smoke(tmp_path, learning_rate=1e30)


def test_with_muon_both_rates_are_named(tmp_path):
    with pytest.raises(StateError, match="lower learning_rate and muon_learning_rate or more"):
        train_smoke(tmp_path, optimizer="muon", muon_learning_rate=1e30)


@pytest.mark.parametrize(("instructions", "slow"), [({}, True), ({"amx_bf16": True}, False)])
def test_bf16_on_a_cpu_without_instructions_for_it_is_said(monkeypatch, capsys, instructions, slow):
    from accelerate.state import AcceleratorState

    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, **instructions})
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"precision": "bf16"})
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        make_accelerator(settings)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert ("bf16 is slow on this CPU" in capsys.readouterr().err) == slow


def test_a_gradient_that_is_not_finite_stops_the_training_and_names_the_step(tmp_path, monkeypatch):
    def norm_of(self, parameters, most):
        return torch.tensor(float("inf"))

    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", norm_of)
    with pytest.raises(StateError, match="the gradient norm is inf at step 1; the step was not"):
        train_smoke(tmp_path)


def test_a_last_step_that_ruins_the_weights_fails(tmp_path):
    one_step = {"batch_size": 448, "epochs": 1, "warmup_steps": 0, "n_checkpoints": 1}
    with pytest.raises(StateError, match="weights are not finite after step 1: try a lower"):
        train_smoke(tmp_path, learning_rate=1e300, **one_step)


def test_the_learning_rate_warms_up_and_decays_linearly():
    steps, warmup, peak = 328_128, 50, 3e-4
    middle = warmup + (steps - warmup) // 2
    expected = {0: 0.0, 25: 1.5e-4, 50: 3e-4, middle: 1.5e-4, steps: 0.0}
    found = {step: learning_rate_at(step, steps, warmup, peak) for step in expected}
    assert found == pytest.approx(expected)


def test_only_matrices_decay():
    settings = resolve(ModelName("pt1"), scale="smoke")
    model = build_model(settings)
    (adamw,) = build_optimizers(model, settings)
    decayed, kept = adamw.param_groups
    assert decayed["weight_decay"] == 0.01 and kept["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_muon_takes_the_matrices_of_the_layers_and_adamw_all_else():
    overrides = {"optimizer": "muon", "learning_rate": 1e-3, "muon_learning_rate": 2e-3}
    settings = resolve(ModelName("pt1"), scale="smoke", overrides=overrides)
    model = build_model(settings)
    adamw, muon = build_optimizers(model, settings)
    names = {id(p): name for name, p in model.named_parameters()}
    (hidden,) = muon.param_groups
    matrices, others = ([names[id(p)] for p in g["params"]] for g in adamw.param_groups)
    assert matrices == ["model.embed_tokens.weight", "lm_head.weight"]
    assert len(hidden["params"]) == settings.n_layers * 7
    assert len(matrices) + len(others) + len(hidden["params"]) == len(names)
    assert [g["peak"] for g in (*adamw.param_groups, hidden)] == [1e-3, 1e-3, 2e-3]


def test_muon_takes_the_steps_of_torch_muon():
    """That of torch computes in bfloat16, so the two agree to its 8 bits."""
    torch.manual_seed(0)
    initial = [torch.randn(shape) for shape in ((16, 16), (16, 16), (16, 48), (48, 16))]
    found = []
    for optimizer in (Muon, torch.optim.Muon):
        torch.manual_seed(1)
        weights = [torch.nn.Parameter(matrix.clone()) for matrix in initial]
        stepper = optimizer(weights, lr=0.1, weight_decay=0.1)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn(weight.shape)
            stepper.step()
        found.append(
            [(weight - matrix).detach() for weight, matrix in zip(weights, initial, strict=True)]
        )
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_a_checkpoint_is_complete_or_absent(tmp_path):
    train_smoke(tmp_path)
    folder = tmp_path / "checkpoints" / "step-19"
    assert read_checkpoint(folder).step == 19
    whole = (folder / WEIGHTS).read_bytes()
    for damaged in (whole[:-7], whole[:-1] + b"x"):
        (folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(StateError, match="model.safetensors .*damaged"):
            read_checkpoint(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(StateError, match="manifest.json is damaged: it is missing"):
        read_checkpoint(folder)


def test_each_step_asks_once_for_its_rows(tmp_path, monkeypatch):
    asked, batch = [], RowFeed.batch
    monkeypatch.setattr(
        RowFeed, "batch", lambda feed, step: asked.append(step) or batch(feed, step)
    )
    train_smoke(tmp_path)
    assert asked == list(range(28))


def test_a_saved_model_loads_with_equal_weights(tmp_path):
    settings = resolve(ModelName("pt1"), scale="smoke")
    model = build_model(settings)
    save_model(model, tmp_path)
    assert_equal(dict(model.named_parameters()), dict(load_model(tmp_path).named_parameters()))
    assert set(load_file(tmp_path / WEIGHTS)) == set(model.state_dict())


def test_a_damaged_or_missing_model_is_named(tmp_path):
    with pytest.raises(StateError, match="config.json is damaged: it is missing"):
        load_model(tmp_path)
    save_model(build_model(resolve(ModelName("pt1"), scale="smoke")), tmp_path)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StateError, match="damaged"):
        load_model(tmp_path)


def test_validation_gives_every_task_a_number():
    settings = resolve(ModelName("pt1", "ftwb1-1"), scale="smoke")
    maker = RowMaker(world_of(settings), settings)
    sets = validation_sets(settings).items()
    suites = [suite_of(name, load_rows(maker, rows)) for name, rows in sets]
    metrics = validation_metrics(build_model(settings).eval(), suites)
    assert len(metrics) == 2 * 14
    assert metrics["val/atlantis/distance/mean"] > 0
