"""Temporary folders: deleted by their process, or by the next one of the same user."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from worldrep import disk
from worldrep.disk import FullError, TemporaryFolder, remove_abandoned, temporary_folder
from worldrep.tracking import Store

HOLD = """
import os, signal, sys, time
from worldrep.disk import temporary_folder
with temporary_folder() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(disk, "_searched", set())
    return folder


def holder():
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def end(process, number):
    process.send_signal(number)
    process.communicate()


def test_the_folder_is_deleted_after_the_block_however_it_ends(place):
    for fault in (None, ValueError(), KeyboardInterrupt()):
        with suppress(ValueError, KeyboardInterrupt), temporary_folder() as folder:
            (folder / "file").touch()
            assert folder.parent == place
            if fault:
                raise fault
        assert list(place.iterdir()) == []


def test_the_next_process_removes_what_killed_ones_left_and_nothing_else(place):
    (killed, left), (living, held) = holder(), holder()
    end(killed, signal.SIGKILL)
    others = [place / name for name in ("worldrep-notes", "worldrep-other-host-abcd1234.tmp")]
    for other in others:
        other.mkdir()
    assert left.exists() and held.exists()
    try:
        remove_abandoned()
        assert not left.exists() and (held / "deep" / "file").exists()
        assert all(other.exists() for other in others)
    finally:
        end(living, signal.SIGKILL)


def test_each_command_that_opens_the_store_removes_them(place, store_uri):
    from worldrep.tracking import Store

    process, left = holder()
    end(process, signal.SIGKILL)
    Store.connect()
    assert not left.exists()


def test_many_processes_that_begin_and_look_at_once_do_not_harm_each_other(place):
    code = (
        "from worldrep import disk\n"
        "for number in range(200):\n"
        "    disk._searched.clear()\n"
        "    with disk.temporary_folder() as folder:\n"
        "        (folder / 'file').write_text('x')\n"
        "        assert (folder / 'file').read_text() == 'x'\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert list(place.iterdir()) == []


def test_what_was_kept_for_a_run_that_nobody_takes_up_is_removed_after_a_month(
    store_uri, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    outbox, heartbeats = tmp_path / "cache/outbox", tmp_path / "cache/heartbeats"
    for days in (29, 31):
        (outbox / f"run{days}.0").mkdir(parents=True)
        heartbeats.mkdir(exist_ok=True)
        (heartbeats / f"{days}.json").write_text("[]")
        for path in (outbox / f"run{days}.0", heartbeats / f"{days}.json"):
            moment = time.time() - days * 86_400
            os.utime(path, (moment, moment))
    Store.connect()
    assert [path.name for path in outbox.iterdir()] == ["run29.0"]
    assert [path.name for path in heartbeats.iterdir()] == ["29.json"]


def test_a_folder_that_an_object_holds_lives_as_long_as_the_object(place):
    held = TemporaryFolder()
    path = held.path
    assert path.is_dir()
    del held
    assert not path.exists()


def test_an_object_that_lives_to_the_end_of_its_process_leaves_nothing(place):
    code = "from worldrep.disk import TemporaryFolder\nheld = TemporaryFolder()\n"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert list(place.iterdir()) == []


def test_a_full_one_is_named_with_what_was_needed(small_disk):
    folder = small_disk("full", "64k")
    with pytest.raises(FullError) as fault, temporary_folder(folder, needed=2_500_000) as made:
        (made / "file").write_bytes(bytes(2_500_000))
    assert f"temporary folder (TMPDIR) {folder} (2.5 MB needed, 65.5 kB free)" in str(fault.value)


def test_an_error_of_safetensors_counts_as_full(small_disk):
    import torch
    from safetensors.torch import save_file

    folder = small_disk("full", "64k")
    with pytest.raises(FullError), temporary_folder(folder) as made:
        save_file({"a": torch.zeros(100_000)}, made / "file")


def test_a_limit_on_file_sizes_counts_as_full(place):
    code = (
        "import resource\n"
        "from worldrep.disk import FullError, temporary_folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with temporary_folder() as folder:\n"
        "        (folder / 'file').write_bytes(bytes(5000))\n"
        "except FullError as fault:\n"
        "    print(fault)\n"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.startswith("no space is left in the temporary folder (TMPDIR)")
