"""What a run records of its origin: model, code, machine, rows and cities."""

import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from worldrep import __version__
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.world import World
from worldrep.model.linear import linear_library
from worldrep.settings import NO_CITIES, Settings
from worldrep.tracking import CITIES, Dataset, OpenRun, StoredRun


def identity_tags(settings: Settings) -> dict[str, str]:
    """Return the tags, without prefix, that name a run's model, code and machine."""
    import torch

    own = {"seed": str(settings.seed)}
    if not settings.is_plain and not torch.cuda.is_available():
        own["linear_library"] = linear_library()
    return settings.labels | own | _code_and_machine()


def downstream_tags(model_run: StoredRun) -> dict[str, str]:
    """Return the tags that name the training that a run depends on, its model and its base."""
    tags = {key: model_run.tag(key) for key in ("model_id", "base_run_id")}
    return {"model_run_id": model_run.id} | {key: value for key, value in tags.items() if value}


@lru_cache(maxsize=1)
def _code_and_machine() -> dict[str, str]:
    import torch

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


def log_rows(run: OpenRun, maker: RowMaker, rowsets: Iterable[RowSet], context: str) -> None:
    """Log the world and the row sets that a run uses as its inputs."""
    run.inputs(context, [world_dataset(maker.world), *rows_datasets(maker, rowsets)])


def rows_datasets(maker: RowMaker, rowsets: Iterable[RowSet]) -> list[Dataset]:
    """Describe row sets as data sets."""
    named = [(f"{rows.task} {rows.pool} {rows.split}", rows) for rows in rowsets]
    return [Dataset(name, maker.digest(rows), asdict(rows)) for name, rows in named]


def suite_datasets(maker: RowMaker, suites: Mapping[str, RowSet]) -> dict[str, Dataset]:
    """Describe the row sets of suites as data sets, by suite."""
    return dict(zip(suites, rows_datasets(maker, suites.values()), strict=True))


def world_dataset(world: World) -> Dataset:
    """Describe the world as a data set."""
    return Dataset("world", world.digest, {"variant": world.variant})


def keep_cities(run: OpenRun, settings: Settings) -> None:
    """Store the user's CSV with the run of a study or sweep, for workers on other machines."""
    if settings.cities != NO_CITIES:
        with run.new_artifact(CITIES) as path:
            shutil.copy(settings.cities, path)
        run.flush()  # workers read it now
