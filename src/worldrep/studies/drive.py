"""Running a study: the loop that begins steps, takes in how they ended, and records it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from worldrep.errors import StateError, first_line
from worldrep.executors import Choice, Executor, Outcome
from worldrep.studies.display import Display
from worldrep.studies.graph import Graph, Step
from worldrep.studies.scheduler import BLOCKED, Scheduler
from worldrep.studies.states import DONE, FAILED, StepState, read_states
from worldrep.studies.study_run import StudyRun
from worldrep.studies.summaries import Summaries
from worldrep.tracking import Store, StoreFault
from worldrep.tracking.liveness import Owner

WAIT_SECONDS = 1.0
ELSEWHERE_SECONDS = 3.0  # between two looks at steps that other processes do
READ_SECONDS = 120.0  # between two looks at the whole study, of which this driver does a part


@dataclass(frozen=True)
class StudyResult:
    """How a study ended: its run, the run of every finished step, and the steps that failed."""

    run_id: str
    run_ids: dict[str, str]
    counts: dict[str, int]
    failed: list[str]

    def check(self) -> None:
        """Raise StateError, naming them, when steps failed."""
        if self.failed:
            names = ", ".join(self.failed[:5])
            more = f" and {len(self.failed) - 5} more" if len(self.failed) > 5 else ""
            raise StateError(
                f"{len(self.failed)} steps failed ({names}{more}) and {self.counts[BLOCKED]} that "
                "need them were not begun; the same command retries these and no others"
            )


def run_study(
    store: Store,
    graph: Graph,
    choice: Choice,
    *,
    mine: Collection[str] | None = None,
    launched: bool = False,
) -> StudyResult:
    """Do every step of a study that is not done, as children of the study's run.

    mine: fingerprints of the steps of this shard; launched: this is what `mlflow run` was asked
    for. A failed step does not raise; see `StudyResult.check`.
    """
    store.check_writable()
    display = Display(f"study {graph.definition.name}", choice.workers)
    states = read_states(store, graph)
    for found in states.values():
        if found.run:
            store.close_dead(found.run)
    executor = choice.open(store, display.tell)
    driver: StudyDriver | None = None
    try:
        study_run = StudyRun(store, graph, launched=launched)
        driver = StudyDriver(store, graph, executor, display, study_run, states, mine)
        driver.work()
        driver.interrupted = False
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    scheduler = driver.scheduler
    failed = [step.title for f, step in graph.steps.items() if scheduler.state[f] == FAILED]
    return StudyResult(study_run.run_id, scheduler.run_ids, scheduler.counts(), failed)


class StudyDriver:
    """One driver's work on a study."""

    def __init__(
        self,
        store: Store,
        graph: Graph,
        executor: Executor,
        display: Display,
        study_run: StudyRun,
        states: Mapping[str, StepState],
        mine: Collection[str] | None,
    ) -> None:
        self._store, self._graph, self._executor = store, graph, executor
        self._display, self._study_run = display, study_run
        self._states = states
        self.scheduler = Scheduler(graph, states, study_run.run_id, mine)
        self._summaries = Summaries(store, graph)
        self._looked = self._read = time.monotonic()
        self.interrupted = True

    def work(self) -> None:
        """Begin steps and take in how they ended, until nothing is left."""
        self._adopt()
        self._display.begun(self.scheduler.counts())
        while self.scheduler.going_on:
            while self._executor.free and (job := self.scheduler.next_job()):
                self._executor.submit(job)
            self._display.whole(self.scheduler.counts())
            ended = [self._settle(outcome) for outcome in self._executor.wait(WAIT_SECONDS)]
            try:
                self._record(ended)
            except StoreFault as fault:
                self._display.say(f"the store does not answer, waiting: {first_line(fault)}")
                time.sleep(ELSEWHERE_SECONDS)
        self._display.whole(self.scheduler.counts())

    def _adopt(self) -> None:
        """List steps that were done before, by single commands, below the study."""
        for found in self._states.values():
            if found.state == DONE and found.run and found.run.parent is None:
                self._store.adopt(found.run.id, self._study_run.run_id)

    def _settle(self, outcome: Outcome) -> Step:
        step = self._graph.steps[outcome.fingerprint]
        self.scheduler.settle(outcome)
        self._display.ended(step, outcome, self.scheduler.counts())
        if outcome.state == "lost":
            given_up = self.scheduler.messages.get(outcome.fingerprint)
            owners = [outcome.owner] if outcome.owner else []
            self._close_dead(outcome.fingerprint, owners, given_up)
        return step

    def _close_dead(
        self, fingerprint: str, ended: Collection[Owner], error: str | None = None
    ) -> None:
        for run in self._store.find(fingerprint=fingerprint):
            self._store.close_dead(run, ended, error)

    def _record(self, ended: list[Step]) -> None:
        """Everything that is asked of the store, and may be asked again later."""
        scheduler, now = self.scheduler, time.monotonic()
        if scheduler.elsewhere and now - self._looked >= ELSEWHERE_SECONDS:
            self._looked = now
            ended = ended + scheduler.look_elsewhere(self._store)
        if scheduler.waits_for_others and now - self._read >= READ_SECONDS:
            self._read = now
            self._learn()
        self._study_run.write(scheduler.counts())
        configurations = {step.configuration for step in ended if step.kind == "evaluate"}
        self._summaries.update(scheduler.state, scheduler.run_ids, configurations)

    def close(self, ended: Collection[Owner]) -> None:
        """Leave the store as it is true: no run open, summaries and counts up to date.

        ended: the processes of the executor that was stopped.
        """
        for fingerprint in self.scheduler.in_flight:
            self._close_dead(fingerprint, ended)
        self._learn()
        while True:
            if not self.interrupted:
                self._study_run.summarized = self._summaries.update_all(
                    self.scheduler.state, self.scheduler.run_ids, self._study_run.summarized
                )
            self._study_run.close(self.scheduler, self.interrupted)
            # One that ended while this driver still kept the study's run could not enter its part.
            if self.interrupted or not self._learn():
                break

    def _learn(self) -> bool:
        """Whether other drivers have done steps of which this one did not know."""
        known = self.scheduler.counts()[DONE]
        if known < len(self._graph.steps):
            self.scheduler.learn(read_states(self._store, self._graph))
        return self.scheduler.counts()[DONE] > known
