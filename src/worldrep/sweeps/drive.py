"""Running a sweep: the loop that asks Optuna for trials, hands them to workers and tells the end.

Optuna's storage says which trials there are; the store says how each of them ended. So one that
ended while no driver listened is told, not done again, and one that was cut off is done anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from worldrep.errors import InputError, StateError
from worldrep.executors import Choice, Executor, Outcome
from worldrep.scales import base_settings
from worldrep.settings import Settings
from worldrep.stages import evaluate_model, train_model
from worldrep.studies.display import Display
from worldrep.sweeps.definition import Sweep, in_words
from worldrep.sweeps.storage import (
    belongs_to_another,
    is_database,
    known_identity,
    open_storage,
    open_study,
    shown,
)
from worldrep.sweeps.sweep_run import SweepRun, sweep_spec
from worldrep.sweeps.trial import (
    COMPLETE,
    FAILED,
    OBJECTIVE,
    STATE,
    TrialTask,
    running_trial,
    trial_spec,
)
from worldrep.tracking import Store, StoredRun

PERFORM = "worldrep.sweeps.trial:perform"
WAIT_SECONDS, LOOK_SECONDS = 1.0, 3.0
MOST_RETRIES = 2  # of a trial whose worker died
LOST, RETRY_OF, TRIES, RUN_ID, ERROR = "lost", "retry_of", "tries", "mlflow_run_id", "error"


@dataclass(frozen=True)
class Result:
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
    choice: Choice,
    storage: str,
    n_trials: int,
    *,
    launched: bool = False,
) -> Result:
    """Do what is missing of `n_trials` trials, as children of the sweep's run.

    choice: where they run; storage: address of Optuna's. Raises
    InputError when the name belongs to another search, before anything is written; StateError when
    no trial was completed.
    """
    check_storage(store, sweep, choice, storage)
    store.check_writable()
    study = open_study(open_storage(storage), sweep)
    display = Display(sweep.title, choice.workers)
    executor = replace(choice, perform=PERFORM).open(store, display.tell)
    try:
        with store.run(sweep_spec(sweep, storage), launched=launched) as run:
            sweep_run = SweepRun(run, sweep, study)
            base = _base(store, sweep, run.id)
            Drive(store, sweep, study, storage, executor, display, sweep_run, base, n_trials).work()
            best = sweep_run.conclude()
    finally:
        executor.stop()
        display.close()
    if not best:
        raise StateError(f"{sweep.title}: no trial was completed; the trials' runs say why")
    completed = study.get_trials(states=[TrialState.COMPLETE])
    return Result(run.id, best, {trial.number: trial for trial in completed})


def check_storage(store: Store, sweep: Sweep, choice: Choice, storage: str) -> None:
    """Raise InputError when the sweep's name or its storage is not free for it."""
    if choice.executor == "ray" and choice.address != "local" and not is_database(storage):
        raise InputError(
            f"storage={storage} is a file of this machine, and a cluster needs a database: "
            "storage=postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        )
    runs = store.find(fingerprint=sweep.fingerprint)
    for run in runs:
        if run.tag("identity") != sweep.identity:
            raise belongs_to_another(sweep, run.tag("searches"))
    exists = is_database(storage) or Path(storage).exists()
    known = known_identity(open_storage(storage), sweep.name) if exists else None
    if known not in (None, sweep.identity):
        raise belongs_to_another(sweep)
    for run in runs:
        if known is None and store.find(stage="sweep", sweep=sweep.name):
            raise InputError(
                f"{sweep.title} has trials in run {run.id} and none in storage={shown(storage)}; "
                f"it was begun with storage={run.tag('storage')}"
            )


def _base(store: Store, sweep: Sweep, parent: str) -> Base:
    """The base of the trials and its evaluation, made if they are not there."""
    if not sweep.settings.is_finetuning:
        return Base("", {})
    base_id = train_model(store, base_settings(sweep.settings), parent=parent)
    evaluation = evaluate_model(store, store.get(base_id), parent=parent)
    return Base(base_id, store.get(evaluation).metrics)


class Drive:
    """One driver's work on a sweep. No other one works on it: it has the sweep's run."""

    def __init__(
        self,
        store: Store,
        sweep: Sweep,
        study: optuna.Study,
        storage: str,
        executor: Executor,
        display: Display,
        sweep_run: SweepRun,
        base: Base,
        n_trials: int,
    ) -> None:
        self._store, self._sweep, self._study, self._storage = store, sweep, study, storage
        self._executor, self._display, self._sweep_run = executor, display, sweep_run
        self._base, self._n_trials = base, n_trials
        self._busy: dict[str, int] = {}  # fingerprint -> number of a trial that a worker does

    def work(self) -> None:
        """Take up what an earlier driver left, then do what is missing."""
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._take_up(trial)
        done, n = len(self._counted), self._n_trials
        self._display.say(f"{self._sweep.title}: {done} of {n} trials are done already")
        while self._busy or len(self._counted) < n:
            while self._executor.free and len(self._counted) < n:
                self._begin()
            done = len(self._counted) - len(self._busy)
            self._display.whole({"done": done, "left": n - done})
            for outcome in self._executor.wait(WAIT_SECONDS):
                self._settle(outcome)

    @property
    def _counted(self) -> list[FrozenTrial]:
        """Trials that ended or are being done; one that was lost is done again as another."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if is_counted(trial)]

    def _begin(self) -> None:
        self._study.sampler = self._sweep.make_sampler(len(self._study.get_trials(deepcopy=False)))
        trial = self._study.ask(fixed_distributions=self._sweep.space)
        try:
            task = self._task(trial.number, self._sweep.settings_of(trial.params))
        except InputError as fault:  # values that do not go together: no model can have them
            self._refuse(trial.number, trial.params, fault)
            return
        self._busy[task.fingerprint] = trial.number
        self._executor.submit(task)

    def _task(self, number: int, settings: Settings) -> TrialTask:
        """What a worker is given."""
        sweep, base = self._sweep, self._base
        title, fingerprint = sweep.trial_title(number), sweep.trial_fingerprint(number)
        return TrialTask(
            "trial", settings, title, fingerprint, base.run_id, self._sweep_run.id,
            sweep, self._storage, number, base.metrics,
        )  # fmt: skip

    def _refuse(self, number: int, params: dict[str, Any], fault: InputError) -> None:
        """Record a trial that cannot be begun as one that failed."""
        task = self._task(number, self._sweep.settings)
        spec = replace(trial_spec(task), settings=task.settings.as_dict() | params)
        with suppress(InputError), self._store.run(spec) as run:
            run.tags({f"worldrep.{STATE}": FAILED})
            raise fault
        self._fail(number, str(fault))
        self._report(number)

    def _settle(self, outcome: Outcome) -> None:
        number = self._busy.pop(outcome.fingerprint)
        if outcome.state == "done":
            self._tell(number, self._store.get(outcome.run_id))
        elif outcome.state == "lost":
            owners = [outcome.owner] if outcome.owner else []
            for run in self._runs_of(number):
                self._store.close_dead(run, owners)
            self._retry(number)
        else:
            self._fail(number, outcome.message)
        self._report(number)

    def _take_up(self, trial: FrozenTrial) -> None:
        """Find out what became of a trial of a driver that is no more."""
        runs = self._runs_of(trial.number)
        while any(run.alive for run in runs):  # its worker closes it, or ends with it
            self._display.say(f"trial {trial.number} is still being done: waiting for its end")
            time.sleep(LOOK_SECONDS)
            runs = self._runs_of(trial.number)
        for run in runs:
            self._store.close_dead(run)
        if runs and runs[0].status == "FINISHED":
            self._tell(trial.number, runs[0])
        elif runs and runs[0].status == "FAILED":
            self._fail(trial.number, runs[0].tag("error"))
        else:
            self._retry(trial.number)
        self._report(trial.number)

    def _runs_of(self, number: int) -> list[StoredRun]:
        return self._store.find(fingerprint=self._sweep.trial_fingerprint(number))

    def _tell(self, number: int, run: StoredRun) -> None:
        """Tell Optuna how a trial ended, from its finished run."""
        running_trial(self._study, number).set_user_attr(RUN_ID, run.id)
        if run.tag(STATE) == COMPLETE:
            goals = self._sweep.objectives
            self._study.tell(number, [run.metrics[f"{OBJECTIVE}{goal.name}"] for goal in goals])
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def _fail(self, number: int, message: str) -> None:
        trial = running_trial(self._study, number)
        trial.set_user_attr(ERROR, message)
        for run in self._runs_of(number)[:1]:
            trial.set_user_attr(RUN_ID, run.id)
        self._study.tell(number, state=TrialState.FAIL)

    def _retry(self, number: int) -> None:
        """Queue a trial that was cut off, as another one with its values."""
        trial = running_trial(self._study, number)
        tries = trial.user_attrs.get(TRIES, 0)
        if tries >= MOST_RETRIES:
            self._fail(number, f"its worker died {tries + 1} times")
            return
        known = {t.user_attrs.get(RETRY_OF) for t in self._study.get_trials(deepcopy=False)}
        if number not in known:  # else the driver was killed between this and the next
            attributes = {RETRY_OF: number, TRIES: tries + 1}
            self._study.enqueue_trial(trial.params, user_attrs=attributes)
        trial.set_user_attr(LOST, True)
        for run in self._runs_of(number)[:1]:
            trial.set_user_attr(RUN_ID, run.id)
            self._store.client.set_tag(run.id, f"worldrep.{STATE}", FAILED)
        self._study.tell(number, state=TrialState.FAIL)

    def _report(self, number: int) -> None:
        """Say and record how a trial ended."""
        trial = self._study.get_trials(deepcopy=False)[number]
        done = sum(trial.state.is_finished() for trial in self._counted)
        self._display.say(f"[{done}/{self._n_trials}] trial {number}: {self._words(trial)}")
        self._sweep_run.write()

    def _words(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.COMPLETE:
            return self._sweep.outcome(trial)
        if trial.user_attrs.get(LOST):
            return "cut off; it is done again as another one"
        how = f"FAILED: {trial.user_attrs.get(ERROR)}"
        if trial.state == TrialState.PRUNED:
            how = f"pruned after validation {trial.last_step}"
        return f"{how} ({in_words(trial.params)})"


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: all but lost and waiting ones."""
    return trial.state != TrialState.WAITING and not trial.user_attrs.get(LOST)
