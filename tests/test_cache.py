"""The cache: a file is there in whole or not at all, whoever dies or comes at the same time."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest

from worldrep import disk
from worldrep.data.sets import cached
from worldrep.disk import FullError, cache_folder, cached_file

ROWS = (np.arange(4000) % 98).astype(np.uint8).reshape(100, 40)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make():
    return ROWS


def only_file(folder):
    (path,) = folder.glob("*.npy")
    return path


@pytest.fixture
def next_process(monkeypatch):
    """Forgets what this process has verified."""

    def forget():
        monkeypatch.setattr(disk, "_verified", set())
        monkeypatch.setattr(disk, "_searched", set())

    forget()
    return forget


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
    digest = hashlib.sha256(only_file(folder).read_bytes()).hexdigest()
    assert files(folder) == [f"a.{digest}.npy"]


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


def smaller(whole):
    return whole.replace(b"(100, 40)", b"(100, 10)")


def flipped(place):
    return lambda whole: whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize("kept", [0, 1, 7, 50, 127, 128, 129, 2000, 4127])
def test_a_truncated_file_is_made_again(folder, next_process, kept):
    assert_made_again(folder, next_process, lambda whole: whole[:kept])


@pytest.mark.parametrize("damage", [flipped(128), flipped(4127), flipped(60), smaller])
def test_a_file_with_another_byte_is_made_again(folder, next_process, damage):
    assert_made_again(folder, next_process, damage)


def test_a_file_of_something_else_is_made_again(folder, next_process):
    assert_made_again(folder, next_process, lambda whole: b"something else, long enough to be read")


def assert_made_again(folder, next_process, damage):
    cached("a", make)
    path = only_file(folder)
    whole = path.read_bytes()
    assert len(whole) == 128 + ROWS.size and damage(whole) != whole
    path.write_bytes(damage(whole))
    next_process()
    with redirect_stderr(io.StringIO()) as said:
        assert (cached("a", make) == ROWS).all()
    assert said.getvalue() == f"cached file {path} is damaged: it is made anew\n"
    assert only_file(folder).read_bytes() == whole


def test_a_file_under_the_name_of_another_is_made_again(folder, next_process):
    cached("a", make)
    path = only_file(folder)
    path.rename(path.with_name(f"a.{'0' * 64}.npy"))
    assert (cached("a", make) == ROWS).all()
    assert only_file(folder) == path


def test_a_file_that_changes_while_the_process_lives_is_noticed(folder):
    cached("a", make)
    path = only_file(folder)
    path.write_bytes(flipped(2000)(path.read_bytes()))
    assert (cached("a", make) == ROWS).all()


def test_a_file_of_a_version_without_digests_is_replaced(folder):
    folder.mkdir()
    np.save(folder / "a.npy", ROWS + 1)
    assert (cached("a", make) == ROWS).all()
    assert not (folder / "a.npy").exists()


def test_a_file_is_read_whole_once_in_each_process(folder, next_process, monkeypatch):
    reads, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda *given: reads.append(given) or digest(*given)
    )
    cached("a", make)
    for _ in range(3):
        cached("a", never)
    assert len(reads) == 1
    next_process()
    cached("a", never)
    assert len(reads) == 2


def test_a_damaged_file_stays_until_the_new_one_is_complete(folder, next_process):
    cached("a", make)
    path = only_file(folder)
    path.write_bytes(b"")
    next_process()

    def make_and_look():
        assert path.exists()
        return ROWS

    assert (cached("a", make_and_look) == ROWS).all()


def test_others_may_read_the_cache_if_the_umask_lets_them(folder):
    before = os.umask(0o022)
    try:
        cached("a", make)
    finally:
        os.umask(before)
    assert only_file(folder).stat().st_mode & 0o777 == 0o644


# Failing and dying writers


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_failing_maker_leaves_nothing(folder, fault):
    def fail():
        raise fault

    with pytest.raises(fault):
        cached("a", fail)
    assert not folder.exists() or files(folder) == []


def test_a_full_cache_is_named_and_left_empty(small_disk, monkeypatch):
    folder = small_disk("full", "128k")
    monkeypatch.setenv("WORLDREP_CACHE", str(folder))
    with pytest.raises(FullError) as fault:
        cached("a", lambda: np.zeros((3000, 100), dtype=np.uint8))
    assert str(fault.value) == (
        f"no space is left in the cache (WORLDREP_CACHE) {folder} (300.1 kB needed, "
        "131.1 kB free): make room, and the same command goes on"
    )
    assert files(folder) == []
    assert (cached("a", make) == ROWS).all()


def test_what_a_killed_writer_left_is_removed_by_the_next(folder, next_process):
    writer = start("os.fsync = lambda number: os.kill(os.getpid(), 9)\ncached('a', lambda: rows)\n")
    writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert len(files(folder)) == 1 and not list(folder.glob("*.npy"))
    assert (cached("a", make) == ROWS).all()
    assert files(folder) == [only_file(folder).name]


def test_what_a_living_writer_has_written_stays(folder, tmp_path, next_process):
    writer = start(
        "def stop(number):\n"
        "    Path(sys.argv[1]).touch()\n"
        "    while not Path(sys.argv[2]).exists():\n"
        "        time.sleep(0.01)\n"
        "os.fsync = stop\n"
        "print((cached('a', lambda: rows) == rows).all())\n",
        tmp_path / "stopped",
        tmp_path / "on",
    )
    while not (tmp_path / "stopped").exists():
        time.sleep(0.01)
    cached("b", make)
    assert len(list(folder.glob("worldrep-*.tmp"))) == 1
    (tmp_path / "on").touch()
    assert writer.communicate(timeout=60)[0] == "True\n"
    assert not list(folder.glob("worldrep-*"))


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
    assert files(folder) == [only_file(folder).name]
    assert (cached("a", never) == ROWS).all()


def test_of_two_contents_that_are_made_at_once_all_use_the_first(folder, next_process):
    """Such as the faster of two libraries, which each process measures."""

    for name, first, second in (("a.txt", b"1", b"2"), ("b.txt", b"2", b"1")):

        def make_late(name=name, first=first, second=second):
            assert cached_file(name, lambda: first).read_bytes() == first
            return second

        def make_later(name=name, first=first, make_late=make_late):
            assert cached_file(name, make_late).read_bytes() == first
            return first

        assert cached_file(name, make_later).read_bytes() == first
        next_process()
        assert cached_file(name, never).read_bytes() == first


def test_a_process_that_finds_the_file_damaged_while_another_mends_it(folder, next_process):
    cached("a", make)
    only_file(folder).write_bytes(b"")
    next_process()

    def make_while_another_does():
        other = start("print((cached('a', lambda: rows) == rows).all())")
        assert other.communicate(timeout=60)[0] == "True\n"
        return ROWS

    assert (cached("a", make_while_another_does) == ROWS).all()
    assert files(folder) == [only_file(folder).name]


def test_mapped_rows_stay_as_they_are_when_the_file_is_replaced(folder):
    rows = cached("a", make)
    other = folder / "other"
    np.save(other.open("wb"), ROWS + 1)
    os.replace(other, only_file(folder))
    assert (rows == ROWS).all()
