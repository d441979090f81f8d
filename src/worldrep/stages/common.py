"""What the stages share: the rows of a world, the tags of a run, where it came from."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from worldrep import __version__
from worldrep.rows import RowMaker, RowSet
from worldrep.settings import Settings
from worldrep.tracking import OpenRun
from worldrep.world import world_of


def maker_of(settings: Settings) -> RowMaker:
    """The row maker of the settings' world, one for all models that share it."""
    shared = settings.group("world", "rows")
    return _maker(settings.scale, settings.world, tuple(shared.items()))


@lru_cache(maxsize=4)
def _maker(scale: str, world: str, shared: tuple[tuple[str, Any], ...]) -> RowMaker:
    from worldrep.names import ModelName
    from worldrep.scales import resolve

    settings = resolve(ModelName("pt1"), scale=scale, world=world, overrides=dict(shared))
    return RowMaker(world_of(settings), settings)


def identity_tags(settings: Settings) -> dict[str, str]:
    """Tags that say which model a run is about, without their prefix."""
    return {
        "model": str(settings.model_name),
        "pretrain": settings.pretrain,
        "ft": settings.ft,
        "tasks": ",".join(settings.tasks),
        "width": settings.width,
        "world": settings.world,
        "scale": settings.scale,
        "seed": str(settings.seed),
        **_provenance(),
    }


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
    run.dataset("world", maker.world.digest, context, {"variant": maker.world.variant})
    for rows in rowsets:
        source = {"task": rows.task, "pool": rows.pool, "split": rows.split, "rows": rows.rows}
        name = f"{rows.task} {rows.pool} {rows.split}"
        run.dataset(name, maker.digest(rows), context, source)


def run_name(stage: str, settings: Settings) -> str:
    return f"{stage} {settings.model_name} seed{settings.seed}"


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(settings: Settings) -> str:
    """A model with all its names, for messages."""
    return (
        f"{settings.model_name} seed {settings.seed} "
        f"(scale {settings.scale}, world {settings.world})"
    )
