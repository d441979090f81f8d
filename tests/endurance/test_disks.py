"""Each place filled up to many levels: one sentence, nothing lost, the same weights afterwards."""

import shutil
import subprocess
import sys
import tempfile

import pytest
from test_full_disks import SMOKE, leave_free, pretrain, resize, run, succeeds, weights

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
        assert str(folder) in output and "space is left" in output
    if place != "database":  # in which nothing can be closed
        assert not [found for found in Store.connect().find() if found.status == "RUNNING"]
    filler.unlink()
    resize(folder, "16m")
    succeeds(pretrain)
    (found,) = Store.connect().find(stage="pretrain")
    assert found.status == "FINISHED" and weights(found.id) == right
    assert not list(tmp_path.glob("**/worldrep-*.tmp"))
