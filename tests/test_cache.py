"""The cache: a file is there in whole or not at all, whoever dies or comes at the same time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worldrep.data.sets import cache_folder, cached

ROWS = (np.arange(4000) % 98).astype(np.uint8).reshape(100, 40)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make():
    return ROWS


def never():
    raise AssertionError("made again")


def start(program, *arguments):
    """Run a Python program beside this one."""
    header = (
        "import os, sys, time\nfrom pathlib import Path\nimport numpy as np\n"
        "from worldrep.data.sets import cached\n"
        "rows = (np.arange(4000) % 98).astype(np.uint8).reshape(100, 40)\n"
    )
    command = [sys.executable, "-c", header + program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# Where


def test_the_folder_is_named_by_the_environment(folder):
    assert cache_folder() == folder


def test_the_folder_lies_in_the_users_cache_by_default(monkeypatch):
    monkeypatch.delenv("WORLDREP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/worldrep")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    assert cache_folder() == Path("/home/user/.cache/worldrep")


# Made once


def test_rows_are_made_once_and_read_afterwards(folder):
    assert (cached("a", make) == ROWS).all()
    again = cached("a", never)
    assert (again == ROWS).all()
    assert again.dtype == np.uint8
    assert files(folder) == ["a.npy"]


def test_names_are_kept_apart():
    cached("a", make)
    assert (cached("b", lambda: ROWS + 1) == ROWS + 1).all()
    assert (cached("a", never) == ROWS).all()


def test_rows_are_mapped_and_cannot_be_changed():
    for rows in (cached("a", make), cached("a", never)):
        assert isinstance(rows, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            rows[0, 0] = 1


# Damaged files


@pytest.mark.parametrize("kept", [0, 1, 7, 50, 127, 128, 129, 2000, 4127])
def test_a_truncated_file_is_made_again(folder, kept):
    cached("a", make)
    path = folder / "a.npy"
    whole = path.read_bytes()
    assert len(whole) == 128 + ROWS.size
    path.write_bytes(whole[:kept])
    assert (cached("a", make) == ROWS).all()
    assert path.read_bytes() == whole


def test_a_file_of_something_else_is_made_again(folder):
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"something else, and long enough to be read")
    assert (cached("a", make) == ROWS).all()


def test_a_damaged_file_stays_until_the_new_one_is_complete(folder):
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"")

    def make_and_look():
        assert "a.npy" in files(folder)
        return ROWS

    assert (cached("a", make_and_look) == ROWS).all()


# Failing and dying writers


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_failing_maker_leaves_nothing(folder, fault):
    def fail():
        raise fault

    with pytest.raises(fault):
        cached("a", fail)
    assert files(folder) == []


def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    def save(file, rows):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(np, "save", save)
        cached("a", make)
    assert files(folder) == []
    assert (cached("a", make) == ROWS).all()


def test_a_writer_killed_half_way_leaves_nothing_under_the_name(folder):
    writer = start(
        "def half(file, rows):\n"
        "    file.write(rows.tobytes()[:2000])\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "np.save = half\n"
        "cached('a', lambda: rows)\n"
    )
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert len(files(folder)) == 1
    assert not (folder / "a.npy").exists()
    assert (cached("a", make) == ROWS).all()


# Several processes


def test_processes_that_make_the_same_rows_at_once_both_get_them(folder, tmp_path):
    program = (
        "def make():\n"
        "    Path(sys.argv[1]).touch()\n"
        "    while not Path(sys.argv[2]).exists():\n"
        "        time.sleep(0.01)\n"
        "    return rows\n"
        "print((cached('a', make) == rows).all())\n"
    )
    here, there = tmp_path / "here", tmp_path / "there"
    processes = [start(program, here, there), start(program, there, here)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True\n"] * 2
    assert files(folder) == ["a.npy"]
    assert (cached("a", never) == ROWS).all()


def test_a_process_that_finds_the_file_damaged_while_another_mends_it(folder):
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"")

    def make_while_another_does():
        other = start("print((cached('a', lambda: rows) == rows).all())")
        assert other.communicate(timeout=60)[0] == "True\n"
        return ROWS

    assert (cached("a", make_while_another_does) == ROWS).all()
    assert files(folder) == ["a.npy"]


def test_mapped_rows_stay_as_they_are_when_the_file_is_replaced(folder):
    rows = cached("a", make)
    other = folder / "other"
    np.save(other.open("wb"), ROWS + 1)
    os.replace(other, folder / "a.npy")
    assert (rows == ROWS).all()
