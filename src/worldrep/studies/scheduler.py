"""The state of every step of a study, and the order in which one driver begins the steps.

A step that fails blocks the steps that depend on it and no others.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from worldrep.executors import Job, Outcome
from worldrep.settings import STAGES
from worldrep.studies.graph import Graph, Step
from worldrep.tracking import Store, StoredRun

# Running: in a living process. Dead: interrupted.
DONE, RUNNING, DEAD, FAILED, MISSING = STATES = ("done", "running", "dead", "failed", "missing")
KEYS = ("world", "width", "pretrain", "seed")
MAX_SEARCHES = 100
WAITING, BLOCKED = "waiting", "blocked"
MAX_LOSSES = 3  # workers that may die with a step before it counts as failed


@dataclass(frozen=True)
class StepState:
    """The state of a step, one of STATES, and the run that shows it, None for a missing step."""

    step: Step
    state: str
    run: StoredRun | None

    @property
    def error(self) -> str:
        return self.run.tag("error") if self.run and self.state == FAILED else ""


def read_runs(
    store: Store, graph: Graph, stages: Iterable[str] = STAGES, keys: Sequence[str] = KEYS
) -> list[StoredRun]:
    """Return the runs of the study's scale and names, the newest first. keys narrow the search."""
    filters = [{"stage": stage, "scale": graph.definition.scale} for stage in stages]
    models = graph.by_model()
    for key in keys:
        values = sorted({str(getattr(settings, key)) for settings in models})
        if len(filters) * len(values) <= MAX_SEARCHES:
            filters = [names | {key: value} for names in filters for value in values]
    found = [run for names in filters for run in store.find(**names)]
    return sorted(found, key=lambda run: -run.started)


def read_states(
    store: Store, graph: Graph, runs: Sequence[StoredRun] | None = None
) -> dict[str, StepState]:
    """Return the state of every step by fingerprint. runs: from `read_runs`; None reads them."""
    found: dict[str, list[StoredRun]] = {}
    for run in read_runs(store, graph) if runs is None else runs:
        found.setdefault(run.fingerprint, []).append(run)
    return {f: state_of(step, found.get(f, ())) for f, step in graph.steps.items()}


def state_of(step: Step, runs: Sequence[StoredRun]) -> StepState:
    """Return the state of a step. runs: all with its fingerprint, the newest first."""
    if not runs:
        return StepState(step, MISSING, None)
    if done := [run for run in runs if run.status == "FINISHED"]:
        return StepState(step, DONE, done[0])
    if alive := [run for run in runs if run.alive]:
        return StepState(step, RUNNING, alive[0])
    return StepState(step, FAILED if runs[0].status == "FAILED" else DEAD, runs[0])


class Scheduler:
    """The steps of a study and their states, as one driver knows them. mine: fingerprints to do.

    A step of another shard is done only when one of these needs it and nothing else is ready.
    """

    def __init__(
        self,
        graph: Graph,
        states: Mapping[str, StepState],
        parent: str,
        mine: Collection[str] | None = None,
    ) -> None:
        self.graph, self._parent = graph, parent
        self._mine = set(graph.steps if mine is None else mine)
        self._needed = {graph.steps[f].needs for f in self._mine} | self._mine
        self._needed |= {graph.steps[f].needs for f in self._needed if f}
        self.state = dict.fromkeys(graph.steps, WAITING)
        self.run_ids: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.elsewhere: set[str] = set()  # steps that other drivers do
        self.in_flight: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._ready: list[tuple[bool, float, int, str]] = []  # a heap, the most urgent first
        self._pushed = count()
        for fingerprint, found in states.items():
            if found.run and found.state in (DONE, RUNNING):
                self.run_ids[fingerprint] = found.run.id
                self.state[fingerprint] = found.state
            if found.state == RUNNING:
                self.elsewhere.add(fingerprint)
        for step in graph.steps.values():
            self._push_if_ready(step)

    @property
    def unfinished(self) -> bool:
        return bool(self._ready or self.in_flight or self.elsewhere & self._needed)

    @property
    def waits_for_others(self) -> bool:
        """Whether other shards have steps to do that no process is known to have begun."""
        return any(state == WAITING for f, state in self.state.items() if f not in self._needed)

    def counts(self) -> dict[str, int]:
        """Return the number of steps of the whole study in each state."""
        counts = Counter(self.state.values())
        return {name: counts[name] for name in (DONE, RUNNING, WAITING, FAILED, BLOCKED)}

    def next_job(self) -> Job | None:
        """Return the most urgent step that can begin; None if all have to wait."""
        while self._ready:
            fingerprint = heapq.heappop(self._ready)[-1]
            if self.state[fingerprint] != WAITING:  # it was done elsewhere meanwhile
                continue
            self.state[fingerprint] = RUNNING
            self.in_flight.add(fingerprint)
            step = self.graph.steps[fingerprint]
            model_run = self.run_ids.get(step.needs, "")
            facts = fingerprint, model_run, self._parent
            return Job(step.kind, step.settings, step.title, *facts, checkpoints=step.checkpoints)
        return None

    def job_ended(self, outcome: Outcome) -> None:
        fingerprint = outcome.fingerprint
        self.in_flight.discard(fingerprint)
        if outcome.state == "done":
            self._finish(fingerprint, outcome.run_id)
        elif outcome.state == "taken":
            self.elsewhere.add(fingerprint)
        elif outcome.state == "lost":
            self._retry(outcome)
        else:
            self._fail(fingerprint, outcome.message)

    def check_elsewhere(self, store: Store) -> list[Step]:
        """Read the states of steps that other drivers do; return those that ended."""
        ended = []
        for fingerprint in list(self.elsewhere):
            step = self.graph.steps[fingerprint]
            found = state_of(step, store.find(fingerprint=fingerprint))
            if found.state == RUNNING:
                continue
            self.elsewhere.discard(fingerprint)
            ended.append(step)
            if found.state == DONE and found.run:
                self._finish(fingerprint, found.run.id)
            elif found.state == FAILED:
                self._fail(fingerprint, found.error)
            else:
                self.state[fingerprint] = WAITING
                self._push_if_ready(step)
        return ended

    def add_finished(self, states: Mapping[str, StepState]) -> None:
        """Mark steps as done that other drivers have finished, also those that failed here."""
        open_states = (WAITING, FAILED, BLOCKED)
        unknown = {f for f, state in self.state.items() if state in open_states} | self.elsewhere
        for fingerprint in unknown:
            found = states[fingerprint]
            if found.state == DONE and found.run:
                self.elsewhere.discard(fingerprint)
                self._finish(fingerprint, found.run.id)

    def _push_if_ready(self, step: Step) -> None:
        fingerprint = step.fingerprint
        can_begin = not step.needs or self.state[step.needs] == DONE
        if can_begin and self.state[fingerprint] == WAITING and fingerprint in self._needed:
            last, urgency = fingerprint not in self._mine, self.graph.urgency[fingerprint]
            heapq.heappush(self._ready, (last, -urgency, next(self._pushed), fingerprint))

    def _finish(self, fingerprint: str, run_id: str) -> None:
        self.state[fingerprint], self.run_ids[fingerprint] = DONE, run_id
        self.messages.pop(fingerprint, None)
        self._change_dependants(fingerprint, BLOCKED, WAITING)
        for dependant in self.graph.dependants[fingerprint]:
            self._push_if_ready(dependant)

    def _fail(self, fingerprint: str, message: str) -> None:
        self.state[fingerprint], self.messages[fingerprint] = FAILED, message
        self._change_dependants(fingerprint, WAITING, BLOCKED)

    def _change_dependants(self, fingerprint: str, old: str, new: str) -> None:
        """Change the state of all steps in state `old` that depend on this one."""
        for dependant in self.graph.dependants[fingerprint]:
            if self.state[dependant.fingerprint] == old:
                self.state[dependant.fingerprint] = new
                self._change_dependants(dependant.fingerprint, old, new)

    def _retry(self, outcome: Outcome) -> None:
        """Make a lost step wait again, unless it has lost too many workers."""
        fingerprint = outcome.fingerprint
        self._losses[fingerprint] += 1
        if self._losses[fingerprint] >= MAX_LOSSES:
            self._fail(fingerprint, f"{outcome.message}, {MAX_LOSSES} times")
            return
        self.state[fingerprint] = WAITING
        self._push_if_ready(self.graph.steps[fingerprint])


def plan(
    graph: Graph, states: Mapping[str, StepState], mine: Collection[str] | None = None
) -> list[Step]:
    """Return the steps that are not done, in the order in which one worker would do them."""
    done = {f: found for f, found in states.items() if found.state == DONE}
    scheduler, steps = Scheduler(graph, done, "", mine), []
    while job := scheduler.next_job():
        scheduler.job_ended(Outcome(job.fingerprint, "done"))
        steps.append(graph.steps[job.fingerprint])
    return steps
