"""Trained models in the store: found by name or run id, with their settings and weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import Schedule, maker_of, training_sets
from worldrep.data.world import load_world
from worldrep.disk import cached_file
from worldrep.errors import InputError, StateError
from worldrep.model.qwen2 import load_model
from worldrep.scales import base_settings
from worldrep.settings import NO_CITIES, SHARED_GROUPS, TRAINING_STAGES, Settings, parse_names
from worldrep.stages.commands import describe, training_command
from worldrep.stages.plan import ALL, LAST, TrainingPlan
from worldrep.stages.provenance import downstream_tags, identity_tags
from worldrep.stored import DamagedError, read_json
from worldrep.tracking import CHECKPOINTS, CITIES, DELETED, MODEL, SETTINGS, Store, StoredRun
from worldrep.training.checkpoint import folder_name, verify
from worldrep.training.state import best_device


@dataclass(frozen=True)
class TrainedModel:
    """A finished training, with the settings that it stored, its world, and chosen checkpoints."""

    store: Store
    run: StoredRun
    settings: Settings
    maker: RowMaker
    checkpoints: str
    steps: list[int]
    last_step: int

    @classmethod
    def load(
        cls, store: Store, run: StoredRun, checkpoints: str, multi_rows: int | None = None
    ) -> Self:
        """Read what a training stored.

        checkpoints: `last`, `all` or steps such as `100,200`; multi_rows: in place of the stored
        setting. Raises StateError when a file is damaged, InputError for an unknown checkpoint.
        """
        settings = stored_settings(store, run)
        if multi_rows is not None:
            settings = replace(settings, multi_rows=multi_rows)
        maker = stored_maker(store, run, settings)
        rowsets = training_sets(settings, maker.world)
        last = Schedule.of(settings, sum(rowset.rows for rowset in rowsets)).steps
        steps = [last] if checkpoints == LAST else _steps(store, run, checkpoints, last)
        return cls(store, run, settings, maker, checkpoints, steps, last)

    @property
    def choice(self) -> str | list[int]:
        """The part of a fingerprint that stands for the checkpoints."""
        return LAST if self.checkpoints == LAST else self.steps

    def weights(self) -> Iterator[tuple[int, Qwen2ForCausalLM]]:
        """Load the model of each step, on the best device. StateError if a file is damaged."""
        for step in self.steps:
            last = self.checkpoints == LAST
            path = MODEL if last else f"{CHECKPOINTS}/{folder_name(step)}"
            model = stored_model(self.store, self.run.id, path, self.settings)
            yield step, model.to(best_device())

    @property
    def tags(self) -> dict[str, str]:
        """The tags of an evaluation or extraction of the model."""
        tags = identity_tags(self.settings) | downstream_tags(self.run)
        return tags | {"checkpoints": self.checkpoints}


def _steps(store: Store, run: StoredRun, checkpoints: str, last: int) -> list[int]:
    kept = store.checkpoint_steps(run.id)
    steps = {str(step): step for step in sorted({*kept, last})}
    texts = list(steps) if checkpoints == ALL else parse_names(checkpoints)
    for text in texts:
        if text not in steps:
            raise InputError(
                f"checkpoint {text!r} was not kept; allowed: last, all, "
                f"or steps among {', '.join(map(str, kept))}"
            )
    return sorted(steps[text] for text in texts)


def stored_settings(store: Store, run: StoredRun) -> Settings:
    """Return the complete settings that a training stored; StateError if they are damaged."""
    with store.download(run.id, SETTINGS) as path:
        settings = read_json(path, Settings)
        for name, value in settings.as_dict().items():
            if f"cfg.{name}" in run.params and run.setting(name) != value:
                logged = run.params[f"cfg.{name}"]
                raise DamagedError(path, f"{name} is {value}, and the run's param is {logged}")
    return settings


def stored_maker(store: Store, run: StoredRun, settings: Settings) -> RowMaker:
    """Return the row maker of a training's world. StateError if its cities are others today.

    The path of a CSV in stored settings is another user's, so it is never opened.
    """
    digest = run.tag("world_digest")
    if settings.cities != NO_CITIES:
        with store.download(run.id, CITIES) as path:
            return RowMaker(load_world(path, settings.world, digest), settings)
    maker = maker_of(settings)
    if maker.world.digest != digest:
        raise StateError(f"run {run.id} was trained on other cities than its settings describe")
    return maker


def stored_model(store: Store, run_id: str, path: str, settings: Settings) -> Qwen2ForCausalLM:
    """Load a model that a training with these settings stored. StateError if it is damaged."""
    with store.download(run_id, path) as folder:
        verify(folder)
        return load_model(folder, settings)


def cached_cities(store: Store, run_id: str) -> str:
    """Return the path of a run's CSV in the cache, downloaded the first time."""

    def content() -> bytes:
        with store.download(run_id, CITIES) as path:
            return path.read_bytes()

    return str(cached_file(f"cities-{run_id}.csv", content))


def find_model(store: Store, settings: Settings, base_run: str | None = None) -> StoredRun:
    """Return the finished training that settings describe; StateError names the command for it.

    base_run: as for `train_model`.
    """
    base = check_base(store, base_run, settings) if base_run else None
    if found := store.finished(TrainingPlan.of(settings, base).fingerprint):
        return found
    names = {key: getattr(settings, key) for key in ("width", "world", "scale")}
    runs = store.find(model=str(settings.model_name), seed=str(settings.seed), **names)
    ids = [run.id for run in runs if run.status == "FINISHED" and run.stage in TRAINING_STAGES]
    others = f" with these settings (with others: run_id {', '.join(ids)})" if ids else ""
    raise StateError(
        f"{describe(settings)} is not in the store {store.address}{others}; "
        f"train it with: {training_command(settings, base_run, store.experiment_name)}"
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


def kind_of(run: StoredRun) -> str:
    """Describe a run for messages, such as `a run of stage evaluate (FAILED)`."""
    restore = f", restored by `mlflow runs restore --run-id {run.id}`"
    return (
        f"a run of stage {run.stage or 'unknown'} "
        f"({run.status}{restore if run.status == DELETED else ''})"
    )


def check_base(store: Store, run_id: str, settings: Settings) -> StoredRun:
    """Return the base that the user named. Raises InputError if it does not fit the fine-tuning."""
    if not settings.is_finetuning:
        raise InputError("base_run is for fine-tuning; a pretraining starts from new weights")
    base = store.get(run_id)
    if base.stage != "pretrain" or base.status != "FINISHED":
        raise InputError(f"base_run {run_id} is {kind_of(base)}, not a finished pretrain run")
    theirs, ours = stored_settings(store, base), base_settings(settings)
    names = ("scale", "pretrain", "width", "world", "seed")
    for name in (*names, *ours.group(*SHARED_GROUPS)):
        may_differ = name in ("cities", "multi_rows")  # a path, and what an evaluation may change
        if not may_differ and getattr(theirs, name) != getattr(ours, name):
            raise InputError(
                f"base_run {run_id} has {name}={getattr(theirs, name)}, "
                f"the fine-tuning {name}={getattr(ours, name)}: they must be equal"
            )
    if base.tag("world_digest") != maker_of(settings).world.digest:
        raise InputError(f"base_run {run_id} was trained on other cities")
    return base
