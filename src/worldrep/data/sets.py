"""Which row sets a model is trained, validated and tested on, and their tokens from the cache."""

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.tokens import Tokens, stack_padded
from worldrep.data.world import World, world_of
from worldrep.names import TASK_NAMES, ModelName, has_warmup_rows
from worldrep.scales import resolve
from worldrep.settings import Settings

SPLIT_POOLS = {"standard": "world", "atlantis": "atlantis"}  # prefix of a suite -> pool


def maker_of(settings: Settings) -> RowMaker:
    """Return the row maker of the settings' world; models that share the world share it."""
    scale, world, shared = settings.scale, settings.world, settings.group("world", "rows")
    return _maker(resolve(ModelName("pt1"), scale=scale, world=world, overrides=shared))


@lru_cache(maxsize=8)
def _maker(settings: Settings) -> RowMaker:
    return RowMaker(world_of(settings), settings)


def training_sets(settings: Settings, world: World) -> list[RowSet]:
    """Return the row sets that a model is trained on, in the order in which they are stacked."""
    if not settings.is_finetuning:
        return _pretraining_sets(settings, world)
    sets = [RowSet(t, "atlantis", "finetune", settings.ft_atlantis_rows) for t in settings.tasks]
    if settings.ft_world_rows:
        sets += [RowSet(t, "world", "finetune", settings.ft_world_rows) for t in settings.tasks]
    if has_warmup_rows(settings.ft) and settings.ft_warmup_rows:
        sets += [RowSet(t, "atlantis", "warmup", settings.ft_warmup_rows) for t in TASK_NAMES]
    return sets


def base_sets(settings: Settings, world: World) -> list[RowSet]:
    """Return the row sets of the base's training if the strategy reads them, else none."""
    return _pretraining_sets(settings, world) if settings.strategy in ("replay", "ewc") else []


def _pretraining_sets(settings: Settings, world: World) -> list[RowSet]:
    pool = "all" if world.variant == "with_atlantis" else "world"
    tasks = settings.model_name.base.tasks
    return [RowSet(task, pool, "pretrain", settings.pretrain_rows) for task in tasks]


def validation_sets(settings: Settings) -> dict[str, RowSet]:
    """Return the validation rows by suite; Atlantis is included when the model learns it."""
    learns_atlantis = settings.is_finetuning or settings.world == "with_atlantis"
    splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
    return _held_out(splits, "val", settings.val_rows)


def suite_sets(settings: Settings) -> dict[str, RowSet]:
    """Return the 14 test sets by suite, such as `atlantis/angle`."""
    return _held_out(SPLIT_POOLS, "test", settings.test_rows)


def _held_out(splits: Iterable[str], name: str, rows: int) -> dict[str, RowSet]:
    pairs = itertools.product(splits, TASK_NAMES)
    return {f"{split}/{t}": RowSet(t, SPLIT_POOLS[split], name, rows) for split, t in pairs}


def load_rows(maker: RowMaker, rowset: RowSet) -> Tokens:
    """Return the token rows (rows, length) of a set, from the cache if they are there."""
    return cached(maker.digest(rowset), lambda: maker.tokens(rowset))


def stack_rows(maker: RowMaker, rowsets: Iterable[RowSet]) -> Tokens:
    """Return the token rows of several sets, concatenated and padded to the longest."""
    return stack_padded([load_rows(maker, rowset) for rowset in rowsets])


def cache_folder() -> Path:
    """Return $WORLDREP_CACHE if set, else `worldrep/` in the user's cache folder."""
    home = os.path.expanduser("~")
    own = Path(home if home != "~" else os.devnull) / ".cache"  # no home: nowhere
    parent = os.environ.get("XDG_CACHE_HOME") or own
    return Path(os.environ.get("WORLDREP_CACHE") or Path(parent) / "worldrep")


_spare: dict[Path, Path] = {}  # cache folder that cannot be written -> temporary folder


def cache_folders() -> list[Path]:
    """Return the folders in which a cached file may be."""
    folder = cache_folder()
    return [folder, *([_spare[folder]] if folder in _spare else [])]


def writable_cache() -> Path:
    """Return the folder to which cached files are written: a temporary one if the cache is not."""
    folder = cache_folder()
    if folder not in _spare:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
        except OSError as fault:
            _spare[folder] = Path(tempfile.mkdtemp(prefix="worldrep-"))
            # Not atexit, which the processes of multiprocessing skip.
            Finalize(None, shutil.rmtree, (_spare[folder], True), exitpriority=1)
            print(
                f"the cache {folder} cannot be written ({fault.strerror}): this process makes what "
                "it lacks for itself; WORLDREP_CACHE names another folder",
                file=sys.stderr,
            )
    return _spare[folder]


def cached(name: str, make: Callable[[], Tokens]) -> Tokens:
    """Return the array cached as `name`, memory-mapped; make it first if absent or damaged.

    Files are written under a temporary name and renamed, so that processes can share the cache.
    """
    for folder in cache_folders():
        try:
            return np.load(folder / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError):
            pass  # absent or damaged
    path = writable_cache() / f"{name}.npy"
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.save(file, make())
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # other users may share the cache
            os.replace(file.name, path)
        finally:
            Path(file.name).unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")
