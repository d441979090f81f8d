"""Places that are full or read-only: one sentence, nothing lost, the same weights afterwards."""

import shutil
import subprocess
import sys
import tempfile

import pytest
from test_full_disks import SMOKE, leave_free, pretrain, resize, run, succeeds, weights
from test_read_only import COMMANDS, bound, content, read_only

from worldrep.tracking import Store

pytestmark = pytest.mark.endure

LEVELS = {  # kB that are free when the training begins
    "artifact store": (0, 8, 30, 60, 100, 150, 200, 260, 330, 400),
    "temporary folder": (8, 20, 40, 80, 110, 140),
    "cache": (0, 4, 8, 12, 20, 40, 60, 90),
    "database": (0, 8, 32, 128, 512),
}


@pytest.fixture(scope="module")
def right(new_store):
    with new_store("right"):
        succeeds(pretrain)
        (found,) = Store.connect().find(stage="pretrain")
        return weights(found.id)


def here():
    result = run(pretrain)
    return result.exit_code, result.output


def in_a_process():
    command = [sys.executable, "-m", "entrypoints.pretrain", *SMOKE]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


@pytest.mark.parametrize(("place", "free"), [(p, n) for p, found in LEVELS.items() for n in found])
def test_a_full_place(store_uri, tmp_path, small_disk, monkeypatch, right, place, free, tried):
    tried(f"full {place}")
    name = {"artifact store": "mlruns"}.get(place, "full")
    folder = small_disk(name, "8m")
    if place == "cache":
        monkeypatch.setenv("WORLDREP_CACHE", str(folder))
    elif place == "temporary folder":
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
    elif place == "database":
        shutil.move("mlflow.db", folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    filler = leave_free(folder, free)
    # A run cannot be closed in a full database, so that its process must be gone afterwards.
    code, output = in_a_process() if place == "database" else here()
    if code:
        told = "space is left" in output or "are free: make space" in output  # before or during it
        assert str(folder) in output and told, output
    if place != "database":  # in which nothing can be closed
        assert not [found for found in Store.connect().find() if found.status == "RUNNING"]
    filler.unlink()
    resize(folder, "16m")
    succeeds(pretrain)
    (found,) = Store.connect().find(stage="pretrain")
    assert found.status == "FINISHED" and weights(found.id) == right
    assert not list(tmp_path.glob("**/worldrep-*.tmp"))


PLACES = {  # what cannot be written -> where it is in the test's folder
    "artifact store": "mlruns",
    "temporary folder": "temporary",
    "cache": "cache",
    "database": "mlflow.db",
    "folder of the store": ".",
}
READING = ("study --name one.yaml --action status", "study --name one.yaml --action plan")
WRITING = ("pretrain", "finetune --ft ftwb1-1", "evaluate --model pt1", "extract --model pt1")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", READING + WRITING)
def test_a_read_only_place(store_uri, tmp_path, monkeypatch, right, place, command, tried):
    """A command succeeds or names what is wrong, and leaves the place as it is."""
    tried(f"read-only {place}")
    (tmp_path / "one.yaml").write_text("models: [pt1, pt1_ftwb1-1]\nscale: smoke\n")
    for name in ("temporary", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    if command != "pretrain":
        succeeds(pretrain)
    (tmp_path / "mlruns").mkdir(exist_ok=True)
    folder = tmp_path / PLACES[place]
    typed = command if command.startswith("study") else f"{command} --scale smoke"
    with read_only(folder):
        before = content(folder)
        code, output = bound(COMMANDS, f"entrypoints.{typed}", TMPDIR=tmp_path / "temporary")
        assert code == 0, output  # no traceback
        assert content(folder) == before
    assert output.startswith("== 0") or "\nError: " in output, output
    assert output.startswith("== 0") or command not in READING, output
    running = [run for run in Store.connect().find() if run.status == "RUNNING"]
    assert not running
    succeeds(pretrain)
    (found,) = Store.connect().find(stage="pretrain")
    assert found.status == "FINISHED" and weights(found.id) == right
