"""The console command `worldrep`: the same click commands as `python -m` and `mlflow run`."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import yaml
from click.testing import CliRunner

from analysis.report import CHAPTERS
from entrypoints import finetune, study
from entrypoints.console import COMMANDS, main

ROOT = Path(__file__).parents[1]


def worldrep(*arguments, code=0):
    done = CliRunner().invoke(main, arguments, prog_name="worldrep")
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def program(tmp_path):
    """The program as pip installs it, and the variables under which a shell finds it."""
    place = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["worldrep"]
    assert resolve_name(place) is main
    module, _, function = place.partition(":")
    path = tmp_path / "bin" / "worldrep"
    path.parent.mkdir()
    lines = f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
    path.write_text(f"#!{sys.executable}\n{lines}")
    path.chmod(0o755)
    return os.environ | {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def test_every_command_is_there_and_is_the_one_of_its_module():
    entries = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert {*entries, *CHAPTERS, "report", "ask"} - {"main"} < set(COMMANDS)
    assert {module for module, _ in COMMANDS.values()} >= {
        f"entrypoints.{name}" for name in entries
    }
    for name, (module, _) in COMMANDS.items():
        command = import_module(module).main
        assert isinstance(command, click.Command)
        assert name in ("status", "plan") or main.get_command(None, name) is command


def test_help_lists_the_commands_and_imports_click_alone():
    code = (
        "import sys, entrypoints.console as console\n"
        "try: console.main(['--help'], prog_name='worldrep')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "assert not {'worldrep', 'analysis', 'yaml', 'numpy', 'pandas', 'torch'} & found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_a_study_is_named_without_an_option(store_uri):
    expected = CliRunner().invoke(
        study.main, ["--name", "exp1", "--seeds", "1", "--action", "plan"]
    )
    assert worldrep("plan", "exp1", "--seeds", "1") == expected.output
    assert worldrep("study", "exp1", "--action", "plan", "--seeds", "1") == expected.output
    assert "-P name=exp1 -P seeds=1 --env-manager" in expected.output
    assert "pt1_ftwb2-21  3     standard  missing" in worldrep("status", "exp1")
    assert "1 models, 3 steps" in worldrep("plan", "--models", "pt1")


def test_the_program_does_the_work_that_the_other_forms_find_done(store_uri, program):
    command = ["worldrep", "finetune", "ftwb1-3", "--scale", "smoke"]
    done = subprocess.run(command, env=program, capture_output=True, text=True)
    assert "ftwb1-3 s42 finetune: done, run" in done.stdout, done.stderr
    again = CliRunner().invoke(finetune.main, ["--ft", "ftwb1-3", "--scale", "smoke"])
    assert "already done" in again.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["studdy"], "unknown command 'studdy' (did you mean 'study'?)"),
        (["exp1", "--seeds", "1"], "exp1 is a study: worldrep study exp1"),
        (["study", "exp9"], "unknown study 'exp9'"),
        (["study", "exp1", "--name", "demo"], "name is given twice: demo and exp1"),
        (["study", "exp1", "--models", "pt1"], "name one study"),
        (["finetune", "ftwb1-9"], "unknown ft 'ftwb1-9'"),
        (["finetune", "ftwb1-1", "--ft", "ftwb1-1"], "ft is given twice"),
        (["report", "--scale", "big"], "unknown scale 'big'"),
    ],
)
def test_wrong_input_is_one_sentence(store_uri, arguments, sentence):
    output = worldrep(*arguments, code=2)
    assert output.startswith(f"Error: {sentence}") and output.count("\n") == 1


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["worldrep", "st"], {"study", "status"}),
        (["worldrep", ""], set(COMMANDS)),
        (["worldrep", "study", "--sha"], {"--shard"}),
        (["worldrep", "status", "--act"], set()),
    ],
)
def test_bash_completes_commands_and_options(program, typed, offered):
    script = (
        'eval "$(_WORLDREP_COMPLETE=bash_source worldrep)"\n'
        f"COMP_WORDS=({' '.join(repr(word) for word in typed)}); COMP_CWORD={len(typed) - 1}\n"
        '_worldrep_completion worldrep; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=program, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr
