"""The status and the plan of a study, as tables and as JSON, with an estimate of what is left."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from worldrep.stages.commands import to_look
from worldrep.stages.estimate import Speed, training_tokens
from worldrep.studies.definition import STEPS
from worldrep.studies.graph import Graph, Step
from worldrep.studies.scheduler import DONE, FAILED, STATES, StepState, plan, read_runs, read_states
from worldrep.text import duration_in_words
from worldrep.tracking import Store, StoredRun


@dataclass(frozen=True)
class Left:
    """Work that is not done. tokens: read by trainings; seconds: of one step after another."""

    steps: int
    tokens: int
    seconds: float
    basis: str

    @classmethod
    def of(cls, states: Mapping[str, StepState], runs: Iterable[StoredRun]) -> Self:
        """Estimate what is left. runs: of the same scale; the finished ones tell the speed."""
        steps = [state.step for state in states.values() if state.state != DONE]
        tokens = sum(training_tokens(step.settings) for step in steps if step.kind == "train")
        times, basis = Speed.of(runs).times([step.work for step in steps])
        return cls(len(steps), tokens, sum(times), basis if steps else "")

    def __str__(self) -> str:
        if self.steps == 0:
            return "nothing is left to do"
        text = f"left: {self.steps} steps, {self.tokens:,} tokens of training"
        return f"{text}, about {duration_in_words(self.seconds)} one step at a time ({self.basis})"


@dataclass(frozen=True)
class Overview:
    """A study as the store has it, and the steps that would run, in order."""

    graph: Graph
    states: Mapping[str, StepState]
    left: Left
    order: list[Step]
    command: str
    store: Store

    @classmethod
    def read(
        cls, store: Store, graph: Graph, mine: Collection[str] | None = None, command: str = ""
    ) -> Self:
        """Read it; nothing is written.

        mine: fingerprints of the steps of this shard; command: does what is left.
        """
        runs = read_runs(store, graph)
        states = read_states(store, graph, runs)
        return cls(graph, states, Left.of(states, runs), plan(graph, states, mine), command, store)

    def status_text(self) -> str:
        """Return a line for every model, the totals, the failures, and what is left."""
        rows = [["model", "seed", "world", *STEPS]]
        for model in self.status_json()["models"]:
            name = model["model"] if model["listed"] else f"({model['model']})"
            states = [model["steps"].get(kind, {"state": "-"})["state"] for kind in STEPS]
            rows.append([name, str(model["seed"]), model["world"], *states])
        failures = [
            f"failed: {found.step.title}: {found.error or 'no reason was recorded'} "
            f"(run {found.run.id})"
            for found in self.states.values()
            if found.state == FAILED and found.run
        ]
        return "\n".join([*_aligned(rows), "", self._totals(), *failures, *self._ending()])

    def plan_text(self) -> str:
        """Return a line for every step that would run, with the step that it waits for."""
        columns = ["step", "world", "state", "after"]
        steps = self.plan_json()["steps"]
        rows = [[str(i), *(step[key] for key in columns)] for i, step in enumerate(steps, 1)]
        table = [*_aligned([["", *columns], *rows]), ""] if rows else []
        return "\n".join([*table, self._totals(), *self._ending()]).lstrip()

    def _ending(self) -> list[str]:
        """Say what is left and which command does it, or how long all of it took."""
        if self.left.steps:
            return [str(self.left), *([f"to do it: {self.command}"] if self.command else [])]
        runs = [found.run for found in self.states.values() if found.run]
        parent = next((run.parent for run in runs if run.parent), runs[0].id)
        return [str(self.left), time_taken(runs), f"to look at it: {to_look(self.store, parent)}"]

    def status_json(self) -> dict[str, Any]:
        models = []
        for settings, steps in self.graph.by_model().items():
            names = {key: getattr(settings, key) for key in ("seed", "width", "world")}
            found = {kind: self._step_json(step) for kind, step in steps.items()}
            listed = any(step.listed for step in steps.values())
            facts = names | {"listed": listed, "steps": found}
            models.append({"model": str(settings.model_name)} | facts)
        return self._head_json() | {"models": models}

    def plan_json(self) -> dict[str, Any]:
        """Return the steps that would run, in order, with the steps that they wait for."""
        steps = [
            {"step": step.title, "world": step.settings.world, "after": self._waits_for(step)}
            | self._step_json(step)
            for step in self.order
        ]
        return self._head_json() | {"steps": steps}

    def _head_json(self) -> dict[str, Any]:
        definition = self.graph.definition
        return {
            "study": definition.name,
            "scale": definition.scale,
            "n_models": len(definition.resolved),
            "n_steps": len(self.states),
            "totals": self._counts(),
            "left": asdict(self.left),
        }

    def _step_json(self, step: Step) -> dict[str, Any]:
        found = self.states[step.fingerprint]
        run_id = found.run.id if found.run else None
        facts = {"state": found.state, "run_id": run_id, "fingerprint": step.fingerprint}
        return facts | ({"error": found.error} if found.error else {})

    def _waits_for(self, step: Step) -> str:
        waits = step.needs and self.states[step.needs].state != DONE
        return self.graph.steps[step.needs].title if waits else ""

    def _counts(self) -> dict[str, int]:
        counts = Counter(found.state for found in self.states.values())
        return {state: counts[state] for state in STATES}

    def _totals(self) -> str:
        definition = self.graph.definition
        parts = ", ".join(f"{n} {state}" for state, n in self._counts().items())
        return (
            f"study {definition.name} (scale {definition.scale}): "
            f"{len(definition.resolved)} models, {len(self.states)} steps: {parts}"
        )


def report_done(store: Store, graph: Graph) -> str:
    """Say how long the finished steps of a study took."""
    states = read_states(store, graph).values()
    return time_taken([found.run for found in states if found.run and found.state == DONE])


def time_taken(runs: Sequence[StoredRun]) -> str:
    """Say how long finished runs took, by themselves and from the first to the last."""
    first, last = min(run.started for run in runs), max(run.ended for run in runs)
    own = duration_in_words(sum(run.ended - run.started for run in runs))
    begun, ended = datetime.fromtimestamp(first), datetime.fromtimestamp(last)
    day = "" if begun.date() == ended.date() else "%Y-%m-%d "
    return (
        f"its {len(runs)} steps took {own} in all, and {duration_in_words(last - first)} "
        f"from the first to the last ({begun:%Y-%m-%d %H:%M} to {ended:{day}%H:%M})"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
