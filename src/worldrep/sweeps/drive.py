"""Running a sweep: ask Optuna for trials, hand them to workers, tell Optuna the outcomes.

Optuna's study is the list of trials; the MLflow store knows how the run of each trial ended. After
a driver was killed, trials whose run has ended are told to Optuna and the others are repeated.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from worldrep.errors import InputError, StateError
from worldrep.executors import Executor, ExecutorOptions, Outcome, open_executor
from worldrep.scales import base_settings, changed_settings
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

    Returns the id of the sweep's run, and Optuna's study in the storage at an address. `launched`
    says that `mlflow run` was started for this sweep.

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
            driver.work(n_trials)
            log_results(run, sweep, study)
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    if not best_trials(study):
        raise StateError(f"{sweep.title}: no trial was completed; the trials' runs say why")
    return run.id, study


def _base(store: Store, sweep: Sweep, parent: str) -> StoredRun | None:
    """Find or make the evaluation of the base that the trials start from."""
    if not sweep.settings.is_finetuning:
        return None
    base_id = train_model(store, base_settings(sweep.settings), parent=parent)
    return store.get(evaluate_model(store, store.get(base_id), parent=parent))


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

    def work(self, n_trials: int) -> None:
        """Conclude the trials of an earlier driver, then run what is missing of `n_trials`."""
        self._n_trials, self._base = n_trials, _base(self._store, self._sweep, self._run.id)
        while alive := [trial for trial in self._running() if self._is_alive(trial)]:
            numbers = ", ".join(str(trial.number) for trial in alive)
            self._display.say(f"trial {numbers} is still being done: waiting for its end")
            time.sleep(LOOK_SECONDS)
        for trial in self._running():
            self._conclude(trial)
        log_progress(self._run, self._sweep, self._study)
        self._display.say(f"{self._sweep.title}: {self._ended} of {n_trials} trials done already")
        while self._running() or self._ended < n_trials:
            while self._executor.free and len(self._counted()) < n_trials:
                self._begin()
            self._display.whole({"done": self._ended, "left": n_trials - self._ended})
            for outcome in self._executor.wait(WAIT_SECONDS):
                self._settle(outcome)

    def close(self, ended: Collection[Owner]) -> None:
        """End the runs that stopped workers left open; `ended` are their processes."""
        for trial in self._running():
            for run in self._runs_of(trial):
                self._store.close_dead(run, ended)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def _counted(self) -> list[int]:
        """Number the trials that count: not those that are queued, repeated or half suggested."""
        trials = self._study.get_trials(deepcopy=False)
        repeated = {number for trial in trials for number in RETRY.retry_history(trial)}
        begun = [t for t in trials if t.state != TrialState.WAITING and self._is_suggested(t)]
        return [trial.number for trial in begun if trial.number not in repeated]

    @property
    def _ended(self) -> int:
        return len(self._counted()) - len(self._running())

    def _is_suggested(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._sweep.space.keys()

    def _is_alive(self, trial: FrozenTrial) -> bool:
        return any(run.alive for run in self._runs_of(trial))

    def _runs_of(self, trial: FrozenTrial) -> list[StoredRun]:
        """List the runs of a trial: one, or none if it did not begin."""
        return self._store.find(fingerprint=self._sweep.trial_fingerprint(trial.number))

    def _begin(self) -> None:
        """Submit a trial, a queued one first; record one with invalid settings as failed."""
        sweep = self._sweep
        self._study.sampler = sweep.sampler_of(len(self._counted()))
        trial = self._study.ask(fixed_distributions=sweep.space)
        job = TrialJob(
            kind="trial",
            settings=sweep.settings,
            title=f"{sweep.title} trial {trial.number}",
            fingerprint=sweep.trial_fingerprint(trial.number),
            model_run=self._base.tag("model_run_id") if self._base else "",
            parent=self._run.id,
            sweep=sweep,
            trial=trial,
            base_metrics=self._base.metrics if self._base else {},
        )
        try:
            self._executor.submit(replace(job, settings=replace(sweep.settings, **trial.params)))
        except InputError as fault:  # values that conflict
            spec = replace(job.spec, settings=sweep.settings.as_dict() | trial.params)
            with suppress(InputError), self._store.run(spec):
                raise  # ends the run as FAILED, with the reason
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

        Processes that have `ended` do not work on it, whatever the store says.
        """
        for run in self._runs_of(trial):
            self._store.close_dead(run, ended)
        run, *_ = [*self._runs_of(trial), None]
        if run and run.status == "FINISHED":
            self._tell(trial, run)
        elif run and run.status == "FAILED":
            self._fail(trial, run.tag("error"))
        elif not self._is_suggested(trial):  # the sampler will suggest the same values again
            self._fail(trial)
        else:
            if trial.number in self._counted():  # else it was queued before a driver was killed
                RETRY(self._study, self._study.trials[trial.number])  # a copy, which it changes
            gave_up = trial.number in self._counted()
            self._fail(trial, f"its worker died {MOST_RETRIES + 1} times" if gave_up else "")

    def _tell(self, trial: FrozenTrial, run: StoredRun) -> None:
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
        if trial.state == TrialState.COMPLETE:
            words = self._sweep.outcome(trial)
        elif number not in self._counted():
            words = "cut off; it is done again as another one"
        else:
            pruned = trial.state == TrialState.PRUNED
            how = f"pruned after validation {trial.last_step}"
            how = how if pruned else f"FAILED: {trial.user_attrs.get(ERROR)}"
            words = f"{how} ({params_in_words(trial.params)})"
        self._display.say(f"[{self._ended}/{self._n_trials}] trial {number}: {words}")
        log_progress(self._run, self._sweep, self._study)


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
    """Run a study of the settings of a trial, `best` or a number, over seeds; return its name.

    Raises:
        InputError: The trial was not completed.
        StateError: A step of the study failed.
    """
    trials = {t.number: t for t in study.get_trials(states=[TrialState.COMPLETE])}
    number = study.best_trial.number if apply == "best" else int(apply)
    if number not in trials:
        numbers = ", ".join(map(str, trials))
        raise InputError(f"trial {apply} is not one of those that were completed: {numbers}")
    own = sweep.settings
    definition = Definition(
        f"{sweep.name}-trial{number}",
        (str(own.model_name),),
        about=f"Trial {number} of {sweep.title} over seeds.",
        seeds=seeds,
        worlds=(own.world,),
        scale=own.scale,
        settings=changed_settings(own) | trials[number].params,
    )
    run_study(store, expand(definition), options).check()
    return definition.name
