"""Which step of a study comes next, whatever happens to the others.

It knows nothing of where steps run. A step is begun when the training that it stands on is done;
one that fails blocks what stands on it and nothing else.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping

from worldrep.executors.work import Job, Outcome
from worldrep.studies.graph import Graph, Step
from worldrep.studies.states import DONE, FAILED, RUNNING, StepState, state_of
from worldrep.tracking import Store

WAITING, BLOCKED = "waiting", "blocked"
MOST_LOSSES = 3  # workers that a step may take with it


class Scheduler:
    """The course of a study in this driver.

    mine: fingerprints of the steps to do, all by default. A step of another shard is done only if
    one of these needs it, nobody else is at it, and there is nothing else to do.
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
        self.elsewhere: set[str] = set()
        self.in_flight: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._ready: list[tuple[bool, float, int, str]] = []
        self._pushed = 0
        for fingerprint, found in states.items():
            if found.run and found.state in (DONE, RUNNING):
                self.run_ids[fingerprint] = found.run.id
                self.state[fingerprint] = found.state
            if found.state == RUNNING:
                self.elsewhere.add(fingerprint)
        for step in graph.steps.values():
            self._push_if_ready(step)

    @property
    def going_on(self) -> bool:
        """Whether there is anything left to do or to wait for."""
        waited_for = self.elsewhere & self._needed
        return bool(self._ready or self.in_flight or waited_for)

    @property
    def waits_for_others(self) -> bool:
        """Whether other shards have steps to do of which nothing was heard."""
        return any(state == WAITING for f, state in self.state.items() if f not in self._needed)

    def counts(self) -> dict[str, int]:
        """Steps of the whole study by state."""
        counts = Counter(self.state.values())
        names = (DONE, RUNNING, WAITING, FAILED, BLOCKED)
        return {name: counts[name] for name in names}

    def order(self) -> list[Step]:
        """The steps that are still to do, in the order in which one worker would do them."""
        trial = Scheduler(self.graph, {}, "", self._mine)
        for fingerprint, state in self.state.items():
            if state == DONE:
                trial.state[fingerprint] = DONE
        trial._ready.clear()
        for step in self.graph.steps.values():
            trial._push_if_ready(step)
        steps = []
        while following := trial._pop():
            steps.append(self.graph.steps[following])
            trial._finish(following, "")
        return steps

    def next_job(self) -> Job | None:
        """The step to begin now; None if each of them has to wait."""
        fingerprint = self._pop()
        if fingerprint is None:
            return None
        step = self.graph.steps[fingerprint]
        self.state[fingerprint] = RUNNING
        self.in_flight.add(fingerprint)
        model_run = self.run_ids.get(step.needs, "")
        return Job(
            step.kind,
            step.settings,
            step.title,
            fingerprint,
            model_run,
            self._parent,
        )

    def settle(self, outcome: Outcome) -> None:
        """Take in how a step ended."""
        fingerprint = outcome.fingerprint
        self.in_flight.discard(fingerprint)
        if outcome.state == "done":
            self._finish(fingerprint, outcome.run_id)
        elif outcome.state == "taken":
            self.elsewhere.add(fingerprint)
        elif outcome.state == "lost":
            self._lose(outcome)
        else:
            self._fail(fingerprint, outcome.message)

    def look_elsewhere(self, store: Store) -> list[Step]:
        """Ask the store about steps that other processes do; those that ended."""
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

    def learn(self, states: Mapping[str, StepState]) -> None:
        """Take in what other drivers have finished, such as other shards."""
        unknown = {f for f, state in self.state.items() if state == WAITING} | self.elsewhere
        for fingerprint in unknown:
            found = states[fingerprint]
            if found.state == DONE and found.run:
                self.elsewhere.discard(fingerprint)
                self._finish(fingerprint, found.run.id)

    def _push_if_ready(self, step: Step) -> None:
        fingerprint = step.fingerprint
        if self.state[fingerprint] != WAITING or fingerprint not in self._needed:
            return
        if step.needs and self.state[step.needs] != DONE:
            return
        borrowed = fingerprint not in self._mine
        self._pushed += 1
        entry = (borrowed, -self.graph.urgency[fingerprint], self._pushed, fingerprint)
        heapq.heappush(self._ready, entry)

    def _pop(self) -> str | None:
        """The most urgent step that is ready, and was not done elsewhere meanwhile."""
        while self._ready:
            fingerprint = heapq.heappop(self._ready)[-1]
            if self.state[fingerprint] == WAITING:
                return fingerprint
        return None

    def _finish(self, fingerprint: str, run_id: str) -> None:
        self.state[fingerprint], self.run_ids[fingerprint] = DONE, run_id
        for dependant in self.graph.dependants[fingerprint]:
            self._push_if_ready(dependant)

    def _fail(self, fingerprint: str, message: str) -> None:
        self.state[fingerprint], self.messages[fingerprint] = FAILED, message
        self._block(fingerprint)

    def _block(self, fingerprint: str) -> None:
        for dependant in self.graph.dependants[fingerprint]:
            if self.state[dependant.fingerprint] == WAITING:
                self.state[dependant.fingerprint] = BLOCKED
                self._block(dependant.fingerprint)

    def _lose(self, outcome: Outcome) -> None:
        """Try again elsewhere, from the last checkpoint; but not for ever."""
        fingerprint = outcome.fingerprint
        self._losses[fingerprint] += 1
        if self._losses[fingerprint] >= MOST_LOSSES:
            self._fail(fingerprint, f"{outcome.message}, {MOST_LOSSES} times")
            return
        self.state[fingerprint] = WAITING
        self._push_if_ready(self.graph.steps[fingerprint])
