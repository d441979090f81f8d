"""The status and the plan of a study, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worldrep.settings import Settings
from worldrep.studies.definition import STEPS
from worldrep.studies.graph import Graph, Step
from worldrep.studies.remaining import Left, what_is_left
from worldrep.studies.scheduler import Scheduler
from worldrep.studies.states import DONE, FAILED, STATES, StepState, read_runs, read_states
from worldrep.tracking import Store
from worldrep.training.progress import duration_in_words

NOT_ASKED = "-"


@dataclass(frozen=True)
class Overview:
    """A study as the store has it. order: what would run, in the order of beginning."""

    graph: Graph
    states: Mapping[str, StepState]
    left: Left
    order: list[Step]

    @classmethod
    def read(cls, store: Store, graph: Graph, mine: Collection[str] | None = None) -> Overview:
        """Nothing is written. mine: fingerprints of the steps of this shard, for the order."""
        runs = read_runs(store, graph)
        states = read_states(store, graph, runs)
        order = Scheduler(graph, states, "", mine).order()
        return cls(graph, states, what_is_left(states, runs), order)

    def status_text(self) -> str:
        """A line for every model, the totals, the failures, and what is left."""
        head = ["model", "seed", "world", *STEPS]
        rows = [head]
        for settings, steps in self.graph.by_model().items():
            cells = [self._state(steps.get(kind)) for kind in STEPS]
            rows.append([_model(settings, steps), str(settings.seed), settings.world, *cells])
        lines = [*_aligned(rows), "", self._totals()]
        lines += [f"failed: {line}" for line in self._failures()]
        return "\n".join([*lines, left_line(self.left)])

    def plan_text(self) -> str:
        """What would run, and what it waits for."""
        rows = [["", "step", "world", "state", "after"]]
        for number, step in enumerate(self.order, 1):
            after, world, state = self._waits_for(step), step.settings.world, self._state(step)
            rows.append([str(number), step.title, world, state, after])
        table = _aligned(rows) if self.order else []
        return "\n".join([*table, "", self._totals(), left_line(self.left)]).lstrip()

    def status_json(self) -> dict[str, Any]:
        """Models with their steps, totals, and what is left."""
        models = [
            {
                "model": str(settings.model_name),
                "seed": settings.seed,
                "width": settings.width,
                "world": settings.world,
                "listed": any(step.listed for step in steps.values()),
                "steps": {kind: self._step_json(step) for kind, step in steps.items()},
            }
            for settings, steps in self.graph.by_model().items()
        ]
        return self._head_json() | {"models": models}

    def plan_json(self) -> dict[str, Any]:
        """The steps that would run, in order, with what they wait for."""
        steps = [
            {"step": step.title, "world": step.settings.world, "after": self._waits_for(step)}
            | self._step_json(step)
            for step in self.order
        ]
        return self._head_json() | {"steps": steps}

    def _head_json(self) -> dict[str, Any]:
        definition, counts = self.graph.definition, self._counts()
        return {
            "study": definition.name,
            "scale": definition.scale,
            "n_models": len(definition.resolved),
            "n_steps": len(self.states),
            "totals": {state: counts[state] for state in STATES},
            "left": self.left.as_dict(),
        }

    def _step_json(self, step: Step) -> dict[str, Any]:
        found = self.states[step.fingerprint]
        run_id = found.run.id if found.run else None
        facts = {"state": found.state, "run_id": run_id, "fingerprint": step.fingerprint}
        return facts | ({"error": found.error} if found.error else {})

    def _state(self, step: Step | None) -> str:
        return self.states[step.fingerprint].state if step else NOT_ASKED

    def _waits_for(self, step: Step) -> str:
        base = self.graph.steps.get(step.needs)
        return base.title if base and self._state(base) != DONE else ""

    def _counts(self) -> Counter[str]:
        return Counter(found.state for found in self.states.values())

    def _totals(self) -> str:
        definition, counts = self.graph.definition, self._counts()
        parts = ", ".join(f"{counts[state]} {state}" for state in STATES)
        return (
            f"study {definition.name} (scale {definition.scale}): "
            f"{len(definition.resolved)} models, {len(self.states)} steps: {parts}"
        )

    def _failures(self) -> list[str]:
        """Each failed step with its reason and its run."""
        return [
            f"{found.step.title}: {found.error or 'no reason was recorded'} (run {found.run.id})"
            for found in self.states.values()
            if found.state == FAILED and found.run
        ]


def _model(settings: Settings, steps: Mapping[str, Step]) -> str:
    """A model's name; one that the study needs but does not list stands in brackets."""
    listed = any(step.listed for step in steps.values())
    return str(settings.model_name) if listed else f"({settings.model_name})"


def _aligned(rows: Iterable[list[str]]) -> list[str]:
    """Rows of cells as lines with columns below one another."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def left_line(left: Left) -> str:
    """What is left, in words."""
    if left.steps == 0:
        return "nothing is left to do"
    tokens = f"{left.tokens:,} tokens of training"
    if left.seconds is None:
        return f"left: {left.steps} steps, {tokens}; no run like them is finished to tell the time"
    unknown = f", without {left.unknown} steps of kinds not seen yet" if left.unknown else ""
    return (
        f"left: {left.steps} steps, {tokens}, {duration_in_words(left.seconds)} "
        f"one after another{unknown} (from {left.basis})"
    )
