"""Real full file systems under each place that is written to."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from entrypoints.evaluate import main as evaluate
from entrypoints.finetune import main as finetune
from entrypoints.pretrain import main as pretrain
from entrypoints.study import main as study
from entrypoints.sweep import main as sweep
from worldrep.tracking import Store

SMOKE = ["--scale", "smoke"]
pytestmark = pytest.mark.slow


def run(command, *arguments):
    result = CliRunner().invoke(command, [*SMOKE, *arguments])
    assert result.exit_code in (0, 1) and "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def refused(command, *arguments):
    result = run(command, *arguments)
    assert result.exit_code == 1
    return result.output


def succeeds(command, *arguments):
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def resize(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def leave_free(folder, kilobytes):
    """Fill a file system; return the file that does."""
    filler = folder / "filler"
    free = int(subprocess.check_output(["df", "--output=avail", folder]).split()[1])
    filler.write_bytes(bytes((free - kilobytes) * 1024))
    return filler


def only_run(stage):
    (found,) = Store.connect().find(stage=stage)
    return found


def weights(run_id):
    with Store.connect().download(run_id, "model/model.safetensors") as path:
        return path.read_bytes()


@pytest.fixture
def filled_later(monkeypatch):
    """Stands for other programs that fill a disk after its free space was compared."""
    monkeypatch.setattr("worldrep.stages.estimate._check_disks", lambda store, works: None)


@pytest.fixture
def temporary(small_disk, monkeypatch):
    folder = small_disk("temporary", "4m")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_training_goes_on_from_the_checkpoint_that_a_full_artifact_store_did_not_take(
    store_uri, small_disk, filled_later
):
    folder = small_disk("mlruns", "220k")
    *progress, error = refused(pretrain).splitlines()
    assert f"no space is left in the artifact store {folder}" in error
    assert "82.0 kB needed" in error
    assert all(line.startswith("pt1 s42 pretrain: step ") for line in progress)
    stopped = only_run("pretrain")
    assert stopped.status == "FAILED" and "no space is left" in stopped.tag("error")
    (manifest,) = folder.glob("*/*/artifacts/checkpoints/*/manifest.json")
    assert manifest.parent.name == "step-9"
    resize(folder, "4m")
    assert "resumed after step 19" in succeeds(pretrain)
    assert only_run("pretrain").id == stopped.id
    succeeds(pretrain, "--experiment", "straight")
    (straight,) = Store.connect("straight").find(stage="pretrain")
    assert weights(stopped.id) == weights(straight.id)


def test_an_artifact_store_without_space_is_told_before_anything_starts(store_uri, small_disk):
    folder = small_disk("mlruns", "220k")
    assert f"are to be written to {folder}" in refused(pretrain)
    assert Store.connect().find() == []


def test_a_full_artifact_store_fails_a_study_step_with_a_sentence(
    store_uri, small_disk, filled_later
):
    folder = small_disk("mlruns", "150k")
    Path("small.yaml").write_text("models: [pt1]\nscale: smoke\n")
    result = CliRunner().invoke(study, ["--name", "small.yaml", "--workers", "1"])
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"FAILED: no space is left in the artifact store {folder}" in result.output
    assert not [run for run in Store.connect().find() if run.status == "RUNNING"]
    resize(folder, "8m")
    result = CliRunner().invoke(study, ["--name", "small.yaml", "--workers", "1"])
    assert result.exit_code == 0, result.output


def test_a_full_temporary_folder_ends_a_training_with_a_sentence(store_uri, temporary):
    filler = leave_free(temporary, 40)
    output = refused(pretrain)
    assert (
        f"no space is left in the temporary folder (TMPDIR) {temporary} (106.4 kB needed" in output
    )
    assert only_run("pretrain").status == "FAILED"
    filler.unlink()
    assert not list(temporary.iterdir())
    succeeds(pretrain)


def test_a_full_temporary_folder_ends_an_evaluation_with_a_sentence(store_uri, temporary):
    succeeds(pretrain)
    filler = leave_free(temporary, 12)
    output = refused(evaluate, "--model", "pt1")
    assert f"no space is left in the temporary folder (TMPDIR) {temporary}" in output
    filler.unlink()
    succeeds(evaluate, "--model", "pt1")


def test_a_full_cache_ends_a_training_before_its_run_is_made(store_uri, small_disk, monkeypatch):
    folder = small_disk("cache", "32k")
    monkeypatch.setenv("WORLDREP_CACHE", str(folder))
    assert f"no space is left in the cache (WORLDREP_CACHE) {folder}" in refused(pretrain)
    assert Store.connect().find(stage="pretrain") == []
    resize(folder, "4m")
    succeeds(pretrain)


def test_a_full_disk_under_the_database_is_named(store_uri, small_disk, monkeypatch):
    folder = small_disk("database", "8m")
    shutil.move("mlflow.db", folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    succeeds(pretrain)
    filler = leave_free(folder, 0)
    output = refused(finetune, "--ft", "ftwb1-1")
    assert f"sqlite:///{folder}/mlflow.db" in output and "no space is left for it" in output
    filler.unlink()
    succeeds(finetune, "--ft", "ftwb1-1")
    assert only_run("finetune").status == "FINISHED"


def test_a_sweep_does_not_count_trials_that_a_full_disk_ended(store_uri, temporary):
    arguments = ["--ft", "ftwb1-1", "--n_trials", "2", "--objective", "trained", "--name", "s"]
    Path("space.yaml").write_text("learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}\n")
    arguments += ["--space", "space.yaml"]
    filler = leave_free(temporary, 180)  # enough for the base, not for all of a trial's files
    succeeds(pretrain)
    filler.unlink()
    filler = leave_free(temporary, 12)
    assert "no space is left in the temporary folder" in refused(sweep, *arguments)
    filler.unlink()
    output = succeeds(sweep, *arguments)
    assert "FAILED" not in output and "[2/2]" in output
