"""The runs beside a study's steps: its own run, their parent, and a summary for each model.

One driver at a time owns the study's run; another takes it over when the owner ends or dies. A
summary holds `<metric>/mean_over_seeds`, `std_`, `n_`, `low_` and `high_over_seeds` (95%).
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from statistics import fmean

import pandas as pd

from worldrep.digests import digest
from worldrep.evaluation.improvement import headlines, spread_of
from worldrep.names import TASK_NAMES
from worldrep.progress import LINE_SECONDS, NOTE, SHARE
from worldrep.settings import SHARED_GROUPS, Settings
from worldrep.stages.plan import LAST
from worldrep.stages.provenance import keep_cities
from worldrep.studies.graph import Graph, Step
from worldrep.studies.scheduler import BLOCKED, DONE, FAILED, KEYS, Scheduler, read_runs
from worldrep.text import write_csv
from worldrep.tracking import (
    OpenRun,
    RunSpec,
    Store,
    StoredRun,
    TakenError,
    ended_on_error,
    listed,
    run_page,
)

WRITE_SECONDS = 5.0  # between two points of the metrics
CLAIM_SECONDS = 30.0  # between two attempts to take the run over
SETTLE_SECONDS, CLOSE_ATTEMPTS = 1.0, 3
SHOWN_FAILURES = 20
STEPS_TABLE = "steps.csv"
COLUMNS = ["step", "kind", "model", "seed", "world", "state", "run_id", "error", "fingerprint"]
SUMMARY_ATTEMPTS, SUMMARY_SECONDS = 10, 0.5


def study_spec(graph: Graph) -> RunSpec:
    """Return the spec of a study's run, which is one for each name and set of steps."""
    definition, models = graph.definition, graph.definition.resolved
    keys = ("pretrain", "ft", "width", "strategy", "world", "scale", "seed")
    tags = {key: listed({getattr(settings, key): 0 for settings in models}) for key in keys}
    names = listed({settings.model_name: 0 for settings in models})
    tags |= {"study": definition.name, "model": names, "tasks": ",".join(TASK_NAMES)}
    same_width = len({settings.width for settings in models}) == 1
    groups = SHARED_GROUPS if same_width else ("world", "rows")
    facts = {"study": definition.name, "n_models": len(models), "n_steps": len(graph.steps)}
    facts |= {} if definition.checkpoints == LAST else {"checkpoints": definition.checkpoints}
    facts |= models[0].group(*groups, "ft_rows")
    fingerprint = digest(["study", definition.name, sorted(graph.steps)])
    title = f"study {definition.name} {definition.scale}"
    title += "" if definition.checkpoints == LAST else f" {definition.checkpoints} checkpoints"
    return RunSpec("study", title, fingerprint, tags, facts, repeatable=True)


class StudyRun:
    """Writes the study's run while this driver owns it."""

    def __init__(self, store: Store, graph: Graph, *, launched: bool = False) -> None:
        self.store, self._spec = store, study_spec(graph)
        self._run: OpenRun | None = None
        self.run_id = self._claim(launched)
        if self._run:
            with ended_on_error(self._run):
                keep_cities(self._run, graph.definition.resolved[0])
        self._begun = store.get(self.run_id).started
        self._written = self._tried = self._noted = time.monotonic()

    def _claim(self, launched: bool = False) -> str:
        """Become the owner of the run, or return the ID of the run that another driver owns."""
        while True:
            try:
                self._run = self.store.claim(self._spec, launched=launched)
                return self._run.id
            except TakenError as fault:
                time.sleep(SETTLE_SECONDS)  # of two runs made at once, one is withdrawn
                same = self.store.find(fingerprint=self._spec.fingerprint)
                if any(run.id == fault.run_id for run in same):
                    return fault.run_id

    def write(self, counts: Mapping[str, int], *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._run is None and now - self._tried >= CLAIM_SECONDS:
            self._tried = now
            self._claim()
        if self._run is None or not (at_once or now - self._written >= WRITE_SECONDS):
            return
        self._written = now
        values = {f"study/{state}": float(n) for state, n in counts.items()}
        total = sum(counts.values())
        values |= {"study/total": float(total), SHARE: counts[DONE] / max(1, total)}
        try:
            # Another driver may have ended within this second: these counts must come after its.
            after = self._run.last_step("study/total") + 1
            self._run.metrics(max(int(time.time() - self._begun), after), values)
            if now - self._noted >= LINE_SECONDS:
                self._noted = now
                states = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
                self._run.tags({NOTE: f"{total} steps: {states} ({time.strftime('%H:%M:%S')})"})
        except TakenError:  # this machine slept, and another driver owns the run now
            self._run = None

    def close(self, scheduler: Scheduler, interrupted: bool) -> None:
        """Write the final state and a table of all steps, unless another driver owns the run."""
        for _ in range(CLOSE_ATTEMPTS):
            if self._run is None:
                self._claim()
        if self._run is None:
            return
        counts = scheduler.counts()
        self.write(counts, at_once=True)
        if self._run is None:  # another driver took it over
            return
        for fingerprint in scheduler.messages.keys() - scheduler.run_ids.keys():
            for run in self.store.find(fingerprint=fingerprint)[:1]:  # a failed step's
                scheduler.run_ids[fingerprint] = run.id
        own, self._run = self._run, None
        with suppress(TakenError):
            try:
                own.tags({NOTE: _note(self.store, scheduler, interrupted)})
                with own.new_artifact(STEPS_TABLE) as path:
                    write_csv(steps_table(scheduler), path, index=False)
            finally:  # also when there is no space for the table
                own.close(_status(counts, interrupted))


def _status(counts: Mapping[str, int], interrupted: bool) -> str:
    if interrupted or counts[FAILED] or counts[BLOCKED]:
        return "KILLED" if interrupted else "FAILED"
    finished = counts[DONE] == sum(counts.values())
    return "FINISHED" if finished else "SCHEDULED"  # other shards have steps left


def steps_table(scheduler: Scheduler) -> pd.DataFrame:
    """Return one row per step: what it is, its state, its run, why it failed."""
    rows = []
    for f, step in scheduler.graph.steps.items():
        names = step.title, step.kind, str(step.settings.model_name)
        found = scheduler.state[f], scheduler.run_ids.get(f, ""), scheduler.messages.get(f, "")
        rows.append((*names, step.settings.seed, step.settings.world, *found, f))
    return pd.DataFrame(rows, columns=COLUMNS)


def _note(store: Store, scheduler: Scheduler, interrupted: bool) -> str:
    """Return the run's description in the UI: counts, failures, and where the runs are listed."""
    definition = scheduler.graph.definition
    counts = ", ".join(f"{n} {state}" for state, n in scheduler.counts().items() if n)
    when = " when it was interrupted" if interrupted else ""
    lines = [f"**{definition.name}**: {definition.about}", "", f"Steps{when}: {counts}."]
    lines += [f"Every step with its run: artifact `{STEPS_TABLE}`.", ""]
    failed = [step for f, step in scheduler.graph.steps.items() if f in scheduler.messages]
    for step in failed[:SHOWN_FAILURES]:
        run_id, link = scheduler.run_ids.get(step.fingerprint), step.title
        if run_id:
            link = f"[{link}]({run_page(store.experiment_id, run_id)})"
        lines.append(f"- failed: {link}: {scheduler.messages[step.fingerprint][:200]}")
    if len(failed) > SHOWN_FAILURES:
        lines.append(f"- and {len(failed) - SHOWN_FAILURES} more")
    return "\n".join(lines)


class Summaries:
    """Keeps the summary runs of a study's models up to date."""

    def __init__(self, store: Store, scheduler: Scheduler) -> None:
        self._store, self._scheduler = store, scheduler
        self._evaluations: dict[str, list[Step]] = {}  # by configuration
        for step in scheduler.graph.steps.values():
            if step.kind == "evaluate" and step.checkpoints == LAST:
                self._evaluations.setdefault(step.configuration, []).append(step)
        self._known: dict[str, str] | None = None  # by configuration: tag `evaluations`

    def update(self, configurations: Iterable[str] | None = None) -> None:
        """Write the summaries of those models that are evaluated for every seed; default: all.

        By default also those of other evaluations than the store has now.
        """
        state, run_ids = self._scheduler.state, self._scheduler.run_ids
        stale = self._stale() if configurations is None else set()
        for configuration in self._evaluations if configurations is None else configurations:
            steps = self._evaluations.get(configuration, [])
            ids = {run_ids[s.fingerprint] for s in steps if state[s.fingerprint] == DONE}
            new = ids - set(self._summarized.get(configuration, "").split(","))
            if steps and (new and len(ids) == len(steps) or configuration in stale):
                self._write(steps[0].settings, configuration, ids)

    @property
    def _summarized(self) -> dict[str, str]:
        if self._known is None:
            runs = reversed(self._read("summary"))
            self._known = {run.configuration: run.tag("evaluations") for run in runs}
        return self._known

    def _stale(self) -> set[str]:
        """Return the configurations whose summary is of other evaluations than the store has.

        Also those whose base was evaluated after them, so that their summary has no `trained` yet.
        """
        evaluations = self._read("evaluate")
        found: dict[str, list[StoredRun]] = {}
        for run in evaluations:
            found.setdefault(run.configuration, []).append(run)
        used = {c: listed(run.id for run in _by_seed(runs).values()) for c, runs in found.items()}
        models = {run.tag("model_run_id") for run in evaluations}
        compared = {r.configuration for r in evaluations if r.tag("base_run_id") in models}
        short = {r.configuration for r in self._read("summary") if "trained" not in r.metrics}
        other = {c for c, text in self._summarized.items() if c in used and used[c] != text}
        return other | (short & compared)

    def _read(self, stage: str) -> list[StoredRun]:
        runs = read_runs(self._store, self._scheduler.graph, (stage,), KEYS[:-1])
        return [run for run in runs if run.status == "FINISHED"]

    def _write(self, settings: Settings, configuration: str, ids: set[str]) -> None:
        # No study's child: MLflow's table shows a child only when its parent is unfolded.
        tags = settings.labels | {"configuration": configuration}
        facts = {key: value for key, value in settings.as_dict().items() if key != "seed"}
        title = f"{settings.short_name} summary over seeds"
        fingerprint = ["summary", configuration]
        spec = RunSpec("summary", title, digest(fingerprint), tags, facts, repeatable=True)
        for _ in range(SUMMARY_ATTEMPTS):
            try:
                with self._store.run(spec) as run:
                    self._fill(run, configuration, ids)
                return
            except TakenError:  # another driver is writing it, perhaps without our evaluations
                time.sleep(SUMMARY_SECONDS)
        print(f"{spec.name}: left as it is, another process is writing it")

    def _fill(self, run: OpenRun, configuration: str, ids: set[str]) -> None:
        """Write metrics and tags. The search comes after the claim, so that it is up to date."""
        found = self._store.find(stage="evaluate", configuration=configuration)
        others = ids - {evaluation.id for evaluation in found}
        found += map(self._store.get, sorted(others))
        evaluations = _by_seed(found)
        run.replace_metrics(over_seeds([e.metrics for e in evaluations.values()]))
        run.replace_metrics(self._headlines(evaluations.values()))
        used = listed(evaluation.id for evaluation in evaluations.values())
        run.inputs("summary", [], [evaluation.model_id for evaluation in evaluations.values()])
        run.tags({"worldrep.evaluations": used, "worldrep.seed": listed(evaluations)})
        self._summarized[configuration] = used

    def _headlines(self, evaluations: Iterable[StoredRun]) -> dict[str, float]:
        """Return means over seeds under short names, the columns that one sees first in MLflow.

        They are the mean score of each task on Atlantis, and `headlines` of a fine-tuned model
        whose bases are evaluated.
        """
        found: dict[str, list[float]] = {}
        for evaluation in evaluations:
            facts = {task: evaluation.metrics.get(f"atlantis/{task}/mean") for task in TASK_NAMES}
            if base_run := evaluation.tag("base_run_id"):
                bases = self._store.find(stage="evaluate", model_run_id=base_run, checkpoints=LAST)
                for base in [run for run in bases if run.status == "FINISHED"][:1]:
                    tasks = evaluation.tag("tasks").split(",")
                    facts |= headlines(evaluation.metrics, base.metrics, tasks)
            for name, value in facts.items():
                if value is not None:
                    found.setdefault(name, []).append(value)
        n = max(map(len, found.values()), default=0)  # a mean over fewer seeds is left out
        return {name: fmean(values) for name, values in found.items() if len(values) == n}


def _by_seed(evaluations: Iterable[StoredRun]) -> dict[int, StoredRun]:
    """Return the newest finished evaluation of each seed."""
    finished = [run for run in evaluations if run.status == "FINISHED"]
    in_order = sorted(finished, key=lambda run: run.ended)
    newest = {run.seed: run for run in in_order if run.seed is not None}
    return dict(sorted(newest.items()))


def over_seeds(evaluations: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return `<metric>/<fact>_over_seeds` of the evaluations, one per seed, that have a metric."""
    values: dict[str, list[float]] = {}
    for metrics in evaluations:
        for name, value in metrics.items():
            if name != SHARE:
                values.setdefault(name, []).append(value)
    return {
        f"{name}/{fact}_over_seeds": float(number)
        for name, found in sorted(values.items())
        for fact, number in asdict(spread_of(found)).items()
    }
