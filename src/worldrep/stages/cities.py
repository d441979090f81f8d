"""Cities of a run, stored with it as a CSV so that other machines have the same world."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from worldrep.data.rows import RowMaker
from worldrep.data.sets import cache_folder, maker_of
from worldrep.data.world import World
from worldrep.errors import StateError
from worldrep.settings import Settings
from worldrep.tracking import CITIES, OpenRun, Store, StoredRun


def log_cities(run: OpenRun, world: World) -> None:
    """Store all cities of a training's world with its run."""
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        path = Path(folder) / CITIES
        world.cities.to_csv(path, index=False)
        run.artifact(path)


def keep_cities(run: OpenRun, settings: Settings) -> None:
    """Store the user's CSV with the run of a study or sweep, for workers on other machines."""
    if settings.cities != "none":
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            run.artifact(Path(shutil.copy(settings.cities, Path(folder) / CITIES)))


def cached_cities(store: Store, run_id: str) -> str:
    """Return the path of a run's CSV in the cache, downloaded the first time."""
    path = cache_folder() / "cities" / f"{run_id}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.download(run_id, CITIES) as found:
            part = path.with_suffix(f".{os.getpid()}.part")
            shutil.copy(found, part)
            part.replace(path)
    return str(path)


def stored_maker(store: Store, run: StoredRun, settings: Settings) -> RowMaker:
    """Return the row maker of a training's world.

    Raises:
        StateError: The settings no longer describe the cities of the training.
    """
    if settings.cities != "none":
        # The user's CSV may be on another machine, or may have changed since.
        settings = replace(settings, cities=cached_cities(store, run.id))
    maker = maker_of(settings)
    if maker.world.digest != run.tag("world_digest"):
        raise StateError(f"run {run.id} was trained on other cities than its settings describe")
    return maker
