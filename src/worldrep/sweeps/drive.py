"""Running a sweep: the loop that hands trials to workers and takes in how they ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from worldrep.errors import InputError, StateError
from worldrep.executors import Executor, ExecutorOptions, Outcome, open_executor
from worldrep.scales import base_settings
from worldrep.settings import Settings
from worldrep.stages import evaluate_model, train_model
from worldrep.stages.common import keep_cities
from worldrep.studies.driver import Display
from worldrep.sweeps.definition import Sweep, params_in_words
from worldrep.sweeps.ledger import ERROR, LOST, Ledger
from worldrep.sweeps.storage import check_storage, open_storage, open_study
from worldrep.sweeps.sweep_run import SweepRun, sweep_spec
from worldrep.sweeps.trial import TrialJob, trial_spec
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner

PERFORM = "worldrep.sweeps.trial:perform"
WAIT_SECONDS, LOOK_SECONDS = 1.0, 3.0


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has all its trials. best: the best one, or those that no other one beats."""

    run_id: str
    best: tuple[FrozenTrial, ...]
    completed: dict[int, FrozenTrial]


@dataclass(frozen=True)
class Base:
    """What the trials of a fine-tuning start from, and its evaluation; empty for a pretraining."""

    run_id: str
    metrics: Mapping[str, float]


def run_sweep(
    store: Store,
    sweep: Sweep,
    choice: ExecutorOptions,
    storage: str,
    n_trials: int,
    *,
    launched: bool = False,
) -> SweepResult:
    """Do what is missing of `n_trials` trials, as children of the sweep's run.

    choice: where they run; storage: address of Optuna's. Raises InputError when the name belongs to
    another search, before anything is written; StateError when no trial was completed.
    """
    check_storage(store, sweep, choice, storage)
    store.check_writable()
    study = open_study(open_storage(storage), sweep)
    display = Display(sweep.title, choice.workers)
    executor = open_executor(replace(choice, perform=PERFORM), store, display.report)
    driver: SweepDriver | None = None
    try:
        with store.run(sweep_spec(sweep, storage), launched=launched) as run:
            keep_cities(run, sweep.settings)
            ledger, sweep_run = Ledger(store, sweep, study), SweepRun(run, sweep, study)
            base = _base(store, sweep, run.id)
            driver = SweepDriver(store, sweep, storage, base, executor, ledger, sweep_run, display)
            driver.work(n_trials)
            best = sweep_run.conclude()
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    if not best:
        raise StateError(f"{sweep.title}: no trial was completed; the trials' runs say why")
    completed = study.get_trials(states=[TrialState.COMPLETE])
    return SweepResult(run.id, best, {trial.number: trial for trial in completed})


def _base(store: Store, sweep: Sweep, parent: str) -> Base:
    """The base of the trials and its evaluation, made if they are not there."""
    if not sweep.settings.is_finetuning:
        return Base("", {})
    base_id = train_model(store, base_settings(sweep.settings), parent=parent)
    evaluation = evaluate_model(store, store.get(base_id), parent=parent)
    return Base(base_id, store.get(evaluation).metrics)


class SweepDriver:
    """One driver's work on a sweep."""

    def __init__(
        self,
        store: Store,
        sweep: Sweep,
        storage: str,
        base: Base,
        executor: Executor,
        ledger: Ledger,
        sweep_run: SweepRun,
        display: Display,
    ) -> None:
        self._store, self._sweep, self._storage, self._base = store, sweep, storage, base
        self._executor, self._ledger = executor, ledger
        self._sweep_run, self._display = sweep_run, display
        self._busy: dict[str, int] = {}  # fingerprint -> number of a trial that a worker does
        self._n_trials = 0

    def work(self, n_trials: int) -> None:
        """Take up what an earlier driver left, then do what is missing of so many trials."""
        self._n_trials = n_trials
        while alive := self._ledger.take_up():
            numbers = ", ".join(map(str, alive))
            self._display.say(f"trial {numbers} is still being done: waiting for its end")
            time.sleep(LOOK_SECONDS)
        self._sweep_run.write()
        self._display.say(f"{self._sweep.title}: {self._ended} of {n_trials} trials done already")
        while self._busy or self._ended < n_trials:
            while self._executor.free and len(self._ledger.trials()) < n_trials:
                self._begin()
            self._display.whole({"done": self._ended, "left": n_trials - self._ended})
            for outcome in self._executor.wait(WAIT_SECONDS):
                self._settle(outcome)

    def close(self, ended: Collection[Owner]) -> None:
        """End the runs of trials that stopped workers left open.

        ended: the processes of the executor that was stopped.
        """
        for number in self._busy.values():
            for run in self._ledger.runs_of(number):
                self._store.close_dead(run, ended)

    @property
    def _ended(self) -> int:
        return len(self._ledger.trials()) - len(self._busy)

    def _begin(self) -> None:
        trial = self._ledger.ask()
        try:
            job = self._job(trial.number, self._sweep.settings_of(trial.params))
        except InputError as fault:  # values that do not go together: no model can have them
            self._refuse(trial.number, trial.params, fault)
            return
        self._busy[job.fingerprint] = trial.number
        self._executor.submit(job)

    def _job(self, number: int, settings: Settings) -> TrialJob:
        """What a worker is given."""
        sweep, base = self._sweep, self._base
        title, fingerprint = sweep.trial_title(number), sweep.trial_fingerprint(number)
        return TrialJob(
            "trial", settings, title, fingerprint, base.run_id, self._sweep_run.id,
            sweep, self._storage, number, base.metrics,
        )  # fmt: skip

    def _refuse(self, number: int, params: dict[str, Any], fault: InputError) -> None:
        """Record a trial that cannot be begun as one that failed."""
        job = self._job(number, self._sweep.settings)
        spec = replace(trial_spec(job), settings=job.settings.as_dict() | params)
        with suppress(InputError), self._store.run(spec):
            raise fault  # ends it as FAILED, with the reason
        self._ledger.fail(number, str(fault))
        self._report(number)

    def _settle(self, outcome: Outcome) -> None:
        number = self._busy.pop(outcome.fingerprint)
        if outcome.state == "done":
            self._ledger.tell(number, self._store.get(outcome.run_id))
        elif outcome.state == "failed":
            self._ledger.fail(number, outcome.message)
        else:  # lost with its worker, or taken by another process
            self._ledger.conclude(number, [outcome.owner] if outcome.owner else [])
        self._report(number)

    def _report(self, number: int) -> None:
        """Say and record how a trial ended."""
        trial = self._ledger.trial(number)
        words = f"trial {number}: {self._words(trial)}"
        self._display.say(f"[{self._ended}/{self._n_trials}] {words}")
        self._sweep_run.write()

    def _words(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.COMPLETE:
            return self._sweep.outcome(trial)
        if trial.user_attrs.get(LOST):
            return "cut off; it is done again as another one"
        how = f"FAILED: {trial.user_attrs.get(ERROR)}"
        if trial.state == TrialState.PRUNED:
            how = f"pruned after validation {trial.last_step}"
        return f"{how} ({params_in_words(trial.params)})"
