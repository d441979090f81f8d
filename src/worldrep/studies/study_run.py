"""The study's own run: the parent of its steps, with their counts as metrics.

One driver at a time owns it. Other drivers of the same study list their steps as its children, and
one of them takes it over when its owner ends or dies.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from worldrep.digests import digest
from worldrep.names import TASK_NAMES
from worldrep.settings import SHARED_GROUPS
from worldrep.stages.provenance import keep_cities
from worldrep.studies.graph import Graph, Step
from worldrep.studies.scheduler import BLOCKED, Scheduler
from worldrep.studies.states import DONE, FAILED
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun, TakenError

WRITE_SECONDS = 5.0  # between two points of the metrics
CLAIM_SECONDS = 30.0  # between two attempts to take the run over
SETTLE_SECONDS, CLOSE_ATTEMPTS = 1.0, 3
SHOWN_FAILURES = 20
STEPS_TABLE = "steps.csv"


def study_spec(graph: Graph) -> RunSpec:
    """Return the spec of a study's run, which is one for each name and set of steps."""
    definition, models = graph.definition, graph.definition.resolved
    keys = ("pretrain", "ft", "width", "strategy", "world", "scale", "seed")
    tags = {key: _joined(getattr(settings, key) for settings in models) for key in keys}
    tags |= {
        "study": definition.name,
        "model": _joined(settings.model_name for settings in models),
        "tasks": ",".join(TASK_NAMES),
    }
    same_width = len({settings.width for settings in models}) == 1
    groups = SHARED_GROUPS if same_width else ("world", "rows")
    facts = {"study": definition.name, "n_models": len(models), "n_steps": len(graph.steps)}
    facts |= models[0].group(*groups, "ft_rows")
    fingerprint = digest(["study", definition.name, sorted(graph.steps)])
    title = f"study {definition.name} {definition.scale}"
    return RunSpec("study", title, fingerprint, tags, facts, repeatable=True)


def _joined(values: Iterable[object]) -> str:
    return ",".join(dict.fromkeys(str(value) for value in values))[:4000]


class StudyRun:
    """Writes the study's run while this driver owns it.

    summarized: digest of the evaluations that the summaries were made from.
    """

    def __init__(self, store: Store, graph: Graph, *, launched: bool = False) -> None:
        self._store, self._spec = store, study_spec(graph)
        self._run: OpenRun | None = None
        self.run_id = self._claim(launched)
        if self._run:
            keep_cities(self._run, graph.definition.resolved[0])
        found = store.get(self.run_id)
        self._begun, self.summarized = found.started, found.tag("summarized")
        self._written = self._tried = time.monotonic()

    def _claim(self, launched: bool = False) -> str:
        """Become the owner of the run, or return the ID of the run that another driver owns."""
        while True:
            try:
                self._run = self._store.claim(self._spec, launched=launched)
                return self._run.id
            except TakenError as fault:
                time.sleep(SETTLE_SECONDS)  # of two runs made at once, one is withdrawn
                if any(run.id == fault.run_id for run in self._same()):
                    return fault.run_id

    def _same(self) -> list[StoredRun]:
        return self._store.find(fingerprint=self._spec.fingerprint)

    def write(self, counts: Mapping[str, int], *, at_once: bool = False) -> None:
        """Log the counts as `study/<state>`, by seconds since the study first began."""
        now = time.monotonic()
        if self._run is None and now - self._tried >= CLAIM_SECONDS:
            self._tried = now
            self._claim()
        if self._run is None or not (at_once or now - self._written >= WRITE_SECONDS):
            return
        self._written = now
        values = {f"study/{state}": float(n) for state, n in counts.items()}
        values["study/total"] = float(sum(counts.values()))
        try:
            # Another driver may have ended within this second: these counts must come after its.
            after = self._run.last_step("study/total") + 1
            self._run.metrics(max(int(time.time() - self._begun), after), values)
            self._run.flush(required=False)
        except TakenError:  # this machine slept, and another driver owns the run now
            self._run = None

    def close(self, scheduler: Scheduler, interrupted: bool) -> None:
        """Write the final state, with a table that names the run of every step.

        While another driver owns the run nothing is written: that one reads this one's steps.
        """
        for _ in range(CLOSE_ATTEMPTS):
            if self._run is None:
                self._claim()
        if self._run is None:
            return
        counts = scheduler.counts()
        self.write(counts, at_once=True)
        self._find_failed_runs(scheduler)
        note = _note(self._store, scheduler)
        self._run.tags({"mlflow.note.content": note, "worldrep.summarized": self.summarized})
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            path = Path(folder) / STEPS_TABLE
            steps_table(scheduler).to_csv(path, index=False)
            self._run.artifact(path)
        self._run.close(_status(counts, interrupted))
        self._run = None

    def _find_failed_runs(self, scheduler: Scheduler) -> None:
        """Look up the runs of failed steps, which their outcomes do not name."""
        for fingerprint in scheduler.messages.keys() - scheduler.run_ids.keys():
            for run in self._store.find(fingerprint=fingerprint)[:1]:
                scheduler.run_ids[fingerprint] = run.id


def _status(counts: Mapping[str, int], interrupted: bool) -> str:
    if interrupted:
        return "KILLED"
    if counts[FAILED] or counts[BLOCKED]:
        return "FAILED"
    finished = counts[DONE] == sum(counts.values())
    return "FINISHED" if finished else "SCHEDULED"  # other shards have steps left


def steps_table(scheduler: Scheduler) -> pd.DataFrame:
    """Return one row per step: what it is, its state, its run, why it failed."""
    rows = [
        {
            "step": step.title,
            "kind": step.kind,
            "model": str(step.settings.model_name),
            "seed": step.settings.seed,
            "world": step.settings.world,
            "state": scheduler.state[fingerprint],
            "run_id": scheduler.run_ids.get(fingerprint, ""),
            "error": scheduler.messages.get(fingerprint, ""),
            "fingerprint": fingerprint,
        }
        for fingerprint, step in scheduler.graph.steps.items()
    ]
    return pd.DataFrame(rows)


def _note(store: Store, scheduler: Scheduler) -> str:
    """Return the run's description in the UI: counts, failures, and where the runs are listed."""
    definition = scheduler.graph.definition
    counts = ", ".join(f"{n} {state}" for state, n in scheduler.counts().items() if n)
    lines = [f"**{definition.name}**: {definition.about}", "", f"Steps: {counts}."]
    lines += [f"Every step with its run: artifact `{STEPS_TABLE}`.", ""]
    failed = [step for f, step in scheduler.graph.steps.items() if f in scheduler.messages]
    lines += [_failure(store, scheduler, step) for step in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        lines.append(f"- and {len(failed) - SHOWN_FAILURES} more")
    return "\n".join(lines)


def _failure(store: Store, scheduler: Scheduler, step: Step) -> str:
    run_id, name = scheduler.run_ids.get(step.fingerprint), step.title
    link = f"[{name}](#/experiments/{store.experiment_id}/runs/{run_id})" if run_id else name
    return f"- failed: {link}: {scheduler.messages[step.fingerprint][:200]}"
