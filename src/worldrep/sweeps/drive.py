"""Running a sweep: ask Optuna for trials, hand them to workers, tell Optuna the outcomes.

Optuna's study is the list of trials; the MLflow store knows how the run of each trial ended. After
a driver was killed, trials whose run has ended are told to Optuna and the others are repeated.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from worldrep.errors import InputError, StateError
from worldrep.executors import Executor, ExecutorOptions, Outcome, open_executor
from worldrep.scales import base_settings, changed_settings
from worldrep.settings import Settings
from worldrep.stages import evaluate_model, train_model
from worldrep.stages.provenance import keep_cities
from worldrep.studies import Definition, expand
from worldrep.studies.driver import Display, run_study
from worldrep.sweeps.definition import Sweep, params_in_words
from worldrep.sweeps.report import RUN_ID, best_trials, log_progress, log_results, sweep_spec
from worldrep.sweeps.storage import check_storage, open_storage, open_study
from worldrep.sweeps.trial import COMPLETE, FAILED, OBJECTIVE, STATE, TrialJob
from worldrep.tracking import OpenRun, Store, StoredRun
from worldrep.tracking.liveness import Owner

PERFORM = "worldrep.sweeps.trial:perform"
WAIT_SECONDS, LOOK_SECONDS = 1.0, 3.0
MOST_RETRIES = 2  # of a trial whose worker died
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)  # adds a trial of equal values
ERROR = "error"  # attribute of Optuna's trials


@dataclass(frozen=True)
class Base:
    """Run and metrics of the base that the trials start from; empty for a pretraining."""

    run_id: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def run_sweep(
    store: Store,
    sweep: Sweep,
    options: ExecutorOptions,
    storage: str,
    n_trials: int,
    *,
    launched: bool = False,
) -> tuple[str, optuna.Study]:
    """Run the trials that are missing of `n_trials`, as children of the sweep's run.

    Args:
        options: Where the trials run.
        storage: Address of Optuna's storage.
        launched: Whether the sweep is what `mlflow run` was started for.

    Returns:
        The id of the sweep's run, and Optuna's study.

    Raises:
        InputError: Name or storage belong to another sweep; nothing was written.
        StateError: No trial was completed.
    """
    check_storage(store, sweep, options, storage)
    store.check_writable()
    study = open_study(open_storage(storage), sweep)
    display = Display(sweep.title, options.workers)
    executor = open_executor(replace(options, perform=PERFORM), store, display.report)
    driver: SweepDriver | None = None
    try:
        with store.run(sweep_spec(sweep, storage), launched=launched) as run:
            keep_cities(run, sweep.settings)
            driver = SweepDriver(store, sweep, study, run, executor, display)
            driver.work(_base(store, sweep, run.id), n_trials)
            log_results(run, sweep, study)
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    if not best_trials(study):
        raise StateError(f"{sweep.title}: no trial was completed; the trials' runs say why")
    return run.id, study


def _base(store: Store, sweep: Sweep, parent: str) -> Base:
    """Find or make the base of the trials and its evaluation."""
    if not sweep.settings.is_finetuning:
        return Base()
    base_id = train_model(store, base_settings(sweep.settings), parent=parent)
    evaluation = evaluate_model(store, store.get(base_id), parent=parent)
    return Base(base_id, store.get(evaluation).metrics)


class SweepDriver:
    """The process that owns the run of a sweep."""

    def __init__(
        self,
        store: Store,
        sweep: Sweep,
        study: optuna.Study,
        run: OpenRun,
        executor: Executor,
        display: Display,
    ) -> None:
        self._store, self._sweep, self._study, self._run = store, sweep, study, run
        self._executor, self._display = executor, display
        self._base, self._n_trials = Base(), 0

    def work(self, base: Base, n_trials: int) -> None:
        """Conclude the trials of an earlier driver, then run what is missing of `n_trials`."""
        self._base, self._n_trials = base, n_trials
        while alive := self._take_up():
            numbers = ", ".join(map(str, alive))
            self._display.say(f"trial {numbers} is still being done: waiting for its end")
            time.sleep(LOOK_SECONDS)
        log_progress(self._run, self._sweep, self._study)
        self._display.say(f"{self._sweep.title}: {self._ended} of {n_trials} trials done already")
        while self._running() or self._ended < n_trials:
            while self._executor.free and len(self._counted()) < n_trials:
                self._begin()
            self._display.whole({"done": self._ended, "left": n_trials - self._ended})
            for outcome in self._executor.wait(WAIT_SECONDS):
                self._settle(outcome)

    def close(self, ended: Collection[Owner]) -> None:
        """End the runs of trials that stopped workers left open.

        Args:
            ended: Processes of the executor that was stopped.
        """
        for trial in self._running():
            for run in self._runs_of(trial):
                self._store.close_dead(run, ended)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def _counted(self) -> list[FrozenTrial]:
        """List the trials that count: not those that are queued, repeated or half suggested."""
        trials = self._study.get_trials(deepcopy=False)
        repeated = {number for trial in trials for number in RETRY.retry_history(trial)}
        return [
            trial
            for trial in trials
            if trial.state != TrialState.WAITING
            and trial.number not in repeated
            and self._has_all_values(trial)
        ]

    def _has_all_values(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._sweep.space.keys()

    def _counts(self, trial: FrozenTrial) -> bool:
        return any(trial.number == counted.number for counted in self._counted())

    @property
    def _ended(self) -> int:
        return len(self._counted()) - len(self._running())

    def _runs_of(self, trial: FrozenTrial) -> list[StoredRun]:
        """List the runs of a trial: one, or none if it did not begin."""
        return self._store.find(fingerprint=self._sweep.trial_fingerprint(trial.number))

    def _take_up(self) -> list[int]:
        """Conclude the trials of an earlier driver; return those that a process still runs."""
        alive = []
        for trial in self._running():
            if any(run.alive for run in self._runs_of(trial)):
                alive.append(trial.number)
            else:
                self._conclude(trial)
        return alive

    def _begin(self) -> None:
        """Submit a trial: a queued one, else a new one."""
        self._study.sampler = self._sweep.sampler_of(len(self._counted()))
        trial = self._study.ask(fixed_distributions=self._sweep.space)
        try:
            job = self._job(trial, self._sweep.settings_of(trial.params))
        except InputError as fault:  # values that conflict
            self._refuse(trial, fault)
            return
        self._executor.submit(job)

    def _job(self, trial: optuna.Trial, settings: Settings) -> TrialJob:
        sweep, base = self._sweep, self._base
        title, fingerprint = sweep.trial_title(trial.number), sweep.trial_fingerprint(trial.number)
        return TrialJob(
            "trial", settings, title, fingerprint, base.run_id, self._run.id,
            sweep, trial, base.metrics,
        )  # fmt: skip

    def _refuse(self, trial: optuna.Trial, fault: InputError) -> None:
        """Record a trial whose settings are invalid as a failed one."""
        spec = self._job(trial, self._sweep.settings).spec
        with (
            suppress(InputError),
            self._store.run(replace(spec, settings={**spec.settings, **trial.params})),
        ):
            raise fault  # ends the run as FAILED, with the reason
        self._fail(self._study.trials[trial.number], str(fault))
        self._report(trial.number)

    def _settle(self, outcome: Outcome) -> None:
        """Tell Optuna how a trial of a worker ended."""
        fingerprint_of = self._sweep.trial_fingerprint
        (trial,) = (t for t in self._running() if fingerprint_of(t.number) == outcome.fingerprint)
        if outcome.state == "failed":
            self._fail(trial, outcome.message)
        else:
            self._conclude(trial, [outcome.owner] if outcome.owner else [])
        self._report(trial.number)

    def _conclude(self, trial: FrozenTrial, ended: Collection[Owner] = ()) -> None:
        """Tell Optuna what the store knows of a trial, and repeat one that was cut off.

        Args:
            ended: Processes that no longer work on it, whatever the store says.
        """
        for run in self._runs_of(trial):
            self._store.close_dead(run, ended)
        run, *_ = [*self._runs_of(trial), None]
        if run and run.status == "FINISHED":
            self._tell(trial, run)
        elif run and run.status == "FAILED":
            self._fail(trial, run.tag("error"))
        elif not self._has_all_values(trial):  # the sampler will suggest the same values again
            self._fail(trial)
        else:
            if self._counts(trial):  # else it was queued before the driver was killed
                RETRY(self._study, self._study.trials[trial.number])  # a copy, which it changes
            gave_up = f"its worker died {MOST_RETRIES + 1} times"
            self._fail(trial, gave_up if self._counts(trial) else "")

    def _tell(self, trial: FrozenTrial, run: StoredRun) -> None:
        """Tell Optuna of a finished run."""
        self._set(trial, RUN_ID, run.id)
        if run.tag(STATE) == COMPLETE:
            goals = self._sweep.objectives
            values = [run.metrics[f"{OBJECTIVE}{goal.name}"] for goal in goals]
            self._study.tell(trial.number, values)
        else:
            self._study.tell(trial.number, state=TrialState.PRUNED)

    def _fail(self, trial: FrozenTrial, message: str = "") -> None:
        for run in self._runs_of(trial)[:1]:
            self._set(trial, RUN_ID, run.id)
            self._store.tag(run.id, **{STATE: FAILED})
        if message:
            self._set(trial, ERROR, message)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def _set(self, trial: FrozenTrial, key: str, value: str) -> None:
        self._study._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _report(self, number: int) -> None:
        """Print and log how a trial ended."""
        trial = self._study.trials[number]
        self._display.say(f"[{self._ended}/{self._n_trials}] trial {number}: {self._words(trial)}")
        log_progress(self._run, self._sweep, self._study)

    def _words(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.COMPLETE:
            return self._sweep.outcome(trial)
        if not self._counts(trial):
            return "cut off; it is done again as another one"
        how = f"FAILED: {trial.user_attrs.get(ERROR)}"
        if trial.state == TrialState.PRUNED:
            how = f"pruned after validation {trial.last_step}"
        return f"{how} ({params_in_words(trial.params)})"


def check_apply(apply: str | None, seeds: Sequence[int], sweep: Sweep) -> None:
    """Check the options `apply` and `seeds`. Raises InputError for an invalid one."""
    for seed in seeds:
        replace(sweep.settings, seed=seed)
    if apply == "best" and len(sweep.objectives) > 1:
        raise InputError(
            "apply=best needs one objective; of several no trial is the best: "
            "choose one of the front by its number, such as apply=7"
        )
    if apply not in (None, "best") and not (apply.isascii() and apply.isdecimal()):
        raise InputError(f"apply={apply!r} is not one of: none, best, or the number of a trial")


def apply_trial(
    store: Store,
    sweep: Sweep,
    study: optuna.Study,
    apply: str,
    options: ExecutorOptions,
    seeds: tuple[int, ...],
) -> str:
    """Run a study that trains, evaluates and extracts the settings of a trial over seeds.

    Args:
        apply: `best`, or the number of a completed trial.

    Returns:
        The name of the study.

    Raises:
        InputError: The trial was not completed.
        StateError: A step of the study failed.
    """
    completed = {str(t.number): t for t in study.get_trials(states=[TrialState.COMPLETE])}
    if apply != "best" and str(int(apply)) not in completed:
        numbers = ", ".join(completed)
        raise InputError(f"trial {apply} is not one of those that were completed: {numbers}")
    trial = study.best_trial if apply == "best" else completed[str(int(apply))]
    own = sweep.settings
    definition = Definition(
        f"{sweep.name}-trial{trial.number}",
        (str(own.model_name),),
        about=f"Trial {trial.number} of {sweep.title} over seeds.",
        seeds=seeds,
        worlds=(own.world,),
        scale=own.scale,
        settings=changed_settings(own) | trial.params,
    )
    run_study(store, expand(definition), options).check()
    return definition.name
