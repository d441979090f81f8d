"""The journal of a sweep: writers that are killed, full disks, locks of processes that are gone."""

import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from worldrep.disk import FullError
from worldrep.errors import InputError
from worldrep.sweeps.journal import Journal


def study_of(path):
    storage = JournalStorage(Journal(path))
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def tell(study, n):
    for _ in range(n):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


@pytest.mark.parametrize("cut", [1, 2, 20, 25, 60])
def test_a_torn_last_record_is_dropped_and_the_next_are_kept(tmp_path, cut):
    path = tmp_path / "a.journal"
    tell(study_of(path), 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = whole[:-cut].rfind(b"\n") + 1
    assert len(study_of(path).trials) == 3
    tell(study_of(path), 1)
    states = [trial.state for trial in study_of(path).trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING, TrialState.COMPLETE]
    assert path.read_bytes().startswith(whole[:kept])


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_a_journal_whose_first_record_is_torn_begins_anew(tmp_path, size):
    path = tmp_path / "a.journal"
    study_of(path)
    path.write_bytes(path.read_bytes()[:size])
    tell(study_of(path), 1)
    assert len(study_of(path).trials) == 1


@pytest.mark.parametrize("content", [b"a: 1\n", b"{}\n", b'{"x": 1}', b"\n", b"SQLite format 3\0"])
def test_another_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a journal of Optuna"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_full_disk_is_named_and_the_sweep_goes_on_when_there_is_space(small_disk):
    folder = small_disk("full", "64k")
    path = folder / "a.journal"
    study = study_of(path)
    with pytest.raises(FullError, match=f"no space is left in the journal of the sweep {folder}"):
        tell(study, 1000)
    assert path.read_bytes().endswith(b"\n")
    known = len(optuna.load_study(storage=JournalStorage(Journal(path)), study_name="s").trials)
    subprocess.run(["mount", "-o", "remount,size=1m", folder], check=True)
    tell(study_of(path), 2)
    assert len(study_of(path).trials) == known + 2


def test_the_lock_of_a_killed_writer_holds_nobody_up(tmp_path):
    path = tmp_path / "a.journal"
    tell(study_of(path), 1)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from worldrep.sweeps.journal import Journal\n"
        "os.fsync = lambda number: os.kill(os.getpid(), 9)\n"
        "Journal(Path(sys.argv[1])).append_logs([{'op_code': 99}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, path])
    assert killed.returncode == -signal.SIGKILL
    path.write_bytes(path.read_bytes().removesuffix(b'{"op_code":99}\n'))
    os.symlink(path, f"{path}.lock")  # what a killed writer of Optuna's own leaves
    begun = time.monotonic()
    tell(study_of(path), 1)
    assert time.monotonic() - begun < 20  # Optuna's own waits for 30 s
    assert len(study_of(path).trials) == 2


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "deep" / "a.journal"
    study_of(path)
    code = (
        "import sys, optuna\n"
        "from pathlib import Path\n"
        "from optuna.storages import JournalStorage\n"
        "from worldrep.sweeps.journal import Journal\n"
        "storage = JournalStorage(Journal(Path(sys.argv[1])))\n"
        "study = optuna.load_study(storage=storage, study_name='s')\n"
        "for _ in range(20):\n"
        "    study.tell(study.ask(), 1.0)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    trials = study_of(path).trials
    assert [trial.number for trial in trials] == list(range(60))
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
