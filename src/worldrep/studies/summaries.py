"""One summary run per model with its evaluation over seeds, for MLflow's own table.

It holds, for every metric of the evaluations, `<metric>/mean_over_seeds`, `std_`, `n_`, `low_` and
`high_over_seeds` (the 95% interval). It counts all finished evaluations that differ in the seed
alone, of any study.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from worldrep.digests import digest
from worldrep.settings import Settings
from worldrep.studies.graph import Step
from worldrep.studies.scheduler import Scheduler
from worldrep.studies.states import DONE, KEYS, read_runs
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun, TakenError

ATTEMPTS, WAIT_SECONDS = 10, 0.5
FACTS = ("mean", "std", "n", "low", "high")


class Summaries:
    """Keeps the summary runs of a study's models up to date."""

    def __init__(self, store: Store, scheduler: Scheduler) -> None:
        self._store, self._scheduler = store, scheduler
        self._evaluations: dict[str, list[Step]] = {}  # by configuration
        for step in scheduler.graph.steps.values():
            if step.kind == "evaluate":
                self._evaluations.setdefault(step.configuration, []).append(step)
        self._known: dict[str, set[str]] | None = None

    def update(self, configurations: Iterable[str]) -> None:
        """Write the summaries of those models that are evaluated for every seed of the study."""
        for configuration in configurations:
            steps = self._evaluations.get(configuration, [])
            ids = self._run_ids(steps)
            if steps and len(ids) == len(steps) and not ids <= self._summarized(configuration):
                self._write(steps[0].settings, configuration, ids)

    def update_all(self, known: str) -> str:
        """Update every model of the study; return a digest of the evaluations.

        known: the digest of the last update. Reading all summaries takes a second, so nothing is
        read when no evaluation has changed.
        """
        steps = [step for group in self._evaluations.values() for step in group]
        found = digest(sorted(self._run_ids(steps)))
        if found != known:
            self.update(self._evaluations)
        return found

    def _run_ids(self, steps: Iterable[Step]) -> set[str]:
        """Return the runs of those steps that are done."""
        state, run_ids = self._scheduler.state, self._scheduler.run_ids
        return {run_ids[s.fingerprint] for s in steps if state[s.fingerprint] == DONE}

    def _summarized(self, configuration: str) -> set[str]:
        """Return the evaluations in the model's summary; empty if it has none."""
        if self._known is None:
            runs = read_runs(self._store, self._scheduler.graph, ("summary",), KEYS[:-1])
            self._known = {
                run.tag("configuration"): set(run.tag("evaluations").split(","))
                for run in reversed(runs)
                if run.status == "FINISHED"
            }
        return self._known.get(configuration, set())

    def _write(self, settings: Settings, configuration: str, ids: set[str]) -> None:
        spec = summary_spec(settings, configuration)
        for _ in range(ATTEMPTS):
            try:
                with self._store.run(spec) as run:
                    self._fill(run, configuration, ids)
                return
            except TakenError:  # another driver is writing it, perhaps without our evaluations
                time.sleep(WAIT_SECONDS)
        print(f"{spec.name}: left as it is, another process is writing it")

    def _fill(self, run: OpenRun, configuration: str, ids: set[str]) -> None:
        """Write metrics and tags. The search comes after the claim, so that it is up to date."""
        found = self._store.find(stage="evaluate", configuration=configuration)
        others = ids - {evaluation.id for evaluation in found}
        evaluations = newest_by_seed([*found, *map(self._store.get, sorted(others))])
        run.replace_metrics(over_seeds([e.metrics for e in evaluations.values()]))
        used = [evaluation.id for evaluation in evaluations.values()]
        seeds = ",".join(map(str, evaluations))
        run.tags({"worldrep.evaluations": ",".join(used), "worldrep.seed": seeds})
        assert self._known is not None
        self._known[configuration] = set(used)


def newest_by_seed(runs: Iterable[StoredRun]) -> dict[int, StoredRun]:
    """Return the newest finished evaluation of every seed, seeds ascending."""
    finished = [run for run in runs if run.status == "FINISHED"]
    found = {int(run.tag("seed")): run for run in sorted(finished, key=lambda run: run.ended)}
    return dict(sorted(found.items()))


def over_seeds(evaluations: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return `<metric>/<fact>_over_seeds` from the metrics of one evaluation per seed.

    n is the number of evaluations that have the metric.
    """
    from worldrep.evaluation.improvement import spread_of

    values: dict[str, list[float]] = {}
    for metrics in evaluations:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {
        f"{name}/{fact}_over_seeds": float(getattr(spread_of(found), fact))
        for name, found in sorted(values.items())
        for fact in FACTS
    }


def summary_spec(settings: Settings, configuration: str) -> RunSpec:
    """Return the spec of a model's summary run.

    It is one for all seeds and studies, and no study's child: MLflow's table shows a child only
    when its parent is unfolded.
    """
    tags = settings.labels | {"configuration": configuration}
    facts = {key: value for key, value in settings.as_dict().items() if key != "seed"}
    fingerprint = digest(["summary", configuration])
    title = f"summary {settings.model_name} over seeds"
    return RunSpec("summary", title, fingerprint, tags, facts, repeatable=True)
