"""Training a model as a recorded run: reused when done, resumed when interrupted."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import Qwen2ForCausalLM

from worldrep.data import load_rows, stack_rows, training_sets, validation_sets
from worldrep.errors import InputError, StateError
from worldrep.estimate import estimate_seconds, in_words
from worldrep.evaluation import suite_of, validation_metrics
from worldrep.fingerprints import training_fingerprint
from worldrep.manifest import folder_name, verify, write_manifest
from worldrep.model import build_model, load_model, save_model
from worldrep.rows import RowMaker
from worldrep.scales import base_settings
from worldrep.settings import SHARED_GROUPS, Settings, from_dict
from worldrep.stages.common import describe, identity_tags, log_rows, maker_of, run_name
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun
from worldrep.tracking.run import CHECKPOINTS
from worldrep.training import Validate, make_accelerator, train

MODEL = "model"
TRAINING_STAGES = ("pretrain", "finetune")


def train_model(
    store: Store,
    settings: Settings,
    *,
    base_run: str | None = None,
    parent: str | None = None,
    launched: bool = False,
) -> str:
    """The run id of the trained model; it is trained, and its base before it, if it is not there.

    base_run: run id of the pretrained model to start from, instead of the one that the settings
    describe; parent: run id of a study; launched: this is what `mlflow run` was asked for.
    Raises InputError for a base that does not fit, StateError for one that is damaged.
    """
    accelerator = make_accelerator(settings)
    maker = maker_of(settings)
    base = check_base(store, base_run, settings, maker) if base_run else None
    given = base.tags["worldrep.fingerprint"] if base else None
    fingerprint = training_fingerprint(maker, settings, given)
    done = _from_main(accelerator, lambda: _finished_id(store, fingerprint))
    stage = "finetune" if settings.is_finetuning else "pretrain"
    if done:
        store.adopt(done, parent)
        accelerator.print(f"{stage} {describe(settings)}: already trained, run {done}")
        return done
    base_id = base.id if base else None
    if settings.is_finetuning and base_id is None:
        base_id = _find_or_train_base(store, settings, accelerator, parent)
    tags = identity_tags(settings) | {"processes": str(accelerator.num_processes)}
    tags |= {"base_run_id": base_id} if base_id else {}
    spec = RunSpec(stage, run_name(stage, settings), fingerprint, tags, settings.as_dict(), parent)
    with ExitStack() as stack:
        main = accelerator.is_main_process
        run = stack.enter_context(store.run(spec, launched=launched) if main else nullcontext())
        return _train_in_run(store, settings, accelerator, maker, run, base_id, spec.name)


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


def kind_of(run: StoredRun) -> str:
    """A run in words, such as `an evaluate run (FAILED)`."""
    return f"a run of stage {run.tags.get('worldrep.stage', 'unknown')} ({run.status})"


def stored_settings(store: Store, run: StoredRun) -> Settings:
    """The resolved settings that a training run stored."""
    with store.download(run.id, "settings.json") as path:
        return from_dict(json.loads(path.read_text()))


def _finished_id(store: Store, fingerprint: str) -> str | None:
    done = store.finished(fingerprint)
    return done.id if done else None


def _from_main(accelerator: Accelerator, ask) -> str | None:
    """The main process's answer, in all processes."""
    answer = [ask() if accelerator.is_main_process else None]
    return broadcast_object_list(answer)[0]


def _find_or_train_base(
    store: Store, settings: Settings, accelerator: Accelerator, parent: str | None
) -> str:
    """The run id of the base that the settings describe, trained if it is not there."""
    base, maker = base_settings(settings), maker_of(settings)
    fingerprint = training_fingerprint(maker, base)
    done = _from_main(accelerator, lambda: _finished_id(store, fingerprint))
    if done:
        return done
    expected = in_words(estimate_seconds(base, maker))  # all processes take part
    accelerator.print(
        f"the base {describe(base)} is not in the store: it is trained first, "
        f"in a run of its own, which should take {expected}"
    )
    return train_model(store, base, parent=parent)


def _train_in_run(
    store: Store,
    settings: Settings,
    accelerator: Accelerator,
    maker: RowMaker,
    run: OpenRun | None,
    base_id: str | None,
    title: str,
) -> str:
    """Train and store the model; `run` is None on all processes but the main one."""
    run_id = str(_from_main(accelerator, lambda: run.id if run else None))
    rowsets, held_out = training_sets(settings, maker.world), validation_sets(settings)
    with accelerator.main_process_first():
        rows = stack_rows(maker, rowsets)
    if run:
        log_rows(run, maker, rowsets, "training")
        log_rows(run, maker, list(held_out.values()), "validation")
    with ExitStack() as stack:
        step = _from_main(accelerator, lambda: _last_whole_checkpoint(store, run_id))
        resume = None
        if step is not None:
            accelerator.print(f"{title}: resumed after step {step}")
            path = f"{CHECKPOINTS}/{folder_name(int(step))}"
            resume = stack.enter_context(store.download(run_id, path))
        model = _initial_model(store, settings, base_id)
        validate = _validation(settings, maker)
        model = train(model, rows, settings, accelerator, run, validate, resume, title)
    if run:
        _store_model(run, model)
        accelerator.print(f"{title}: trained, run {run_id}")
    return run_id


def _initial_model(store: Store, settings: Settings, base_id: str | None) -> Qwen2ForCausalLM:
    """New weights, or the base's final ones. (A checkpoint of this run replaces either.)"""
    if base_id is None:
        return build_model(settings)
    with store.download(base_id, MODEL) as folder:
        verify(folder)
        return load_model(folder)


def _last_whole_checkpoint(store: Store, run_id: str) -> int | None:
    """The highest step whose checkpoint is complete in the store."""
    for step in reversed(store.checkpoint_steps(run_id)):
        with store.download(run_id, f"{CHECKPOINTS}/{folder_name(step)}") as folder:
            try:
                verify(folder)
            except StateError:
                continue
            return step
    return None


def _validation(settings: Settings, maker: RowMaker) -> Validate:
    sets = validation_sets(settings).items()
    suites = [suite_of(name, load_rows(maker, rows)) for name, rows in sets]
    return lambda model: validation_metrics(model, suites)


def _store_model(run: OpenRun, model: Qwen2ForCausalLM) -> None:
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary)
        save_model(model, folder)
        write_manifest(folder)
        run.artifacts(folder, MODEL)
