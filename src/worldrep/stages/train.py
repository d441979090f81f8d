"""Training a model in a run: reused when it is done, resumed when it was interrupted."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import Qwen2ForCausalLM

from worldrep.data.sets import load_rows, stack_rows
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import Tokens
from worldrep.data.world import World
from worldrep.disk import temporary_folder
from worldrep.errors import StateError
from worldrep.evaluation.suites import MAX_NEW_TOKENS, VAL, suite_of, validation_metrics
from worldrep.model.qwen2 import build_model, save_model
from worldrep.progress import ProgressCallback, recorded_in, shown
from worldrep.scales import base_settings
from worldrep.settings import Settings
from worldrep.stages.commands import describe
from worldrep.stages.estimate import Work, check_needs
from worldrep.stages.models import check_base, stored_model
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.provenance import identity_tags, log_rows, suite_datasets
from worldrep.stored import DamagedError
from worldrep.tracking import (
    CHECKPOINTS,
    CITIES,
    MODEL,
    OpenRun,
    RunSpec,
    Store,
    StoredRun,
    write_python_function,
)
from worldrep.training.checkpoint import Checkpoint, folder_name, read_checkpoint, write_manifest
from worldrep.training.loop import TrainingInputs, Validate, train
from worldrep.training.state import CheckpointError, make_accelerator


def train_model(
    store: Store,
    settings: Settings,
    *,
    base_run: str | None = None,
    parent: str | None = None,
    launched: bool = False,
    confirmed: bool = True,
    progress: ProgressCallback | None = None,
) -> str:
    """Return the run id of a trained model; train it, and its base before it, if needed.

    Args:
        store: Where the runs are.
        settings: Complete settings of a pretraining or a fine-tuning.
        base_run: Run id of the base of a fine-tuning; default: the one that `settings` describe.
        parent: Run id of the study that this training belongs to.
        launched: This is the work that `mlflow run` was called for.
        confirmed: It may take longer than a day.
        progress: Progress callback of the training; default: a bar or lines.

    Raises:
        InputError: The base does not fit the fine-tuning, the world has too few questions, or the
            training needs more memory than there is, or a confirmation.
        StateError: The base is damaged, or another process trains the same model.
    """
    accelerator = make_accelerator(settings)
    plan = TrainingPlan.of(settings, check_base(store, base_run, settings) if base_run else None)
    trainer = _Trainer(store, accelerator, parent, progress)
    if done := trainer.find(plan):
        return done
    check_needs(store, trainer.works(plan), confirmed=confirmed)
    with nullcontext() if progress or not accelerator.is_main_process else shown():
        return trainer.train(plan, launched=launched)


@dataclass(frozen=True)
class TrainingData:
    """Token rows (n, length) of a training and of its base's, and the function that validates."""

    rows: Tokens
    base_rows: Tokens | None
    validate: Validate

    @classmethod
    def load(cls, plan: TrainingPlan, accelerator: Accelerator) -> Self:
        """Make the rows, or read them from the cache; the main process makes them for all."""
        with accelerator.main_process_first():
            rows = stack_rows(plan.maker, plan.rows)
            base_rows = stack_rows(plan.maker, plan.base_rows) if plan.base_rows else None
            held_out = plan.validation.items()
            suites = [suite_of(name, load_rows(plan.maker, rowset)) for name, rowset in held_out]
        plain = plan.settings.is_plain
        return cls(rows, base_rows, lambda model: validation_metrics(model, suites, plain))


def initial_model(store: Store, settings: Settings, base_id: str | None) -> Qwen2ForCausalLM:
    """Return the model at step 0: the base's final weights, or new ones if there is no base."""
    if base_id is None:
        return build_model(settings)
    return stored_model(store, base_id, MODEL, base_settings(settings))


@dataclass(frozen=True)
class _Trainer:
    """Finds or trains models for one call of `train_model`, in all of its processes."""

    store: Store
    accelerator: Accelerator
    parent: str | None
    progress: ProgressCallback | None

    def find(self, plan: TrainingPlan) -> str | None:
        return self._from_main(lambda: self.store.reuse(plan.fingerprint, self.parent))

    def works(self, plan: TrainingPlan) -> list[Work]:
        """Return the training, and its base's if that is not in the store."""
        plans = [plan]
        if isinstance(plan.base, TrainingPlan) and not self.store.finished(plan.base.fingerprint):
            plans.append(plan.base)
        begun = [bool(self.store.find(fingerprint=own.fingerprint)) for own in plans]
        return [Work("train", own.settings, b) for own, b in zip(plans, begun, strict=True)]

    def train(self, plan: TrainingPlan, *, launched: bool = False) -> str:
        base_id = self._base_id(plan)
        data = TrainingData.load(plan, self.accelerator)  # may fail, so before the run is opened
        spec = self._spec(plan, base_id)
        is_main = self.accelerator.is_main_process
        with self.store.run(spec, launched=launched) if is_main else nullcontext() as run:
            run_id = str(self._from_main(lambda: run.id if run else None))
            if run:
                log_rows(run, plan.maker, (*plan.rows, *plan.base_rows), "training")
                log_rows(run, plan.maker, plan.validation.values(), "validation")
                suites = suite_datasets(plan.maker, plan.validation)
                suites = {VAL + name: data for name, data in suites.items()}
                run.link_metrics(run.model_id, plan.steps, suites)
                with run.new_artifact(CITIES) as path:
                    plan.maker.world.cities.to_csv(path, index=False)
            with recorded_in(run) if run else nullcontext():
                model = self._train(plan, data, base_id, run, run_id)
            if run:
                _store_model(run, model, plan.maker.world)
        return run_id

    def _train(
        self, plan: TrainingPlan, data: TrainingData, base_id: str | None,
        run: OpenRun | None, run_id: str,
    ) -> Qwen2ForCausalLM:  # fmt: skip
        """Train from the newest checkpoint that fits, else from the initial model."""
        settings, accelerator, before = plan.settings, self.accelerator, None
        title = settings.run_name(settings.training_stage)
        while True:
            checkpoint = self._checkpoint(run_id, before)
            model = initial_model(self.store, settings, base_id)
            inputs = TrainingInputs(model, data.rows, settings, accelerator, data.base_rows, title)
            try:
                return train(inputs, run, data.validate, self.progress, checkpoint)
            except CheckpointError as fault:
                assert checkpoint is not None
                before = checkpoint.step
                accelerator.print(skipped(before, fault))

    def _base_id(self, plan: TrainingPlan) -> str | None:
        if plan.base is None:
            return None
        if isinstance(plan.base, StoredRun):
            return plan.base.id
        assert isinstance(plan.base, TrainingPlan)
        if done := self.find(plan.base):
            return done
        self.accelerator.print(
            f"the base {describe(plan.base.settings)} is not in the store: it is trained first, "
            "in a run of its own"
        )
        accelerator = make_accelerator(plan.base.settings)
        return replace(self, accelerator=accelerator).train(plan.base)

    def _spec(self, plan: TrainingPlan, base_id: str | None) -> RunSpec:
        settings = plan.settings
        tags = identity_tags(settings) | {
            "world_digest": plan.maker.world.digest,
            "configuration": plan.configuration,
            "processes": str(self.accelerator.num_processes),
        }
        tags |= {"base_run_id": base_id} if base_id else {}
        stage, values = settings.training_stage, settings.as_dict()
        named = stage, settings.run_name(stage), plan.fingerprint, tags, values, self.parent
        return RunSpec(*named, makes=str(settings.model_name))

    def _checkpoint(self, run_id: str, before: int | None) -> Checkpoint | None:
        """Load the newest complete checkpoint before a step, the same one in all processes."""
        is_main = self.accelerator.is_main_process
        found = _newest_complete(self.store, run_id, before) if is_main else None
        step = self._from_main(lambda: found.step if found else None)
        if found or step is None:
            return found
        with self.store.download(run_id, f"{CHECKPOINTS}/{folder_name(step)}") as folder:
            return read_checkpoint(folder)

    def _from_main(self, ask: Callable[[], Any]) -> Any:
        """Return the main process's answer in all processes."""
        answer = [ask() if self.accelerator.is_main_process else None]
        return broadcast_object_list(answer)[0]


def _newest_complete(store: Store, run_id: str, before: int | None) -> Checkpoint | None:
    for step in reversed(store.checkpoint_steps(run_id)):
        if before is not None and step >= before:
            continue
        with store.download(run_id, f"{CHECKPOINTS}/{folder_name(step)}") as folder:
            try:
                return read_checkpoint(folder)
            except StateError as fault:
                print(skipped(step, fault))
    return None


def skipped(step: int, fault: StateError) -> str:
    """Say why a checkpoint is not used."""
    reason = f"{fault.name}: {fault.fault}" if isinstance(fault, DamagedError) else str(fault)
    return f"the checkpoint after step {step} is not used: {reason}"


def _store_model(run: OpenRun, model: Qwen2ForCausalLM, world: World) -> None:
    config = {"labels": [task.label for task in TASKS.values()], "max_new_tokens": MAX_NEW_TOKENS}
    example = [TASKS["distance"].question(world.cities["city_id"][:2].tolist())]
    with temporary_folder(needed=sum(p.nbytes for p in model.parameters())) as folder:
        save_model(model, folder)
        write_python_function(folder, run.model_id, example, config)
        write_manifest(folder)
        run.artifacts(folder, MODEL)
