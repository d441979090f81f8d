"""Running a sweep: ask Optuna for trials, hand them to workers, tell Optuna the outcomes.

Optuna's study is the list of trials; the MLflow store knows how the run of each trial ended. After
a driver was killed, trials whose run has ended are told to Optuna and the others are repeated.
"""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.storages import BaseStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from worldrep.disk import FullError
from worldrep.errors import InputError, StateError, shown
from worldrep.executors import Executor, ExecutorOptions, Outcome, open_executor
from worldrep.scales import base_settings, changed_settings
from worldrep.settings import whole_number
from worldrep.stages.estimate import Work, check_needs
from worldrep.stages.measure import evaluate_model
from worldrep.stages.provenance import keep_cities
from worldrep.stages.train import train_model
from worldrep.studies import Definition, expand
from worldrep.studies.driver import Display, run_study
from worldrep.sweeps.definition import Sweep, check_storage, in_words, open_storage, open_study
from worldrep.sweeps.report import best_trials, completed, log_progress, log_results, sweep_spec
from worldrep.sweeps.search import combinations
from worldrep.sweeps.trial import COMPLETE, FAILED, OBJECTIVE, STATE, TrialJob
from worldrep.tracking import OpenRun, Store, StoredRun
from worldrep.tracking.liveness import Owner

PERFORM = "worldrep.sweeps.trial:perform"
WAIT_SECONDS, LOOK_SECONDS = 1.0, 3.0
MOST_TRIALS = 10_000  # of a sweep
MOST_RETRIES = 2  # of a trial whose worker died
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)  # adds a trial of equal values
ERROR = "error"  # attribute of Optuna's trials


def run_sweep(
    store: Store,
    sweep: Sweep,
    options: ExecutorOptions,
    address: str,
    n_trials: int,
    *,
    launched: bool = False,
    confirmed: bool = True,
) -> tuple[str, optuna.Study]:
    """Run the trials that are missing of `n_trials`, as children of the sweep's run.

    Returns the id of the sweep's run, and Optuna's study in the storage at the address. `launched`
    says that `mlflow run` was started for this sweep, `confirmed` that it may take longer than a
    day. Raises InputError, before anything was written, if name or storage belong to another sweep
    or the machine is too small; StateError if no trial was completed.
    """
    options = options.fitted(1)
    check_storage(store, sweep, options, address)
    trials = [run for run in store.find(stage="sweep", sweep=sweep.name) if run.tag("trial")]
    left = max(0, n_trials - len(trials))
    works = [Work("train", sweep.settings, begun=True), Work("evaluate", sweep.settings)] * left
    check_needs(store, works, workers=options.workers, confirmed=confirmed)
    store.check_writable()
    storage = open_storage(address)
    study = open_study(storage, sweep)
    display = Display(sweep.title, options.workers)
    if n_trials > (different := combinations(sweep.space)):
        display.say(
            f"the space has {different:.0f} combinations: of {n_trials} trials some are equal"
        )
    executor = open_executor(replace(options, perform=PERFORM), store, display.report)
    driver: SweepDriver | None = None
    try:
        with store.run(sweep_spec(sweep, address), launched=launched) as run:
            keep_cities(run, sweep.settings)
            driver = SweepDriver(store, sweep, storage, study, run, executor, display, n_trials)
            driver.work()
            log_results(run, sweep, study)
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    if not best_trials(study):
        raise StateError(f"{sweep.title}: no trial was completed; the trials' runs say why")
    return run.id, study


@dataclass
class SweepDriver:
    """The process that owns the run of a sweep."""

    store: Store
    sweep: Sweep
    storage: BaseStorage
    study: optuna.Study
    run: OpenRun
    executor: Executor
    display: Display
    n_trials: int

    def work(self) -> None:
        """Conclude the trials of an earlier driver, then run what is missing of `n_trials`."""
        base = self._evaluated_base()
        while alive := [t for t in self._running() if (run := self._run_of(t)) and run.alive]:
            numbers = ", ".join(str(trial.number) for trial in alive)
            self.display.say(f"trial {numbers} is still being done: waiting for its end")
            time.sleep(LOOK_SECONDS)
        for trial in self._running():
            self._conclude(trial)
        log_progress(self.run, self.sweep, self.study)
        begun = f"{self._ended} of {self.n_trials} trials done already"
        self.display.say(f"{self.sweep.title}: {begun}")
        while self._running() or self._ended < self.n_trials:
            while self.executor.free and len(self._counted()) < self.n_trials:
                self._begin(base)
            self.display.whole({"done": self._ended, "left": self.n_trials - self._ended})
            for outcome in self.executor.wait(WAIT_SECONDS):
                self._settle(outcome)

    def close(self, ended: Collection[Owner]) -> None:
        """End the runs that stopped workers left open; `ended` are their processes."""
        for trial in self._running():
            if run := self._run_of(trial):
                self.store.close_dead(run, ended)

    def _evaluated_base(self) -> StoredRun | None:
        """Find or make the evaluation of the base that the trials start from."""
        if not self.sweep.settings.is_finetuning:
            return None
        base, parent = base_settings(self.sweep.settings), self.run.id
        base_run = self.store.get(train_model(self.store, base, parent=parent))
        rows = base.multi_rows
        return self.store.get(evaluate_model(self.store, base_run, multi_rows=rows, parent=parent))

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def _counted(self) -> list[int]:
        """Number the trials that count: not those that are queued, repeated or half suggested."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {number for trial in trials for number in RETRY.retry_history(trial)}
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        suggested = [t.number for t in begun if t.params.keys() == self.sweep.space.keys()]
        return [number for number in suggested if number not in repeated]

    @property
    def _ended(self) -> int:
        return len(self._counted()) - len(self._running())

    def _run_of(self, trial: FrozenTrial) -> StoredRun | None:
        """Return the run of a trial, None if it did not begin."""
        runs = self.store.find(fingerprint=self.sweep.trial_fingerprint(trial.number))
        return runs[0] if runs else None

    def _begin(self, base: StoredRun | None) -> None:
        """Submit a trial, a queued one first."""
        sweep = self.sweep
        self.study.sampler = sweep.sampler_of(len(self._counted()))
        trial = self.study.ask(fixed_distributions=sweep.space)
        title = f"{sweep.title} trial {trial.number}"
        fingerprint = sweep.trial_fingerprint(trial.number)
        model_run, metrics = (base.tag("model_run_id"), base.metrics) if base else ("", {})
        common = "trial", sweep.settings, title, fingerprint, model_run, self.run.id
        self.executor.submit(TrialJob(*common, sweep, trial, metrics))

    def _settle(self, outcome: Outcome) -> None:
        """Tell Optuna how a trial of a worker ended, print and log it."""
        fingerprint_of = self.sweep.trial_fingerprint
        if outcome.state == "full":  # the trial is concluded, and repeated, by the next command
            raise FullError(outcome.message)
        (trial,) = (t for t in self._running() if fingerprint_of(t.number) == outcome.fingerprint)
        ended = [outcome.owner] if outcome.owner else []
        self._conclude(trial, ended, outcome.message if outcome.state == "failed" else "")
        words = self._in_words(self.study.trials[trial.number])
        self.display.say(f"[{self._ended}/{self.n_trials}] trial {trial.number}: {words}")
        log_progress(self.run, self.sweep, self.study)

    def _conclude(self, trial: FrozenTrial, ended: Sequence[Owner] = (), failure: str = "") -> None:
        """Tell Optuna how a trial ended; repeat one that was cut off.

        failure: what its worker says; else the store knows. ended: processes that are gone.
        """
        if run := self._run_of(trial):
            self.store.close_dead(run, ended)
            run = self.store.get(run.id)
        if run and run.status == "FINISHED" and not failure:
            values = [run.metrics.get(f"{OBJECTIVE}{goal}", math.nan) for goal in self.sweep.goals]
            if run.tag(STATE) != COMPLETE:
                self.study.tell(trial.number, state=TrialState.PRUNED)
                return
            if all(map(math.isfinite, values)):
                self.study.tell(trial.number, values)
                return
            failure = "its run lacks the values of the objectives"
        if run:
            self.store.client.set_tag(run.id, f"worldrep.{STATE}", FAILED)
            if run.status == "FAILED" and not run.tag("error").startswith(FullError.__name__):
                failure = failure or run.tag("error") or "its run does not say why"
        if failure := failure or self._repeat(trial):
            study_id = self.storage.get_study_id_from_name(self.sweep.name)
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            self.storage.set_trial_user_attr(trial_id, ERROR, failure)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _repeat(self, trial: FrozenTrial) -> str:
        """Queue a trial that was cut off once more; if that was done too often, say so.

        A half suggested one is not queued, because the sampler will suggest the same values again.
        """
        if trial.number in self._counted():  # else it was queued before a driver was killed
            RETRY(self.study, self.study.trials[trial.number])  # a copy, which it changes
        gave_up = trial.number in self._counted()
        return f"it was cut off {MOST_RETRIES + 1} times" if gave_up else ""

    def _in_words(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.COMPLETE:
            return self.sweep.outcome(trial)
        if trial.number not in self._counted():
            return "cut off; it is done again as another one"
        how = f"pruned after validation {trial.last_step}"
        if trial.state == TrialState.FAIL:
            how = f"FAILED: {trial.user_attrs[ERROR]}"
        return f"{how} ({in_words(trial.params)})"


def check_apply(apply: str | None, seeds: Sequence[int], sweep: Sweep) -> None:
    """Check the options `apply` and `seeds`. Raises InputError for an invalid one."""
    for seed in seeds:
        replace(sweep.settings, seed=seed)
    if apply == "best" and len(sweep.objectives) > 1:
        raise InputError(
            "apply=best needs one objective; of several no trial is the best: "
            "choose one of the front by its number, such as apply=7"
        )
    if apply not in (None, "best"):
        if not apply.isdecimal():
            text = "is not one of: none, best, or the number of a trial"
            raise InputError(f"apply={shown(apply)} {text}")
        whole_number("apply", apply, 0, MOST_TRIALS)


def apply_trial(
    store: Store,
    sweep: Sweep,
    study: optuna.Study,
    apply: str,
    options: ExecutorOptions,
    seeds: tuple[int, ...],
) -> str:
    """Run a study of the settings of a trial, `best` or a number, over seeds; return its name.

    Raises InputError if the trial was not completed, StateError if a step of the study failed.
    """
    trials = {trial.number: trial for trial in completed(study)}
    number = study.best_trial.number if apply == "best" else int(apply)
    if number not in trials:
        numbers = ", ".join(map(str, trials))
        raise InputError(f"trial {apply} is not one of those that were completed: {numbers}")
    own, about = sweep.settings, f"Trial {number} of {sweep.title} over seeds."
    settings = changed_settings(replace(own, **trials[number].params))
    name, models, worlds = f"{sweep.name}-trial{number}", (str(own.model_name),), (own.world,)
    definition = Definition(
        name, models, about, seeds=seeds, worlds=worlds, scale=own.scale, settings=settings
    )
    run_study(store, expand(definition), options).check()
    return name
