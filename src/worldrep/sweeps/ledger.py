"""A sweep's trials in Optuna's storage and in the store, kept in agreement.

Optuna's storage says which trials there are; the store says how each of them ended. So one that
ended while no driver listened is told, not done again, and one that was cut off is done anew.
"""

from __future__ import annotations

from collections.abc import Collection

import optuna
from optuna.trial import FrozenTrial, TrialState

from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.guides import make_sampler
from worldrep.sweeps.trial import COMPLETE, FAILED, OBJECTIVE, RUN_ID, STATE, running_trial
from worldrep.tracking import Store, StoredRun
from worldrep.tracking.liveness import Owner

MOST_RETRIES = 2  # of a trial whose worker died
LOST, RETRY_OF, TRIES, ERROR = "lost", "retry_of", "tries", "error"  # attributes of trials


class Ledger:
    """The trials of one sweep, for the one driver that has the sweep's run."""

    def __init__(self, store: Store, sweep: Sweep, study: optuna.Study) -> None:
        self._store, self._sweep, self._study = store, sweep, study

    def trials(self) -> list[FrozenTrial]:
        """Those that ended or are being done; one that was lost is done again as another."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if is_counted(trial)]

    def trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def ask(self) -> optuna.Trial:
        """A new trial: one that was lost, else what the sampler makes of those before."""
        seed = self._sweep.settings.seed
        self._study.sampler = make_sampler(self._sweep.sampler, seed, len(self.trials()))
        return self._study.ask(fixed_distributions=self._sweep.space)

    def runs_of(self, number: int) -> list[StoredRun]:
        """The runs of a trial; one, or none if it was not begun."""
        return self._store.find(fingerprint=self._sweep.trial_fingerprint(number))

    def tell(self, number: int, run: StoredRun) -> None:
        """A trial ended, as its finished run says."""
        running_trial(self._study, number).set_user_attr(RUN_ID, run.id)
        if run.tag(STATE) == COMPLETE:
            goals = self._sweep.objectives
            self._study.tell(number, [run.metrics[f"{OBJECTIVE}{goal.name}"] for goal in goals])
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, message: str) -> None:
        """A trial failed, for this reason."""
        self._end(number, {ERROR: message})

    def conclude(self, number: int, ended: Collection[Owner] = ()) -> None:
        """Nobody works on a trial any more: what became of it is what the store says.

        ended: processes that no longer work on it, whatever the store says of them.
        """
        for run in self.runs_of(number):
            self._store.close_dead(run, ended)
        runs = self.runs_of(number)
        if runs and runs[0].status == "FINISHED":
            self.tell(number, runs[0])
        elif runs and runs[0].status == "FAILED":
            self.fail(number, runs[0].tag("error"))
        else:
            self._lose(number)

    def take_up(self) -> list[int]:
        """Find out what became of the trials of a driver that is no more.

        Returns the numbers of those that a living process still works on.
        """
        alive = []
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            if any(run.alive for run in self.runs_of(trial.number)):
                alive.append(trial.number)
            else:
                self.conclude(trial.number)
        return alive

    def _lose(self, number: int) -> None:
        """A trial was cut off: it is queued again with its values, unless that was often enough."""
        trial = self.trial(number)
        tries = trial.user_attrs.get(TRIES, 0)
        if tries >= MOST_RETRIES:
            self.fail(number, f"its worker died {tries + 1} times")
            return
        values = trial.system_attrs.get("fixed_params", {}) | trial.params
        known = {t.user_attrs.get(RETRY_OF) for t in self._study.get_trials(deepcopy=False)}
        # One that was cut off while it was asked for is drawn anew: the sampler is the same. If it
        # is queued already, the driver was killed between that and what follows.
        if values.keys() == self._sweep.space.keys() and number not in known:
            attributes = {RETRY_OF: number, TRIES: tries + 1}
            self._study.enqueue_trial(values, user_attrs=attributes)
        self._end(number, {LOST: True})

    def _end(self, number: int, facts: dict[str, object]) -> None:
        for run in self.runs_of(number)[:1]:
            facts = facts | {RUN_ID: run.id}
            self._store.tag(run.id, **{STATE: FAILED})
        trial = running_trial(self._study, number)
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        self._study.tell(number, state=TrialState.FAIL)


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: all but lost and waiting ones."""
    return trial.state != TrialState.WAITING and not trial.user_attrs.get(LOST)
