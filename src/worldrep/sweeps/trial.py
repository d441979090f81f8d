"""One trial of a sweep, done by a worker: train, validate, perhaps stop early, evaluate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler

from worldrep.errors import StateError
from worldrep.evaluation.suites import VAL, evaluate
from worldrep.executors.jobs import Job, with_cities
from worldrep.settings import Settings
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.provenance import identity_tags
from worldrep.stages.train import TrainingData, initial_model
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.guides import NONE, make_pruner
from worldrep.sweeps.storage import open_storage
from worldrep.tracking import OpenRun, RunSpec, Store
from worldrep.training.device import make_accelerator
from worldrep.training.loop import train
from worldrep.training.progress import ProgressCallback

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
STATE, NUMBER = "trial_state", "trial"  # tags
RUN_ID = "mlflow_run_id"  # attribute of Optuna's trial
OBJECTIVE = "objective/"  # before the names of a trial's values, and of those at its validations


@dataclass(frozen=True)
class TrialJob(Job):
    """A trial to do. model_run: of the base; sweep: what it is a trial of; storage: its address;
    number: as Optuna counts; base_metrics: of the base's evaluation."""

    sweep: Sweep
    storage: str
    number: int
    base_metrics: Mapping[str, float]


class Pruned(Exception):
    """This trial does worse than others did so far."""


def perform(store: Store, job: TrialJob, watch: ProgressCallback) -> str:
    """Do a trial in a run of its own; the id of that run, which says how it ended.

    A pruned one is FINISHED: nothing went wrong. Weights are not kept.
    """
    settings = with_cities(store, job)
    with store.run(trial_spec(job)) as run:
        try:
            accelerator = make_accelerator(settings)
            plan = TrainingPlan.of(settings)
            data = TrainingData.load(plan, accelerator)
            recorder = TrialRecorder(run, job, settings, plan.steps)
            model = train(
                initial_model(store, settings, job.model_run or None), data.rows, settings,
                accelerator, recorder, data.validate,
                title=job.title, watch=watch, base_rows=data.base_rows,
            )  # fmt: skip
            metrics, _ = evaluate(model.to(accelerator.device), plan.maker, settings)
            run.metrics(plan.steps, metrics | _values(job, settings, metrics))
            run.tags({f"worldrep.{STATE}": COMPLETE})
        except Pruned:
            run.tags({f"worldrep.{STATE}": PRUNED})
        except BaseException:
            run.tags({f"worldrep.{STATE}": FAILED})
            raise
    return run.id


def trial_spec(job: TrialJob) -> RunSpec:
    """The run of a trial, a child of the sweep's."""
    tags = identity_tags(job.settings) | {NUMBER: str(job.number), STATE: RUNNING}
    tags |= {"sweep": job.sweep.name}
    tags |= {"base_run_id": job.model_run} if job.model_run else {}
    values = job.settings.as_dict()
    return RunSpec("sweep", job.title, job.fingerprint, tags, values, job.parent)


def _values(job: TrialJob, settings: Settings, metrics: Mapping[str, float]) -> dict[str, float]:
    values = {
        f"{OBJECTIVE}{goal.name}": goal.value(metrics, job.base_metrics, settings)
        for goal in job.sweep.objectives
    }
    for name, value in values.items():
        if not math.isfinite(value):
            raise StateError(f"{name} is not a number")
    return values


class TrialRecorder:
    """Records the numbers of a trial, and ends it when Optuna finds it poor.

    What an objective is at a validation is computed as at the end, from validation rows: those at
    step 0 are the base's. steps: of the whole training.
    """

    def __init__(self, run: OpenRun, job: TrialJob, settings: Settings, steps: int) -> None:
        self._run, self._task, self._settings, self._steps = run, job, settings, steps
        self._base: dict[str, float] = {}
        self._validations = 0
        self._trial = _trial_of(job)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured after `step` steps. Raises Pruned."""
        self._run.metrics(step, values)
        validated = {k.removeprefix(VAL): v for k, v in values.items() if k.startswith(VAL)}
        if not validated:
            return
        if step == 0:
            self._base = validated
            return
        self._validations += 1
        shown = {
            goal.name: goal.value(validated, self._base, self._settings)
            for goal in self._task.sweep.objectives
            if goal.is_validated(self._settings)
        }
        self._run.metrics(step, {f"{VAL}{OBJECTIVE}{name}": v for name, v in shown.items()})
        if self._trial and len(shown) == 1:
            self._trial.report(next(iter(shown.values())), self._validations)
            if step < self._steps and self._trial.should_prune():
                raise Pruned

    def checkpoint(self, folder: Path) -> None:
        """Nothing: a trial that is cut off is done anew, and the winner is trained by its name."""


def _trial_of(job: TrialJob) -> optuna.Trial | None:
    """Optuna's trial, for what it is told meanwhile; None if nothing can be pruned."""
    if job.sweep.pruner == NONE:
        return None
    study = optuna.load_study(
        study_name=job.sweep.name,
        storage=open_storage(job.storage),
        sampler=RandomSampler(),  # all is suggested already
        pruner=make_pruner(job.sweep.pruner, job.sweep.settings.n_validations),
    )
    return running_trial(study, job.number)


def running_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that was asked for before, perhaps by another process."""
    return optuna.Trial(study, study.trials[number]._trial_id)
