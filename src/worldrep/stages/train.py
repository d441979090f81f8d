"""Training a model as a recorded run: reused when done, resumed when interrupted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import (
    base_sets,
    load_rows,
    maker_of,
    stack_rows,
    training_sets,
    validation_sets,
)
from worldrep.data.tokens import Tokens
from worldrep.errors import InputError, StateError
from worldrep.evaluation.suites import suite_of, validation_metrics
from worldrep.model.qwen2 import build_model, load_model, save_model
from worldrep.scales import base_settings
from worldrep.settings import SHARED_GROUPS, Settings
from worldrep.stages.common import (
    MODEL,
    describe,
    identity_tags,
    kind_of,
    log_rows,
    stored_settings,
)
from worldrep.stages.estimate import estimate_seconds
from worldrep.stages.fingerprints import seedless, training_fingerprint
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun
from worldrep.tracking.records import CITIES
from worldrep.tracking.run import CHECKPOINTS
from worldrep.training.checkpoint import (
    Checkpoint,
    folder_name,
    read_checkpoint,
    verify,
    write_manifest,
)
from worldrep.training.device import make_accelerator
from worldrep.training.loop import TrainingInputs, Validate, train
from worldrep.training.progress import Bar, ProgressCallback, duration_in_words


def train_model(
    store: Store,
    settings: Settings,
    *,
    base_run: str | None = None,
    parent: str | None = None,
    launched: bool = False,
    watch: ProgressCallback | None = None,
) -> str:
    """The run id of the trained model; it is trained, and its base before it, if it is not there.

    base_run: run id of the pretrained model to start from, instead of the one that the settings
    describe; parent: run id of a study; launched: this is what `mlflow run` was asked for; watch:
    who is told how far it is, else a bar shows it. Raises InputError for a base that does not fit,
    StateError for one that is damaged.
    """
    accelerator = make_accelerator(settings)
    maker = maker_of(settings)
    base = check_base(store, base_run, settings, maker) if base_run else None
    given = base.tags["worldrep.fingerprint"] if base else None
    fingerprint = training_fingerprint(maker, settings, given)
    done = _from_main(accelerator, lambda: _finished_id(store, fingerprint))
    stage = settings.training_stage
    if done:
        if accelerator.is_main_process:
            store.adopt(done, parent)
        return done
    base_id = base.id if base else None
    if settings.is_finetuning and base_id is None:
        base_id = _find_or_train_base(store, settings, accelerator, parent, watch)
    work = Work(store, settings, accelerator, maker, base_id, settings.run_name(stage), watch)
    data = work.prepare()  # before the run is opened: the world may have too few questions
    tags = identity_tags(settings) | {"world_digest": maker.world.digest}
    tags |= {"configuration": _configuration(settings, maker, base)}
    tags |= {"processes": str(accelerator.num_processes)}
    tags |= {"base_run_id": base_id} if base_id else {}
    spec = RunSpec(stage, work.title, fingerprint, tags, settings.as_dict(), parent)
    if not accelerator.is_main_process:
        return work.train(None, *data)
    with store.run(spec, launched=launched) as run:
        return work.train(run, *data)


def _configuration(settings: Settings, maker: RowMaker, base: StoredRun | None) -> str:
    """What the model has in common with those of other seeds."""
    shared = base.tag("configuration") if base else None
    return training_fingerprint(maker, seedless(settings), shared or None)


def check_base(store: Store, run_id: str, settings: Settings, maker: RowMaker) -> StoredRun:
    """The base named by the user. Raises InputError when the fine-tuning cannot start from it."""
    if not settings.is_finetuning:
        raise InputError("base_run is for fine-tuning; a pretraining starts from new weights")
    base = store.get(run_id)
    if base.tags.get("worldrep.stage") != "pretrain" or base.status != "FINISHED":
        raise InputError(f"base_run {run_id} is {kind_of(base)}, not a finished pretrain run")
    theirs, ours = stored_settings(store, base), base_settings(settings)
    names = ("scale", "pretrain", "width", "world", "seed")
    for name in (*names, *ours.group(*SHARED_GROUPS)):
        if name != "cities" and getattr(theirs, name) != getattr(ours, name):
            raise InputError(
                f"base_run {run_id} has {name}={getattr(theirs, name)}, "
                f"the fine-tuning {name}={getattr(ours, name)}: they must be equal"
            )
    if maker_of(theirs).world.digest != maker.world.digest:
        raise InputError(f"base_run {run_id} was trained on other cities")
    return base


def _finished_id(store: Store, fingerprint: str) -> str | None:
    done = store.finished(fingerprint)
    return done.id if done else None


def _from_main(accelerator: Accelerator, ask: Callable[[], Any]) -> Any:
    """The main process's answer, in all processes."""
    answer = [ask() if accelerator.is_main_process else None]
    return broadcast_object_list(answer)[0]


def _find_or_train_base(
    store: Store,
    settings: Settings,
    accelerator: Accelerator,
    parent: str | None,
    watch: ProgressCallback | None,
) -> str:
    """The run id of the base that the settings describe, trained if it is not there."""
    base, maker = base_settings(settings), maker_of(settings)
    fingerprint = training_fingerprint(maker, base)
    done = _from_main(accelerator, lambda: _finished_id(store, fingerprint))
    if done:
        return done
    expected = duration_in_words(estimate_seconds(base, maker))  # all processes take part
    accelerator.print(
        f"the base {describe(base)} is not in the store: it is trained first, "
        f"in a run of its own, which should take {expected}"
    )
    return train_model(store, base, parent=parent, watch=watch)


@dataclass(frozen=True)
class Work:
    """One training: what it needs, and how it is done within its run."""

    store: Store
    settings: Settings
    accelerator: Accelerator
    maker: RowMaker
    base_id: str | None
    title: str
    watch: ProgressCallback | None

    def prepare(self) -> tuple[Tokens, Tokens | None, Validate]:
        """Training rows, made by the main process first, those of the base, the validation."""
        world = self.maker.world
        with self.accelerator.main_process_first():
            rows = stack_rows(self.maker, training_sets(self.settings, world))
            back_to = base_sets(self.settings, world)
            base_rows = stack_rows(self.maker, back_to) if back_to else None
            sets = validation_sets(self.settings).items()
            suites = [suite_of(name, load_rows(self.maker, held_out)) for name, held_out in sets]
        plain = self.settings.is_plain
        return rows, base_rows, lambda model: validation_metrics(model, suites, plain)

    def train(
        self, run: OpenRun | None, rows: Tokens, base_rows: Tokens | None, validate: Validate
    ) -> str:
        """Train and store the model; `run` is None on all processes but the main one."""
        run_id = str(_from_main(self.accelerator, lambda: run.id if run else None))
        if run:
            self._log_inputs(run)
        checkpoint = _last_checkpoint(self.store, run_id, self.accelerator)
        if checkpoint:
            self.accelerator.print(f"{self.title}: resumed after step {checkpoint.step}")
        inputs = TrainingInputs(
            self.initial_model(), rows, self.settings, self.accelerator, base_rows, self.title
        )
        progress = (self.watch or Bar()) if run else None
        model = train(inputs, run, validate, progress, checkpoint)
        if run:
            _store_model(run, model)
        return run_id

    def _log_inputs(self, run: OpenRun) -> None:
        world = self.maker.world
        rowsets = [*training_sets(self.settings, world), *base_sets(self.settings, world)]
        log_rows(run, self.maker, rowsets, "training")
        log_rows(run, self.maker, list(validation_sets(self.settings).values()), "validation")
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            path = Path(folder) / CITIES
            self.maker.world.cities.to_csv(path, index=False)
            run.artifact(path)

    def initial_model(self) -> Qwen2ForCausalLM:
        """New weights, or the base's final ones. (A checkpoint of this run replaces either.)"""
        if self.base_id is None:
            return build_model(self.settings)
        with self.store.download(self.base_id, MODEL) as folder:
            verify(folder)
            return load_model(folder)


def _last_checkpoint(store: Store, run_id: str, accelerator: Accelerator) -> Checkpoint | None:
    """The checkpoint of the highest step that is complete in the store, in every process."""
    found = _load_last(store, run_id) if accelerator.is_main_process else None
    step = _from_main(accelerator, lambda: found.step if found else None)
    if step is None or found:
        return found
    with store.download(run_id, f"{CHECKPOINTS}/{folder_name(step)}") as folder:
        return read_checkpoint(folder)


def _load_last(store: Store, run_id: str) -> Checkpoint | None:
    for step in reversed(store.checkpoint_steps(run_id)):
        with store.download(run_id, f"{CHECKPOINTS}/{folder_name(step)}") as folder:
            try:
                return read_checkpoint(folder)
            except StateError:
                continue
    return None


def _store_model(run: OpenRun, model: Qwen2ForCausalLM) -> None:
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary)
        save_model(model, folder)
        write_manifest(folder)
        run.artifacts(folder, MODEL)
