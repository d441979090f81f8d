"""One trial of a sweep: train, validate, prune if Optuna says so, evaluate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna

from worldrep.data.sets import suite_sets
from worldrep.errors import StateError
from worldrep.evaluation.suites import VAL, evaluate
from worldrep.executors.jobs import Job, with_cities
from worldrep.progress import Counter, ProgressCallback, recorded_in, reporting
from worldrep.settings import Settings
from worldrep.stages.estimate import Work, check_needs
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.provenance import identity_tags
from worldrep.stages.train import TrainingData, initial_model
from worldrep.sweeps.definition import NONE, Sweep
from worldrep.tracking import OpenRun, RunSpec, Store
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.state import make_accelerator

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
STATE = "trial_state"  # tag
RUN_ID = "mlflow_run_id"  # attribute of Optuna's trials
OBJECTIVE = "objective/"  # prefix of the values of the objectives among the metrics


@dataclass(frozen=True)
class TrialJob(Job):
    """A trial to run.

    settings: of the sweep, which those of the trial override; trial: Optuna's, pickled with the
    way to its storage; base_metrics: evaluation of the base, whose run is `model_run`.
    """

    sweep: Sweep
    trial: optuna.Trial
    base_metrics: Mapping[str, float]

    @property
    def spec(self) -> RunSpec:
        """The run of the trial, a child of the sweep's run."""
        settings = replace(self.settings, **self.trial.params)
        tags = identity_tags(settings) | {"sweep": self.sweep.name}
        tags |= {"trial": str(self.trial.number), STATE: RUNNING}
        tags |= {"base_run_id": self.model_run} if self.model_run else {}
        return RunSpec("sweep", self.title, self.fingerprint, tags, settings.as_dict(), self.parent)


def perform(store: Store, job: TrialJob, progress: ProgressCallback) -> str:
    """Run a trial and return the id of its run, whose tag `trial_state` says how it ended.

    The run of a pruned trial is FINISHED. Weights are not stored.
    """
    with store.run(job.spec) as run, reporting(progress), recorded_in(run):
        job.trial.set_user_attr(RUN_ID, run.id)
        state = FAILED
        try:
            settings = replace(with_cities(store, job), **job.trial.params)
            run.metrics(*_train_and_evaluate(store, job, settings, run))
            state = COMPLETE
        except optuna.TrialPruned:
            state = PRUNED
        finally:
            run.tags({f"worldrep.{STATE}": state})
    return run.id


def _train_and_evaluate(
    store: Store, job: TrialJob, settings: Settings, run: OpenRun
) -> tuple[int, dict[str, float]]:
    """Return the number of steps and the metrics of the trained model. Raises TrialPruned."""
    check_needs(store, [Work("train", settings, begun=True)])  # sizes may be searched
    accelerator, plan = make_accelerator(settings), TrainingPlan.of(settings)
    data = TrainingData.load(plan, accelerator)
    start = initial_model(store, settings, job.model_run or None)
    inputs = TrainingInputs(start, data.rows, settings, accelerator, data.base_rows, job.title)
    model = train(inputs, TrialRecorder(run, job, plan.steps), data.validate)
    questions = sum(rowset.rows for rowset in suite_sets(settings).values())
    counter = Counter(f"{job.title}, evaluation", questions, unit="question")
    metrics, _ = evaluate(model.to(accelerator.device), plan.maker, settings, counter)
    for goal in job.sweep.objectives:
        value = goal.value(metrics, job.base_metrics, settings)
        if not math.isfinite(value):
            raise StateError(f"objective {goal.name} is not a number")
        metrics[f"{OBJECTIVE}{goal.name}"] = value
    return plan.steps, metrics


@dataclass
class TrialRecorder:
    """Logs the metrics of a trial, reports its validations to Optuna, and prunes it.

    steps: length of the training; base: the validation at step 0. The objectives are computed from
    validation rows as they are from test rows at the end.
    """

    run: OpenRun
    job: TrialJob
    steps: int
    base: Mapping[str, float] = field(default_factory=dict)
    validations: int = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics after a step. Raises optuna.TrialPruned."""
        self.run.metrics(step, values)
        validated = {k.removeprefix(VAL): v for k, v in values.items() if k.startswith(VAL)}
        if step == 0:
            self.base = validated
        elif validated:
            self._report(step, validated)

    def _report(self, step: int, validated: Mapping[str, float]) -> None:
        settings, trial, sweep = self.job.settings, self.job.trial, self.job.sweep
        goals = [goal for goal in sweep.objectives if goal.is_validated(settings)]
        found = {goal.name: goal.value(validated, self.base, settings) for goal in goals}
        self.run.metrics(step, {f"{VAL}{OBJECTIVE}{name}": v for name, v in found.items()})
        self.validations += 1
        if sweep.pruner != NONE:  # there is one objective
            trial.report(found[goals[0].name], self.validations)
            if step < self.steps and trial.should_prune():
                raise optuna.TrialPruned

    def checkpoint(self, folder: Path) -> None:
        """Store nothing: an interrupted trial restarts, and the winner is trained again."""
