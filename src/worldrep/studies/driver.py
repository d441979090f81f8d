"""Run a study: begin steps, record how they ended, and show progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tqdm import tqdm

from worldrep.errors import StateError, interrupts_delayed
from worldrep.executors import Executor, ExecutorOptions, Message, Outcome, open_executor
from worldrep.progress import Bar, Progress
from worldrep.stages.estimate import check_needs
from worldrep.studies.graph import Graph, Step
from worldrep.studies.scheduler import (
    BLOCKED,
    DONE,
    FAILED,
    MISSING,
    RUNNING,
    Scheduler,
    StepState,
    read_states,
)
from worldrep.studies.study_run import StudyRun, Summaries
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner
from worldrep.training.processes import cores

WAIT_SECONDS = 1.0
ELSEWHERE_SECONDS = 3.0  # between two checks of steps that other drivers do
READ_SECONDS = 120.0  # between two reads of the whole study by a driver of one shard


@dataclass(frozen=True)
class StudyResult:
    """How a study ended: its run, the run of every finished step, and the steps that failed."""

    run_id: str
    run_ids: dict[str, str]
    counts: dict[str, int]
    failed: list[str]

    def check(self) -> None:
        if n := len(self.failed):
            names = ", ".join(self.failed[:5]) + (f" and {n - 5} more" if n > 5 else "")
            raise StateError(
                f"{n} steps failed ({names}) and {self.counts[BLOCKED]} that need them were not "
                "begun; the same command retries these and no others"
            )


def run_study(
    store: Store,
    graph: Graph,
    options: ExecutorOptions,
    *,
    mine: Collection[str] | None = None,
    launched: bool = False,
    confirmed: bool = True,
) -> StudyResult:
    """Do every step of a study that is not done, as children of the study's run.

    mine: fingerprints of the steps of this shard, by default all; launched: `mlflow run` was
    started for this study; confirmed: it may take longer than a day. A failed step does not raise,
    see `StudyResult.check`.
    """
    store.check_writable()
    options = options.fitted(graph.parallel)
    display = Display(f"study {graph.definition.name}", options.workers)
    states = read_states(store, graph)
    left = [f for f, found in states.items() if found.state not in (DONE, RUNNING)]
    works = [
        replace(step.work, begun=states[f].state != MISSING)
        for f in left
        if (mine is None or f in mine) and (step := graph.steps[f])
    ]
    at_once = options.workers if options.executor == "ray" else min(options.workers, cores())
    check_needs(store, works, workers=at_once, confirmed=confirmed)
    for found in states.values():
        if found.run:
            store.close_dead(found.run)
    executor = open_executor(options, store, display.report)
    driver: StudyDriver | None = None
    try:
        with interrupts_delayed():
            study_run = StudyRun(store, graph, launched=launched)
            scheduler = Scheduler(graph, states, study_run.run_id, mine)
            driver = StudyDriver(study_run, scheduler, executor, display, options)
        driver.work(states)
        driver.interrupted = False
    finally:
        ended = executor.stop()
        display.close()
        if driver:
            driver.close(ended)
    failed = [step.title for f, step in graph.steps.items() if scheduler.state[f] == FAILED]
    return StudyResult(study_run.run_id, scheduler.run_ids, scheduler.counts(), failed)


class StudyDriver:
    """Does the steps of a study, or those of one shard, beside other drivers."""

    def __init__(
        self, study_run: StudyRun, scheduler: Scheduler, executor: Executor, display: Display,
        options: ExecutorOptions,
    ) -> None:  # fmt: skip
        self._study_run, self._store, self._scheduler = study_run, study_run.store, scheduler
        self._executor, self._display = executor, display
        self._steps = scheduler.graph.steps
        self._summaries = Summaries(self._store, scheduler)
        self._checked = self._read = time.monotonic()
        self.interrupted = True
        self._base_cpus = options.shared_cpus(scheduler.graph.n_bases)

    def work(self, states: Mapping[str, StepState]) -> None:
        """Begin steps until none is left. states: of all steps when the study began."""
        for found in states.values():  # steps that single commands have done
            if found.state == DONE and found.run and found.run.parent is None:
                self._store.adopt(found.run.id, self._study_run.run_id)
        counts = self._scheduler.counts()
        done, total = counts[DONE], sum(counts.values())
        self._display.say(f"{self._display.title}: {done} of {total} steps are done already")
        while self._scheduler.unfinished:
            while self._executor.free and (job := self._scheduler.next_job()):
                is_base = job.kind == "train" and not job.model_run
                self._executor.submit(replace(job, cpus=self._base_cpus) if is_base else job)
            self._display.whole(self._scheduler.counts())
            ended = [self._job_ended(outcome) for outcome in self._executor.wait(WAIT_SECONDS)]
            self._record(ended)
        self._display.whole(self._scheduler.counts())

    def _job_ended(self, outcome: Outcome) -> Step:
        step, fingerprint = self._steps[outcome.fingerprint], outcome.fingerprint
        self._scheduler.job_ended(outcome)
        self._display.say_ended(step, outcome, self._scheduler.counts())
        if outcome.state == "lost":
            owners = [outcome.owner] if outcome.owner else []
            self._close_dead(fingerprint, owners, self._scheduler.messages.get(fingerprint))
        return step

    def _close_dead(
        self, fingerprint: str, ended: Collection[Owner], error: str | None = None
    ) -> None:
        for run in self._store.find(fingerprint=fingerprint):
            self._store.close_dead(run, ended, error)

    def _record(self, ended: list[Step]) -> None:
        """Update the store after steps ended."""
        scheduler, now = self._scheduler, time.monotonic()
        if scheduler.elsewhere and now - self._checked >= ELSEWHERE_SECONDS:
            self._checked = now
            ended = ended + scheduler.check_elsewhere(self._store)
        if scheduler.waits_for_others and now - self._read >= READ_SECONDS:
            self._read = now
            self._read_finished()
        self._study_run.write(scheduler.counts())
        self._summaries.update({step.configuration for step in ended if step.kind == "evaluate"})

    def close(self, ended: Collection[Owner]) -> None:
        """Close all open runs and update the summaries. ended: processes whose work was cut off."""
        for fingerprint in self._scheduler.in_flight:
            self._close_dead(fingerprint, ended)
        self._read_finished()
        if self.interrupted:
            counts = self._scheduler.counts()
            text = f"{counts[DONE]} of {sum(counts.values())} steps are done and kept"
            self._display.say(f"{self._display.title}: interrupted; {text}")
        while True:
            if not self.interrupted:
                self._summaries.update()
            self._study_run.close(self._scheduler, self.interrupted)
            # A driver that ended while this one owned the study's run could not add its steps.
            if self.interrupted or not self._read_finished():
                break

    def _read_finished(self) -> bool:
        """Read the steps that other drivers have done; return whether there are new ones."""
        known = self._scheduler.counts()[DONE]
        if known < len(self._steps):
            self._scheduler.add_finished(read_states(self._store, self._scheduler.graph))
        return self._scheduler.counts()[DONE] > known


class Display:
    """Shows a bar for each worker and one for the whole, if on a terminal; prints ended steps."""

    def __init__(self, title: str, workers: int) -> None:
        self.title, self._out = title, sys.stdout  # kept: `run_job` redirects sys.stdout
        self._whole = Bar(0)
        self._bars = {number: Bar(number) for number in range(1, workers + 1)}

    def report(self, worker: int, message: Message) -> None:
        if isinstance(message, str):
            if message.strip():
                several = len(self._bars) > 1 and worker
                self.say(f"worker {worker}: {message}" if several else message)
        elif worker in self._bars:
            self._bars[worker](message)

    def say(self, line: str) -> None:
        tqdm.write(line, file=self._out)
        self._out.flush()

    def say_ended(self, step: Step, outcome: Outcome, counts: Mapping[str, int]) -> None:
        done, total = counts["done"], sum(counts.values())
        how = outcome.message or f"done in {outcome.seconds:.1f} s"
        words = {
            "done": f"{how}, run {outcome.run_id}",
            "failed": f"FAILED: {outcome.message}",
            "full": f"FAILED: {outcome.message}",
            "taken": f"left to another process: {outcome.message}",
            "lost": f"{outcome.message}; it is tried again from its last checkpoint",
        }
        self.say(f"[{done}/{total}] {step.title}: {words[outcome.state]}")

    def whole(self, counts: Mapping[str, int]) -> None:
        """Show the progress of the whole. counts: steps by state."""
        total = sum(counts.values())
        text = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "done")
        self._whole(Progress(self.title, counts["done"], total, text))

    def close(self) -> None:
        for bar in [*self._bars.values(), self._whole]:
            bar.close()
