"""Running a study: the one loop that begins steps, takes in how they ended, and keeps the books."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from worldrep.errors import StateError
from worldrep.executors import Choice, Executor
from worldrep.studies.board import Board
from worldrep.studies.books import Books
from worldrep.studies.graph import Graph
from worldrep.studies.scheduler import BLOCKED, Scheduler
from worldrep.studies.states import DONE, FAILED, read_states
from worldrep.studies.summaries import Summaries
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner

WAIT_SECONDS = 1.0
ELSEWHERE_SECONDS = 3.0  # between two looks at steps that other processes do


@dataclass(frozen=True)
class Result:
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
) -> Result:
    """Do every step of a study that is not done, as children of the study's run.

    mine: fingerprints of the steps of this shard; launched: this is what `mlflow run` was asked
    for. A failed step does not raise; see `Result.check`.
    """
    store.check_writable()
    board = Board(f"study {graph.definition.name}", choice.workers)
    states = read_states(store, graph)
    for found in states.values():
        if found.run:
            store.close_dead(found.run)
    executor = choice.open(store, board.tell)
    try:
        books = Books(store, graph, launched=launched)
    except BaseException:
        executor.stop()
        raise
    scheduler = Scheduler(graph, states, books.run_id, mine)
    for found in states.values():
        if found.state == DONE and found.run and found.run.parent is None:
            store.adopt(found.run.id, books.run_id)
    board.begun(scheduler.counts())
    interrupted = True
    try:
        _work(store, scheduler, executor, board, books)
        interrupted = False
    finally:
        board.close()
        _close_left(store, scheduler, executor.stop())
        books.close(scheduler, interrupted)
    failed = [step.title for f, step in graph.steps.items() if scheduler.state[f] == FAILED]
    return Result(books.run_id, scheduler.run_ids, scheduler.counts(), failed)


def _work(
    store: Store, scheduler: Scheduler, executor: Executor, board: Board, books: Books
) -> None:
    graph = scheduler.graph
    summaries = Summaries(store, graph)
    looked = time.monotonic()
    summaries.update_all(scheduler.state, scheduler.run_ids)
    while scheduler.going_on:
        while executor.free and (task := scheduler.next_task()):
            executor.submit(task)
        counts = scheduler.counts()
        board.whole(counts)
        books.write(counts)
        ended = []
        for outcome in executor.wait(WAIT_SECONDS):
            step = graph.steps[outcome.fingerprint]
            scheduler.settle(outcome)
            board.ended(step, outcome, scheduler.counts())
            ended.append(step)
        if scheduler.elsewhere and time.monotonic() - looked >= ELSEWHERE_SECONDS:
            looked = time.monotonic()
            ended += scheduler.look_elsewhere(store)
        configurations = {step.configuration for step in ended if step.kind == "evaluate"}
        summaries.update(scheduler.state, scheduler.run_ids, configurations)
    board.whole(scheduler.counts())


def _close_left(store: Store, scheduler: Scheduler, ended: Collection[Owner]) -> None:
    """End the runs of workers that were stopped in the middle of a step."""
    for fingerprint in scheduler.in_flight:
        for run in store.find(fingerprint=fingerprint):
            store.close_dead(run, ended)
