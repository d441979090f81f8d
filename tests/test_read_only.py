"""Folders that cannot be written: what they hold is used, and nothing else is asked of them."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from worldrep.data.sets import cached, load_rows, maker_of, suite_sets
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.tracking import Store

CAPABILITIES = "-dac_override,-dac_read_search"  # by which root writes where it may not


@contextmanager
def read_only(folder):
    """Take away the permission to write a folder and what is in it."""
    paths = [folder, *folder.rglob("*")]
    before = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def bound(program, *arguments, **variables):
    """Run a Python program, for which permissions hold also if it is root's; all that it prints."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    if os.geteuid() == 0:
        bounds = [f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}"]
        command = ["setpriv", *bounds, *command]
    done = subprocess.run(
        command,
        env=os.environ | {key: str(value) for key, value in variables.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def content(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


COMMANDS = """
    import sys
    from click.testing import CliRunner
    from importlib import import_module
    for typed in sys.argv[1:]:
        module, *arguments = typed.split()
        done = CliRunner().invoke(import_module(module).main, arguments, catch_exceptions=False)
        print(f"== {done.exit_code}\\n{done.output}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_reading_commands_need_no_right_to_write(synthetic, tmp_path, journal):
    synthetic.tuned("ftwb1-1", synthetic.base(), 0.5)
    with closing(sqlite3.connect("mlflow.db")) as connection:
        connection.execute(f"pragma journal_mode={journal}")
    Path("one.yaml").write_text("models: [pt1]\n")
    store, out = tmp_path / "mlflow.db", tmp_path.with_name(f"{tmp_path.name}-out")
    out.mkdir()
    study, seeds = f"entrypoints.study --name {tmp_path}/one.yaml", "analysis.reciprocity --out out"
    before = content(tmp_path)
    with read_only(tmp_path):
        code, output = bound(
            f"import os; os.chdir({str(out)!r})\n" + textwrap.dedent(COMMANDS),
            f"{study} --action status", f"{study} --action plan",
            f"{seeds} --no-log", f"{seeds}", f"{study} --executor inline",
            HOME=tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{store}",
        )  # fmt: skip
        assert content(tmp_path) == before
    status, plan, read, logged, begun = output.split("== ")[1:]
    assert status.startswith("0") and "1 models, 3 steps" in status, output
    assert plan.startswith("0") and read.startswith("0"), output
    for refused in (logged, begun):
        assert refused.startswith("1") and "is read-only: nothing can be recorded" in refused
    assert (out / "out" / "statistics.json").exists()


def test_a_read_only_store_without_the_experiment(store_uri, tmp_path):
    with read_only(tmp_path):
        code, output = bound(COMMANDS, "entrypoints.study --action status")
    assert code == 0 and output.startswith("== 1"), output
    assert "has no experiment 'worldrep': nothing was recorded yet" in output


def test_a_store_that_others_write_is_read_as_it_is_now(store_uri, tmp_path):
    store = Store.connect()
    program = """
        from worldrep.tracking import Store
        print(len(Store.connect().client.search_runs([Store.connect().experiment_id])))
    """
    with closing(sqlite3.connect("mlflow.db")) as writer:
        writer.execute("pragma journal_mode=wal")
        store.client.create_run(store.experiment_id)
        assert Path("mlflow.db-wal").stat().st_size  # not yet in the file itself
        with read_only(tmp_path):
            assert bound(program) == (0, "1\n")


def test_a_complete_cache_is_used_and_an_incomplete_one_by_passed(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    settings = resolve(ModelName("pt1"), scale="smoke")
    rows = suite_sets(settings)["standard/angle"]
    expected = load_rows(maker_of(settings), rows)
    program = """
        import sys, tempfile
        from worldrep.data.sets import cached, load_rows, maker_of, suite_sets
        from worldrep.model.linear import linear_library
        from worldrep.names import ModelName
        from worldrep.scales import resolve
        settings = resolve(ModelName("pt1"), scale="smoke")
        for name in sys.argv[1:]:
            rows = suite_sets(settings)[name]
            for again in range(2):
                print(name, int(load_rows(maker_of(settings), rows).sum()))
        if len(sys.argv) > 2:
            linear_library()
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    used = f"standard/angle {int(expected.sum())}\n" * 2
    with read_only(tmp_path / "cache"):
        before = content(tmp_path)
        assert bound(program, "standard/angle", TMPDIR=temporary) == (0, used)
        code, output = bound(program, "standard/angle", "standard/compass", TMPDIR=temporary)
        assert content(tmp_path) == before
    assert code == 0 and output.startswith(used)
    sentence = f"the cache {tmp_path / 'cache'} cannot be written (Permission denied)"
    assert output.count(sentence) == 1 and output.count("standard/compass") == 2
    right = int(load_rows(maker_of(settings), suite_sets(settings)["standard/compass"]).sum())
    assert output.count(f"standard/compass {right}\n") == 2
    assert not [*temporary.iterdir()]


def test_a_damaged_file_of_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    cached("rows", lambda: np.arange(3, dtype=np.uint8))
    (file,) = (tmp_path / "cache").glob("rows.*.npy")
    file.write_bytes(file.read_bytes()[:50])
    program = """
        import numpy as np
        from worldrep.data.sets import cached
        print(cached("rows", lambda: np.arange(3, dtype=np.uint8)).tolist())
    """
    with read_only(tmp_path / "cache"):
        code, output = bound(program)
    assert code == 0 and output.endswith("[0, 1, 2]\n")


@pytest.mark.slow
def test_a_study_with_a_home_that_cannot_be_written(store_uri, tmp_path, monkeypatch):
    monkeypatch.delenv("WORLDREP_CACHE")
    home = tmp_path / "home"
    home.mkdir()
    Path("one.yaml").write_text("models: [pt1]\nscale: smoke\n")
    command = "entrypoints.study --name one.yaml --executor processes"
    # A short path: the processes make a socket in it, whose name may have 107 characters.
    with read_only(home), TemporaryDirectory() as folder:
        code, output = bound(COMMANDS, command, HOME=home, TMPDIR=Path(folder))
        assert not [*Path(folder).glob("worldrep-*")]
    assert code == 0 and "== 0" in output and "study one: done" in output, output
    assert "cannot be written (Permission denied)" in output
