"""The state of every step of a study, read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worldrep.studies.graph import Graph, Step
from worldrep.tracking import Store, StoredRun

DONE, RUNNING, DEAD, FAILED, MISSING = STATES = ("done", "running", "dead", "failed", "missing")
STAGES = ("pretrain", "finetune", "evaluate", "extract")
KEYS = ("world", "width", "pretrain", "seed")
MAX_SEARCHES = 100


@dataclass(frozen=True)
class StepState:
    """The state of a step: done; running in a living process; dead (interrupted); failed; missing.

    run: the run that shows it, None for a missing step.
    """

    step: Step
    state: str
    run: StoredRun | None

    @property
    def error(self) -> str:
        """Why the step failed; empty if it did not."""
        return self.run.tag("error") if self.run and self.state == FAILED else ""


def read_runs(
    store: Store, graph: Graph, stages: Iterable[str] = STAGES, keys: Sequence[str] = KEYS
) -> list[StoredRun]:
    """Return the runs of some stages that have the study's scale and names, the newest first.

    keys: names that narrow the searches while these stay few. Reading a run costs a millisecond or
    more.
    """
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
    return {
        fingerprint: state_of(step, found.get(fingerprint, ()))
        for fingerprint, step in graph.steps.items()
    }


def state_of(step: Step, runs: Sequence[StoredRun]) -> StepState:
    """Return the state of a step. runs: all with its fingerprint, the newest first."""
    for run in runs:
        if run.status == "FINISHED":
            return StepState(step, DONE, run)
    for run in runs:
        if run.alive:
            return StepState(step, RUNNING, run)
    if not runs:
        return StepState(step, MISSING, None)
    return StepState(step, FAILED if runs[0].status == "FAILED" else DEAD, runs[0])
