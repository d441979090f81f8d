"""Temporary folders, cached files that are verified, and errors that name the place that is full.

Importing this module loads neither numpy nor torch.
"""

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path

from safetensors import SafetensorError

from worldrep.errors import StateError, first_line, reason_of
from worldrep.text import size_in_words

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = tuple(map(os.strerror, _FULL))  # errors of safetensors and MLflow have no errno
# A host removes its own folders only: on a shared file system, the locks of others may not show.
_OWN = f"worldrep-{socket.gethostname()}-"
KEPT_DAYS = 30
_CACHE = "the cache (WORLDREP_CACHE)"
_searched: set[Path] = set()  # for temporary folders of killed processes
_verified: set[tuple[str, int, int, int]] = set()  # path, inode, time and size of cached files


class FullError(StateError):
    """A place on a disk has no space left."""


def fault_text(fault: BaseException) -> str:
    """Return the first line of an error of a store, or that its disk is full."""
    if is_full(fault) or "database or disk is full" in str(fault):  # SQLite's words
        return "no space is left for it, make room there"
    return first_line(fault)


def is_full(fault: BaseException) -> bool:
    """Return whether an error, of whatever library, says that a disk or a quota is full."""
    return getattr(fault, "errno", None) in _FULL or any(w in str(fault) for w in _FULL_WORDS)


@contextmanager
def writing_to(
    place: str,
    folder: Path | None = None,
    needed: int = 0,
    faults: tuple[type[Exception], ...] = (OSError, SafetensorError),
) -> Iterator[None]:
    """Name the place if the block fails because it is full.

    Args:
        place: What is written to, for the message.
        folder: Where it is on this machine, if it is.
        needed: Bytes that the block writes, 0 if that is not known.
        faults: Errors that come from writing there.

    Raises:
        FullError: The place is full.
    """
    try:
        yield
    except faults as fault:
        if isinstance(fault, FullError) or not is_full(fault):
            raise
        free = shutil.disk_usage(folder).free if folder and folder.exists() else None
        counts = ((needed or None, "needed"), (free, "free"))
        figures = [f"{size_in_words(count)} {word}" for count, word in counts if count is not None]
        sizes = f" ({', '.join(figures)})" if figures else ""
        where = f" {folder}" if folder else ""
        raise FullError(
            f"no space is left in {place}{where}{sizes}: make room, and the same command goes on"
        ) from None


@contextmanager
def temporary_folder(
    parent: Path | None = None, needed: int = 0, place: str = "the temporary folder (TMPDIR)"
) -> Iterator[Path]:
    """Make a folder that is deleted after the block; first delete those of killed processes.

    Args:
        parent: Where to make it; default: the system's folder for temporary files.
        needed: Bytes that will be written to it, if that is known.
        place: What the parent is, for the message of an error.

    Raises:
        FullError: An error of a file in the block says that the disk is full.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_abandoned(parent)
    with writing_to(place, parent, needed):
        new = Path(tempfile.mkdtemp(prefix=_OWN, suffix=".new", dir=parent))
        with _locked(new):  # the system removes the lock when the process ends, however it ends
            folder = new.rename(new.with_suffix(".tmp"))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


class TemporaryFolder:
    """A temporary folder that lasts as long as this object."""

    def __init__(self) -> None:
        stack = ExitStack()
        self.path = stack.enter_context(temporary_folder())
        # Not weakref.finalize: the processes of multiprocessing end without it.
        Finalize(self, stack.close, exitpriority=1)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; the block gets False if another process does, or none can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def remove_abandoned(*places: Path) -> None:
    """Remove this user's temporary folders that no process holds, once in each process.

    places: where to look; default: the system's folder for temporary files, and the cache.
    """
    new = {*(places or (Path(tempfile.gettempdir()), cache_folder()))} - _searched
    _searched.update(new)
    for folder in (found for place in new for found in place.glob(f"{glob.escape(_OWN)}*.tmp")):
        with suppress(OSError):  # it was removed meanwhile
            if folder.stat().st_uid == os.getuid():
                with _locked(folder) as abandoned:
                    if abandoned:
                        shutil.rmtree(folder, ignore_errors=True)


def remove_old(name: str) -> None:
    """Remove what lies in a folder of the cache and has not changed for KEPT_DAYS."""
    for path in (cache_folder() / name).glob("*"):
        with suppress(OSError):  # it was removed meanwhile, or may not be
            if path.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def cache_folder() -> Path:
    """Return $WORLDREP_CACHE if set, else `worldrep/` in the user's cache folder."""
    home = os.path.expanduser("~")
    own = Path(home if home != "~" else os.devnull) / ".cache"  # no home: nowhere
    parent = os.environ.get("XDG_CACHE_HOME") or own
    return Path(os.environ.get("WORLDREP_CACHE") or Path(parent) / "worldrep")


_replacements: dict[Path, TemporaryFolder] = {}  # of cache folders that cannot be written


def cache_folders() -> list[Path]:
    """Return the folders in which a cached file may be."""
    folder = cache_folder()
    return [*([_replacements[folder].path] if folder in _replacements else []), folder]


def writable_cache() -> Path:
    """Return the folder to which cached files are written: a temporary one if the cache is not.

    Raises FullError if the cache is full.
    """
    folder = cache_folder()
    if folder not in _replacements:
        try:
            with writing_to(_CACHE, folder):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            return folder
        except OSError as fault:
            _replacements[folder] = TemporaryFolder()
            print(
                f"the cache {folder} cannot be written ({reason_of(fault)}): this process makes "
                "what it lacks for itself; WORLDREP_CACHE names another folder",
                file=sys.stderr,
            )
    return _replacements[folder].path


def cached_file(name: str, make: Callable[[], bytes]) -> Path:
    """Return the path of a cached file; write it first if it is absent, or not as it was written.

    The SHA-256 of the content is a part of the file's own name: `rows.npy` is kept as
    `rows.DIGEST.npy`. Each process verifies a file once. A new one is written under a temporary
    name and renamed, so that processes can share the cache. If two processes write different
    contents at once, all use the one that came first.

    Args:
        name: Name without digest, with a suffix.
        make: Returns the content.

    Raises:
        FullError: The cache is full.
    """
    stem, suffix = os.path.splitext(name)
    pattern = re.compile(f"{re.escape(stem)}\\.([0-9a-f]{{64}}){re.escape(suffix)}")
    damaged = []
    for path in _oldest_first(pattern, cache_folders()):
        if _is_intact(path):
            return path
        damaged.append(path)
        print(f"cached file {path} is damaged: it is made anew", file=sys.stderr)
    content = make()
    digest = hashlib.sha256(content).hexdigest()
    folder = writable_cache()
    final = folder / f"{stem}.{digest}{suffix}"
    with (
        temporary_folder(folder, len(content), _CACHE) as part,
        (part / "file").open("wb") as file,
    ):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if not (final.exists() and _is_intact(final)):  # else it would get another time
            os.replace(file.name, final)
    for path in {*damaged, folder / name} - {final}:  # without a digest: of an earlier version
        with suppress(OSError):
            path.unlink()
    return next(filter(_is_intact, _oldest_first(pattern, [folder])), final)


def _oldest_first(pattern: re.Pattern[str], folders: list[Path]) -> list[Path]:
    """Return the files whose names fit, by folder, then by the time at which they got the name."""
    found = []
    for i, folder in enumerate(folders):
        for path in folder.glob("*") if folder.is_dir() else ():
            with suppress(OSError):  # it was removed meanwhile
                if pattern.fullmatch(path.name):
                    found.append((i, path.stat().st_ctime_ns, path))
    return [path for _, _, path in sorted(found)]


def _is_intact(path: Path) -> bool:
    """Return whether a file can be read and has its name's digest; each process reads it once."""
    digest = path.stem.rpartition(".")[2]
    try:
        facts = path.stat()
        known = str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size
        if known not in _verified:
            if sha256(path) != digest:
                return False
            _verified.add(known)
    except OSError:
        return False
    return True


def sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
