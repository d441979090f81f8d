"""What the stages share: the rows of a world, the tags of a run, where it came from."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from worldrep import __version__
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import cache_folder, maker_of
from worldrep.data.world import World
from worldrep.errors import StateError
from worldrep.settings import Settings, from_dict
from worldrep.tracking import Dataset, OpenRun, Store, StoredRun
from worldrep.tracking.records import CITIES

MODEL = "model"  # artifact folder of the final weights
TRAINING_STAGES = ("pretrain", "finetune")


def stored_settings(store: Store, run: StoredRun) -> Settings:
    """The resolved settings that a training run stored."""
    with store.download(run.id, "settings.json") as path:
        return from_dict(json.loads(path.read_text()))


def maker_for(store: Store, run: StoredRun, settings: Settings) -> RowMaker:
    """The row maker of a stored model, of the cities that its run keeps.

    Raises StateError when they are no longer the cities of its settings.
    """
    if settings.cities != "none":
        # The file of its settings may be on another machine, or changed since.
        settings = replace(settings, cities=keep_file(store, run.id, CITIES, run.id))
    maker = maker_of(settings)
    if maker.world.digest != run.tag("world_digest"):
        raise StateError(f"run {run.id} was trained on other cities than its settings describe")
    return maker


def keep_file(store: Store, run_id: str, artifact: str, name: str) -> str:
    """The path of a copy of a run's CSV that outlives this process, made the first time."""
    path = cache_folder() / "cities" / f"{name}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.download(run_id, artifact) as found:
            part = path.with_suffix(f".{os.getpid()}.part")
            shutil.copy(found, part)
            part.replace(path)
    return str(path)


def keep_cities(run: OpenRun, settings: Settings) -> None:
    """Store a CSV of cities with the run of a study or sweep, for workers on other machines."""
    if settings.cities != "none":
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            run.artifact(Path(shutil.copy(settings.cities, Path(folder) / CITIES)))


def kind_of(run: StoredRun) -> str:
    """A run in words, such as `a run of stage evaluate (FAILED)`."""
    return f"a run of stage {run.tags.get('worldrep.stage', 'unknown')} ({run.status})"


def reuse(store: Store, fingerprint: str, parent: str | None) -> str | None:
    """The run id of finished work, listed below a study's run; None if it is still to do."""
    done = store.finished(fingerprint)
    if done is None:
        return None
    store.adopt(done.id, parent)
    return done.id


def downstream_tags(model_run: StoredRun) -> dict[str, str]:
    """Tags by which a run names the training that it stands on, and that one's base."""
    base = model_run.tags.get("worldrep.base_run_id")
    return {"model_run_id": model_run.id} | ({"base_run_id": base} if base else {})


def identity_tags(settings: Settings) -> dict[str, str]:
    """Tags that say which model a run is about, without their prefix."""
    return settings.labels | {"seed": str(settings.seed)} | _provenance()


@lru_cache(maxsize=1)
def _provenance() -> dict[str, str]:
    """Version, commit and machine; a changed working tree is told from a clean one."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts = {"version": __version__, "device": device, "torch": torch.__version__}
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", Path(__file__).parent, *command],
                capture_output=True, text=True, check=True, timeout=10,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return facts
    return facts | {"commit": commit, "dirty": str(bool(status)).lower()}


def log_rows(run: OpenRun, maker: RowMaker, rowsets: list[RowSet], context: str) -> None:
    """Log the world and the row sets that a run uses as its inputs."""
    inputs = [world_input(maker.world)]
    for rows in rowsets:
        source = {"task": rows.task, "pool": rows.pool, "split": rows.split, "rows": rows.rows}
        name = f"{rows.task} {rows.pool} {rows.split}"
        inputs.append(Dataset(name, maker.digest(rows), source))
    run.inputs(context, inputs)


def world_input(world: World) -> Dataset:
    """The world as an input of a run."""
    return Dataset("world", world.digest, {"variant": world.variant})


def describe(settings: Settings) -> str:
    """A model with all its names, for messages."""
    return (
        f"{settings.model_name} seed {settings.seed} "
        f"(scale {settings.scale}, world {settings.world})"
    )
