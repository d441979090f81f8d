"""What work needs, compared with the machine before anything starts."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from entrypoints import evaluate, pretrain, study, sweep
from worldrep.errors import InputError, StateError
from worldrep.model.qwen2 import build_model
from worldrep.names import parse_model
from worldrep.scales import resolve
from worldrep.stages import estimate
from worldrep.stages.estimate import Speed, Work, check_needs, weights
from worldrep.tracking import Store


def invoke(command, *arguments, code=0):
    result = CliRunner().invoke(command.main, ["--scale", "smoke", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def work(kind="train", model="pt1", scale="smoke", **overrides):
    return Work(kind, resolve(parse_model(model), scale=scale, overrides=overrides))


@pytest.mark.parametrize("scale", ["smoke", "mini", "paper"])
def test_weights_are_those_of_the_model(scale):
    settings = work(scale=scale).settings
    assert weights(settings) == pytest.approx(build_model(settings).num_parameters(), rel=0.1)


@pytest.mark.parametrize("scale", ["smoke", "mini", "small", "paper"])
def test_the_named_scales_fit_a_small_machine(scale):
    for kind in ("train", "evaluate", "extract"):
        assert work(kind, scale=scale).memory < 2e9
        assert work(kind, model="pt1@wider_ftwb1-1", scale=scale).memory < 8e9


@pytest.mark.parametrize(
    "sizes",
    [
        ["--hidden_size", "65536"],
        ["--intermediate_size", "1000000000"],
        ["--n_layers", "1024", "--hidden_size", "4096"],
        ["--pretrain_rows", "1000000000"],
        ["--batch_size", "1000000"],
    ],
)
def test_more_memory_than_there_is_is_refused_with_both_figures(store_uri, sizes):
    output = invoke(pretrain, *sizes, "--yes", code=2)
    assert output.startswith("Error: pt1 s42 pretrain needs at least ")
    assert "GB of memory, and this machine has " in output and output.count("\n") == 1
    assert Store.connect().find() == []


def test_more_disk_than_is_free_is_refused_with_both_figures(store_uri, monkeypatch):
    store, small = Store.connect(), shutil.disk_usage("/")._replace(free=10**6)
    works = [work(n_layers=40, n_checkpoints=100)]
    check_needs(store, works)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)  # a small disk needs root
    with pytest.raises(StateError, match=r"MB are to be written to .* and 1.0 MB are free: make"):
        check_needs(store, works)
    check_needs(store, [Work("train", works[0].settings, begun=True)])  # some of it is written


@pytest.mark.parametrize("command", [pretrain, sweep])
def test_work_of_days_asks_to_be_confirmed(store_uri, command):
    long = ["--epochs", "1000000", "--pretrain_rows", "2000000"]
    long += ["--name", "long", "--objective", "standard/angle/mean"] if command is sweep else []
    output = invoke(command, *long, code=2)
    basis = "(from the speed of a matrix product)"
    assert f"{basis}, and more than 24 hours are to be confirmed" in output
    assert "add --yes (with mlflow run: -P yes=true)" in output and output.count("\n") == 1
    assert Store.connect().find() == [] and not Path("sweeps").exists()


def test_the_paper_scale_asks_on_a_cpu_also_with_several_workers(monkeypatch):
    monkeypatch.setattr(estimate, "visible_gpus", lambda: 0)
    monkeypatch.setattr(estimate, "_measured_flops", lambda: 2e11)
    base = work(scale="paper")
    assert 20 < base.seconds_here / 3600 < 40  # measured: 0.28 s for each of 328,128 steps
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    store = SimpleNamespace(recent=lambda *_, **__: [])
    for workers in (1, 2):
        with pytest.raises(InputError, match="takes about 5[0-9] hours .* a matrix product"):
            estimate._check_time(store, [base, base], workers)


def test_every_checkpoint_counts_and_what_is_not_known_is_told():
    one, three = (work("evaluate"), replace(work("evaluate"), checkpoints=3))
    assert three.cost == 3 * one.cost
    speed = Speed({("train", "base"): 1e9}, 2)
    (times, basis), (alone, product) = speed.times([work(), three]), speed.times([three])
    assert basis == "2 finished runs, and the speed of a matrix product for 1 steps"
    assert times[1:] == alone == [three.seconds_here] and product == "the speed of a matrix product"


def test_the_speed_of_a_product_is_that_of_a_processor():
    assert 1e9 < estimate._measured_flops() < 1e14


def test_finished_runs_of_the_store_tell_the_time(store_uri, tmp_path):
    invoke(pretrain)
    long = ["--epochs", "900000"]  # hours by the arithmetic alone
    store, works = Store.connect(), [work(epochs=900_000)]
    with pytest.raises(InputError, match=r"takes about \d+ hours \(from 1 finished run\)"):
        check_needs(store, works, confirmed=False)
    check_needs(store, works, confirmed=True)
    check_needs(store, works, workers=10_000, confirmed=False)
    assert "are to be confirmed" in invoke(pretrain, *long, code=2)
    (tmp_path / "long.yaml").write_text("models: pt1\nscale: smoke\nsettings: {epochs: 900000}\n")
    asked = ["--name", str(tmp_path / "long.yaml"), "--workers", "1"]
    assert "are to be confirmed" in invoke(study, *asked, code=2)
    assert len(store.find()) == 1
    assert "already done" in invoke(pretrain)  # what is done needs nothing


def test_yes_is_a_flag_and_a_parameter(store_uri):
    for typed in (["--yes"], ["--yes", "true"], ["--yes", "--seed", "42"]):
        assert "done" in invoke(pretrain, *typed)
    assert "yes='maybe' is not one of: true, false" in invoke(pretrain, "--yes", "maybe", code=2)


def test_an_evaluation_is_weighed_too(store_uri, monkeypatch):
    invoke(pretrain)
    monkeypatch.setattr(estimate, "LONGEST", 0)
    assert "hours are to be confirmed" in invoke(evaluate, "--model", "pt1", code=2)
    assert "done" in invoke(evaluate, "--model", "pt1", "--yes")
