"""The commands as users type them: help, declared parameters, wrong input."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import yaml
from click.testing import CliRunner

from entrypoints import evaluate, extract, finetune, main, pretrain, study, sweep
from entrypoints.command import NOT_GIVEN, command, option
from worldrep.errors import InputError, StateError
from worldrep.settings import OVERRIDABLE

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "main": main.main,
    "study": study.main,
    "sweep": sweep.main,
    "pretrain": pretrain.main,
    "finetune": finetune.main,
    "evaluate": evaluate.main,
    "extract": extract.main,
}


def project():
    return yaml.safe_load((ROOT / "MLproject").read_text())


def test_the_project_declares_every_command():
    assert set(project()["entry_points"]) == set(COMMANDS)
    assert project()["conda_env"] == "conda.yaml"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_declared_parameter_reaches_its_command(name):
    entry = project()["entry_points"][name]
    placeholders = re.findall(r"--(\w+) {(\w+)}", entry["command"])
    assert all(option == parameter for option, parameter in placeholders)
    assert {parameter for _, parameter in placeholders} == set(entry["parameters"])
    options = {parameter.name: parameter for parameter in COMMANDS[name].params}
    for parameter, facts in entry["parameters"].items():
        default = options[parameter].default
        assert facts["default"] == (NOT_GIVEN if default is None else default), parameter


def test_what_mlproject_passes_for_an_option_without_a_default_is_not_given():
    seen = []

    @click.command
    @option("seeds", None, "Without a default.")
    @option("pruner", "auto", "With one, among others `none`.")
    def show(**options):
        seen.append(options)

    CliRunner().invoke(show, [], catch_exceptions=False)
    CliRunner().invoke(show, ["--seeds", NOT_GIVEN, "--pruner", "none"], catch_exceptions=False)
    CliRunner().invoke(show, ["--seeds", "1"], catch_exceptions=False)
    assert [found["seeds"] for found in seen] == [None, None, "1"]
    assert [found["pruner"] for found in seen] == ["auto", "none", "auto"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_can_be_overridden(name):
    options = {parameter.name for parameter in COMMANDS[name].params}
    assert set(OVERRIDABLE) <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name):
    code = (
        f"import sys, runpy; sys.argv = ['{name}', '--help']\n"
        f"try: runpy.run_module('entrypoints.{name}', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'mlflow', 'transformers', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    ("fault", "code"), [(InputError("what is allowed"), 2), (StateError("what is wrong"), 1)]
)
def test_a_fault_is_one_sentence_with_its_exit_code(fault, code):
    @command("failing")
    def failing():
        raise fault

    result = CliRunner().invoke(failing, [])
    assert (result.exit_code, result.output) == (code, f"Error: {fault}\n")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("finetune", ["--ft", "ftwb1-9"], "unknown ft 'ftwb1-9'"),
        ("finetune", ["--ft", "none"], "unknown ft 'none'"),
        ("pretrain", ["--scale", "mni"], "did you mean 'mini'"),
        ("pretrain", ["--pretrain", "pt4"], "unknown pretrain 'pt4'"),
        ("pretrain", ["--width", "huge"], "allowed: base, wide, narrow, wider"),
        ("pretrain", ["--world", "flat"], "allowed: standard, scattered, with_atlantis"),
        ("pretrain", ["--seed", "abc"], "seed='abc' is not a whole number"),
        ("pretrain", ["--seed", "-1"], "it must be at least 0"),
        ("pretrain", ["--epochs", "two"], "epochs='two' is not a whole number"),
        ("pretrain", ["--epochs", "0"], "it must be at least 1"),
        ("pretrain", ["--learning_rate", "nan"], "not a finite number"),
        ("pretrain", ["--n_cities", "99"], "do not fit ids of 2 digits"),
        ("pretrain", ["--n_heads", "5"], "multiple of 2*n_heads"),
        ("pretrain", ["--cities", "nowhere.csv"], "cannot read cities=nowhere.csv"),
        (
            "pretrain",
            ["--scale", "smoke", "--compute", "fast"],
            "auto, plain, packed, graph, compile",
        ),
        pytest.param(
            "pretrain",
            ["--scale", "smoke", "--compute", "graph"],
            "compute=graph needs a CUDA device; allowed here: auto, plain, packed",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
        ("main", ["--study", "dmeo"], "did you mean 'demo'"),
        ("study", ["--models", "pt1", "--name", "exp1"], "name one study: either name=exp1 or"),
        ("study", ["--models", "pt1_ftwb1-8"], "unknown ft 'ftwb1-8'"),
        ("study", ["--models", "pt1_ftwb1-3..1"], "run backwards"),
        ("study", ["--steps", "probe"], "unknown step 'probe'"),
        ("evaluate", [], "name one model"),
        ("evaluate", ["--model", "pt1", "--run_id", "x"], "name one model"),
        ("evaluate", ["--model", "pt1_ftwb1-8"], "unknown ft 'ftwb1-8'"),
        ("evaluate", ["--model", "pt1_"], "not of the form"),
        ("evaluate", ["--model", "pt1", "--answers", "maybe"], "one of: true, false"),
        ("evaluate", ["--run_id", "abc"], "run_id 'abc' is not in the store"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_no_run(store_uri, name, arguments, sentence):
    result = CliRunner().invoke(COMMANDS[name], arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert runs() == []


def test_an_unknown_option_is_named():
    result = CliRunner().invoke(pretrain.main, ["--epoch", "3"])
    assert result.exit_code == 2 and "--epochs" in result.output
    assert isinstance(pretrain.main, click.Command)


def test_a_model_that_is_not_there_comes_with_the_command_that_trains_it(store_uri):
    result = CliRunner().invoke(evaluate.main, ["--model", "pt1_ftwb1-3", "--scale", "smoke"])
    assert result.exit_code == 1
    assert "mlflow run . -e finetune -P ft=ftwb1-3" in result.output
    assert runs() == []


def test_an_absent_server_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = CliRunner().invoke(pretrain.main, ["--scale", "smoke"])
    assert result.exit_code == 1
    assert "cannot use the MLflow store at http://127.0.0.1:9" in result.output
    assert result.output.count("\n") == 1


def runs():
    from mlflow import MlflowClient

    client = MlflowClient()
    return client.search_runs([e.experiment_id for e in client.search_experiments()])
