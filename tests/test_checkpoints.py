"""Checkpoints that are whole by size and digest and not by content, and what the store keeps."""

import errno
import os
import stat

import pytest
import torch
from click.testing import CliRunner
from recorder import FolderRecorder
from safetensors.torch import load_file, save_file

from entrypoints.evaluate import main as evaluate
from entrypoints.finetune import main as finetune
from entrypoints.pretrain import main as pretrain
from worldrep.data.sets import maker_of, stack_rows, training_sets
from worldrep.errors import StateError
from worldrep.model.qwen2 import build_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.stages.train import train_model
from worldrep.tracking import Store
from worldrep.tracking.artifacts import Artifacts
from worldrep.training.checkpoint import STATE, WEIGHTS, read_checkpoint, write_manifest
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.state import CheckpointError, make_accelerator

pytestmark = pytest.mark.usefixtures("on_cpu")

HEAD = "optimizer/lm_head.weight/"
STEPS, MIDDLE = 28, 19


def drop(*parts):
    def change(weights, state):
        for name in [name for name in state if name.startswith(parts)]:
            del state[name]

    return change


def put(name, value, *, into=1):
    def change(*tensors):
        tensors[into][name] = value(tensors[into].get(name))

    return change


def step(number):
    return put("step", lambda old: torch.tensor(number))


def first_is(number):
    def fill(old):
        new = old.clone()
        new.view(-1)[0] = number
        return new

    return fill


DAMAGES = {
    "no optimizer state": (drop("optimizer/"), "optimizer/.* is absent, should be float32"),
    "one parameter without": (drop(HEAD), f"{HEAD}exp_avg is absent"),
    "no second moment": (drop(f"{HEAD}exp_avg_sq"), f"{HEAD}exp_avg_sq is absent"),
    "no random state": (drop("rng"), "rng"),
    "a short random state": (
        put("rng", lambda old: old[:-8]),
        "not the state of a training|rng is",
    ),
    "a random state of zeros": (put("rng", torch.zeros_like), "it is not the state of a training"),
    "no step": (drop("step"), "step"),
    "a step beyond the end": (step(10**9), "it is of step 1000000000"),
    "another step": (step(9), "it is of step 9"),
    "step 0": (step(0), "it is of step 0"),
    "weights not a number": (
        put("lm_head.weight", first_is(float("nan")), into=0),
        "lm_head.weight is not finite",
    ),
    "infinite moments": (put(f"{HEAD}exp_avg", first_is(float("inf"))), "exp_avg is not finite"),
    "other shapes": (put("lm_head.weight", lambda old: old[:, :8].clone(), into=0), "lm_head"),
    "other moments": (put(f"{HEAD}exp_avg", lambda old: old[:, :8].clone()), "exp_avg is float32"),
    "other type": (put(f"{HEAD}exp_avg", lambda old: old.double()), "exp_avg is float64"),
    "a weight missing": (
        lambda weights, state: weights.pop("model.norm.weight"),
        "model.norm.weight is absent",
    ),
    "a weight too many": (put("more", lambda old: torch.ones(2), into=0), "more is float32"),
    "a state too many": (put("more", lambda old: torch.ones(2)), "more is float32"),
}


def alter(folder, change):
    """Change the tensors of a checkpoint, and make its manifest again."""
    weights, state = load_file(folder / WEIGHTS), load_file(folder / STATE)
    change(weights, state)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    save_file(state, folder / STATE)
    write_manifest(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, own_cache):
    """A finished training without a store: its inputs and its folder."""
    settings = resolve(ModelName("pt1"), scale="smoke")
    maker = maker_of(settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    folder = tmp_path_factory.mktemp("trained")
    train(inputs_of(settings, rows), FolderRecorder(folder))
    return settings, rows, folder / "checkpoints"


def inputs_of(settings, rows):
    return TrainingInputs(build_model(settings), rows, settings, make_accelerator(settings))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_of_other_content_is_refused_and_named(trained, tmp_path, name):
    settings, rows, checkpoints = trained
    change, words = DAMAGES[name]
    folder = tmp_path / f"step-{MIDDLE}"
    folder.mkdir()
    for path in (checkpoints / folder.name).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert read_checkpoint(folder).step == MIDDLE
    alter(folder, change)
    model = build_model(settings)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    inputs = TrainingInputs(model, rows, settings, make_accelerator(settings))
    with pytest.raises(StateError, match=words):
        train(inputs, None, checkpoint=read_checkpoint(folder))
    assert all(weight.equal(before[name]) for name, weight in model.named_parameters())


def test_a_checkpoint_of_a_longer_training_is_refused(trained):
    settings, rows, checkpoints = trained
    shorter = resolve(ModelName("pt1"), scale="smoke", overrides={"epochs": 1})
    with pytest.raises(CheckpointError, match=f"step {MIDDLE} is not one of the 14 to take"):
        checkpoint = read_checkpoint(checkpoints / f"step-{MIDDLE}")
        train(inputs_of(shorter, rows), None, checkpoint=checkpoint)


def test_a_checkpoint_of_another_optimizer_is_refused(trained):
    settings, rows, checkpoints = trained
    muon = resolve(ModelName("pt1"), scale="smoke", overrides={"optimizer": "muon"})
    with pytest.raises(CheckpointError, match="momentum_buffer is absent|exp_avg is float32"):
        checkpoint = read_checkpoint(checkpoints / f"step-{MIDDLE}")
        train(inputs_of(muon, rows), None, checkpoint=checkpoint)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 100])
def test_a_file_that_holds_no_tensors_is_no_checkpoint(trained, tmp_path, content):
    folder = tmp_path / f"step-{MIDDLE}"
    folder.mkdir()
    for name in ("config.json", WEIGHTS, STATE):
        (folder / name).write_bytes(content)
    write_manifest(folder)
    with pytest.raises(StateError, match="model.safetensors is damaged"):
        read_checkpoint(folder)


# In the store


def stop_late(progress):
    if progress.done > progress.total * 0.9:
        raise KeyboardInterrupt


def interrupted(settings, tmp_path):
    """A training that was stopped: its run id, and the folders of its checkpoints by step."""
    with pytest.raises(KeyboardInterrupt):
        train_model(Store.connect(), settings, progress=stop_late)
    (run,) = Store.connect().find(stage="pretrain")
    (checkpoints,) = tmp_path.glob(f"mlruns/*/{run.id}/artifacts/checkpoints")
    return run.id, {int(path.name[5:]): path for path in checkpoints.iterdir()}


def states(checkpoints):
    return sorted(number for number, path in checkpoints.items() if (path / STATE).exists())


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("name", ["no optimizer state", "weights not a number"])
def test_a_training_goes_on_from_the_newest_checkpoint_that_is_right(
    store_uri, tmp_path, trained, capsys, name, damaged
):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"n_checkpoints": 7})
    run_id, checkpoints = interrupted(settings, tmp_path)
    newest = sorted(checkpoints)
    change, _ = DAMAGES[name]
    for number in newest[-damaged:]:
        alter(checkpoints[number], change)
    capsys.readouterr()
    assert train_model(Store.connect(), settings) == run_id
    lines = capsys.readouterr().out.splitlines()
    for number in newest[-damaged:]:
        assert any(f"checkpoint after step {number} is not used: " in line for line in lines)
    resumed = [line for line in lines if "resumed after step" in line]
    assert resumed == [f"pt1 s42 pretrain: resumed after step {newest[-2]}"] * (damaged == 1)
    found = load_file(tmp_path / next(tmp_path.glob("mlruns/*/*/artifacts/model")) / WEIGHTS)
    right = load_file(trained[2] / f"step-{STEPS}" / WEIGHTS)
    assert found.keys() == right.keys()
    assert all(found[name].equal(right[name]) for name in right)


def test_two_checkpoints_of_a_training_keep_its_state_and_none_of_a_finished_one(
    store_uri, tmp_path
):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"n_checkpoints": 7})
    _, checkpoints = interrupted(settings, tmp_path)
    assert len(checkpoints) == 6 and states(checkpoints) == sorted(checkpoints)[-2:]
    store = Store.connect()
    run_id = train_model(store, settings)
    (folder,) = tmp_path.glob("mlruns/*/*/artifacts/checkpoints")
    checkpoints = {int(path.name[5:]): path for path in folder.iterdir()}
    assert len(checkpoints) == 7 and states(checkpoints) == []
    result = CliRunner().invoke(evaluate, ["--run_id", run_id, "--checkpoints", "all"])
    assert result.exit_code == 0, result.output


def test_a_finished_training_that_is_stopped_while_states_are_deleted_stays_finished(
    store_uri, monkeypatch
):
    def stop(artifacts, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Artifacts, "delete", stop)
        train_model(
            Store.connect(),
            resolve(ModelName("pt1"), scale="smoke", overrides={"n_checkpoints": 2}),
        )
    (run,) = Store.connect().find(stage="pretrain")
    assert run.status == "FINISHED" and not run.alive


def test_no_hard_links_are_needed(store_uri, monkeypatch):
    """Some file systems have none; this stands for one, which cannot be mounted here."""

    def refuse(*given, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert CliRunner().invoke(pretrain, ["--scale", "smoke"]).exit_code == 0


def test_files_have_the_permissions_of_the_umask(store_uri, tmp_path):
    before = os.umask(0o027)
    try:
        result = CliRunner().invoke(pretrain, ["--scale", "smoke"])
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    files = [path for path in tmp_path.glob("mlruns/**/*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json", ".csv"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_a_damaged_model_is_named_with_the_way_out(store_uri, tmp_path):
    def run(command, *arguments):
        return CliRunner().invoke(command, [*arguments, "--scale", "smoke"])

    assert run(pretrain).exit_code == 0
    (base,) = Store.connect().find(stage="pretrain")
    (weights,) = tmp_path.glob("mlruns/*/*/artifacts/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    for command, name in ((finetune, ["--ft", "ftwb1-1"]), (evaluate, ["--model", "pt1"])):
        result = run(command, *name)
        assert result.exit_code == 1 and result.output.count("\n") == 1
        named = f"run {base.id}: artifact model/model.safetensors is damaged: it has "
        assert named in result.output
        assert f"mlflow runs delete --run-id {base.id}" in result.output
        assert "/tmp" not in result.output
    Store.connect().client.delete_run(base.id)
    assert run(finetune, "--ft", "ftwb1-1").exit_code == 0


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")
@pytest.mark.parametrize("closed", ["settings.json", "model", "model/model.safetensors"])
def test_what_may_not_be_read_is_not_called_absent(store_uri, tmp_path, closed):
    assert CliRunner().invoke(pretrain, ["--scale", "smoke"]).exit_code == 0
    (run,) = Store.connect().find(stage="pretrain")
    (folder,) = tmp_path.glob("mlruns/*/*/artifacts")
    (folder / closed).chmod(0)
    opened = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_mode & 0o5 != 0o5]
    modes = {path: path.stat().st_mode for path in opened}
    store, artifact = Store.connect(), closed.split("/")[0]
    for path in opened:
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StateError, match="cannot be read: .*Permission denied"):
            store.artifact(run.id, artifact, tmp_path)
        with pytest.raises(StateError, match="has no artifact nothing"):
            store.artifact(run.id, "nothing", tmp_path)
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
