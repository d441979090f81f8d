"""Trained models in the store: found by name or run id, with their settings and weights."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import cache_folders, maker_of, training_sets, writable_cache
from worldrep.errors import InputError, StateError
from worldrep.model.qwen2 import load_model
from worldrep.scales import changed_settings
from worldrep.settings import NO_CITIES, Settings, from_dict
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.provenance import downstream_tags, identity_tags
from worldrep.tracking import CHECKPOINTS, CITIES, Store, StoredRun
from worldrep.training.checkpoint import folder_name, verify
from worldrep.training.schedule import Schedule
from worldrep.training.state import best_device

MODEL = "model"  # artifact folder of the final weights
TRAINING_STAGES = ("pretrain", "finetune")
LAST, ALL = "last", "all"  # checkpoints


@dataclass(frozen=True)
class TrainedModel:
    """A finished training, with the settings that it stored, its world, and chosen checkpoints."""

    store: Store
    run: StoredRun
    settings: Settings
    maker: RowMaker
    checkpoints: str
    steps: list[int]

    @classmethod
    def load(cls, store: Store, run: StoredRun, checkpoints: str) -> Self:
        """Read what a training stored. checkpoints: `last`, `all` or steps such as `100,200`.

        Raises StateError when the cities have changed since, InputError for an unknown checkpoint.
        """
        settings = known = stored_settings(store, run)
        if settings.cities != NO_CITIES:
            # The user's CSV may be on another machine, or may have changed since.
            known = replace(settings, cities=cached_cities(store, run.id))
        maker = maker_of(known)
        if maker.world.digest != run.tag("world_digest"):
            raise StateError(f"run {run.id} was trained on other cities than its settings describe")
        rowsets = training_sets(settings, maker.world)
        last = Schedule.of(settings, sum(rowset.rows for rowset in rowsets)).steps
        steps = [last] if checkpoints == LAST else _steps(store, run, checkpoints, last)
        return cls(store, run, settings, maker, checkpoints, steps)

    @property
    def choice(self) -> str | list[int]:
        """The part of a fingerprint that stands for the checkpoints."""
        return LAST if self.checkpoints == LAST else self.steps

    def weights(self) -> Iterator[tuple[int, Qwen2ForCausalLM]]:
        """Load the model of each step, on the best device. StateError if a file is damaged."""
        for step in self.steps:
            last = self.checkpoints == LAST
            path = MODEL if last else f"{CHECKPOINTS}/{folder_name(step)}"
            with self.store.download(self.run.id, path) as folder:
                verify(folder)
                yield step, load_model(folder).to(best_device())

    @property
    def tags(self) -> dict[str, str]:
        """The tags of an evaluation or extraction of the model."""
        tags = identity_tags(self.settings) | downstream_tags(self.run)
        return tags | {"checkpoints": self.checkpoints}

    def run_name(self, stage: str, *choices: str) -> str:
        """Return the name of a run, with those choices that are not the default."""
        chosen = [choice for choice in choices if choice not in ("default", LAST)]
        return " ".join([self.settings.run_name(stage), *chosen])


def _steps(store: Store, run: StoredRun, checkpoints: str, last: int) -> list[int]:
    kept = store.checkpoint_steps(run.id)
    steps = {str(step): step for step in sorted({*kept, last})}
    texts = list(steps) if checkpoints == ALL else checkpoints.split(",")
    for text in texts:
        if text.strip() not in steps:
            raise InputError(
                f"checkpoint {text!r} was not kept; allowed: last, all, "
                f"or steps among {', '.join(map(str, kept))}"
            )
    return sorted({steps[text.strip()] for text in texts})


def stored_settings(store: Store, run: StoredRun) -> Settings:
    """Return the complete settings that a training stored."""
    with store.download(run.id, "settings.json") as path:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))


def cached_cities(store: Store, run_id: str) -> str:
    """Return the path of a run's CSV in the cache, downloaded the first time."""
    place = Path("cities", f"{run_id}.csv")
    found = [folder / place for folder in cache_folders() if (folder / place).exists()]
    path = found[0] if found else writable_cache() / place
    if not found:
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.download(run_id, CITIES) as csv:
            part = path.with_suffix(f".{os.getpid()}.part")
            shutil.copy(csv, part)
            part.replace(path)
    return str(path)


def find_model(store: Store, settings: Settings) -> StoredRun:
    """Return the finished training that settings describe; StateError names the command for it."""
    if found := store.finished(TrainingPlan.of(settings).fingerprint):
        return found
    names = {key: getattr(settings, key) for key in ("width", "world", "scale")}
    runs = store.find(model=str(settings.model_name), seed=str(settings.seed), **names)
    ids = [run.id for run in runs if run.status == "FINISHED" and run.stage in TRAINING_STAGES]
    others = f" with these settings (with others: run_id {', '.join(ids)})" if ids else ""
    raise StateError(
        f"{describe(settings)} is not in the store{others}; "
        f"train it with: {training_command(settings)}"
    )


def model_by_run_id(store: Store, run_id: str) -> StoredRun:
    """Return a finished training by its run id. Raises InputError for any other run."""
    run = store.get(run_id)
    if run.stage not in TRAINING_STAGES or run.status != "FINISHED":
        raise InputError(
            f"run_id {run_id} is {kind_of(run)}; needed is a finished run of stage "
            f"{' or '.join(TRAINING_STAGES)}"
        )
    return run


def training_command(settings: Settings) -> str:
    """Return the command that trains a model, with every setting that differs from its scale's."""
    entry, own = "pretrain", ["pretrain"]
    if settings.is_finetuning:
        entry, own = "finetune", ["ft", *(["strategy"] if settings.of_strategy else [])]
    names = dict.fromkeys([*own, "pretrain", "seed", "scale", "width", "world"])
    names |= dict.fromkeys(changed_settings(settings))
    given = " ".join(f"-P {key}={getattr(settings, key)}" for key in names)
    return f"mlflow run . -e {entry} {given} --env-manager local"


def describe(settings: Settings) -> str:
    """Return all names of a model, for messages."""
    where = f"scale {settings.scale}, world {settings.world}"
    return f"{settings.model_name} seed {settings.seed} ({where})"


def kind_of(run: StoredRun) -> str:
    """Describe a run for messages, such as `a run of stage evaluate (FAILED)`."""
    return f"a run of stage {run.stage or 'unknown'} ({run.status})"
