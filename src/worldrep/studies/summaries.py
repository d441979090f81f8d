"""One run per model that holds its evaluation over seeds, so that MLflow's own table compares them.

For every metric of the evaluations: `<metric>/mean_over_seeds`, `std_`, `n_`, `low_` and
`high_over_seeds` (the 95% interval). All finished evaluations that differ in the seed alone count,
whichever study they were made for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from worldrep.digests import digest
from worldrep.settings import Settings
from worldrep.studies.graph import Graph, Step
from worldrep.studies.states import DONE, KEYS, read_runs
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun, TakenError

ATTEMPTS, WAIT_SECONDS = 10, 0.5
FACTS = ("mean", "std", "n", "low", "high")


class Summaries:
    """Keeps the summary runs of a study's models up to date."""

    def __init__(self, store: Store, graph: Graph) -> None:
        self._store, self._graph = store, graph
        self._groups: dict[str, list[Step]] = {}
        for step in graph.steps.values():
            if step.kind == "evaluate":
                self._groups.setdefault(step.configuration, []).append(step)
        self._known: dict[str, set[str]] | None = None

    def update(
        self, state: Mapping[str, str], run_ids: Mapping[str, str], configurations: Iterable[str]
    ) -> None:
        """Write the summaries of these models whose every seed in the study is evaluated."""
        for configuration in configurations:
            steps = self._groups.get(configuration, [])
            if steps and all(state[step.fingerprint] == DONE for step in steps):
                ids = {run_ids[step.fingerprint] for step in steps}
                if not ids <= self._summarized(configuration):
                    self._write(steps[0].settings, configuration, ids)

    def update_all(self, state: Mapping[str, str], run_ids: Mapping[str, str], known: str) -> str:
        """The same for every model of the study; a digest of the evaluations that there are.

        known: that digest when it was last done. Reading all summaries takes a second, so nothing
        is read when no evaluation has changed.
        """
        steps = [step for group in self._groups.values() for step in group]
        done = [step.fingerprint for step in steps if state[step.fingerprint] == DONE]
        found = digest(sorted(run_ids[fingerprint] for fingerprint in done))
        if found != known:
            self.update(state, run_ids, self._groups)
        return found

    def _summarized(self, configuration: str) -> set[str]:
        """Evaluations that the model's summary is made of; empty if it has none."""
        if self._known is None:
            runs = read_runs(self._store, self._graph, ("summary",), KEYS[:-1])
            finished = [run for run in runs if run.status == "FINISHED"]
            self._known = {
                run.tag("configuration"): set(run.tag("evaluations").split(","))
                for run in reversed(finished)
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
        """Search while the run is ours, so that no older search is written after this one."""
        found = self._store.find(stage="evaluate", configuration=configuration)
        others = ids - {evaluation.id for evaluation in found}
        evaluations = newest_by_seed([*found, *map(self._store.get, sorted(others))])
        run.replace_metrics(over_seeds([e.metrics for e in evaluations.values()]))
        used = [evaluation.id for evaluation in evaluations.values()]
        run.tags(
            {
                "worldrep.evaluations": ",".join(used),
                "worldrep.seed": ",".join(map(str, evaluations)),
            }
        )
        assert self._known is not None
        self._known[configuration] = set(used)


def newest_by_seed(runs: Iterable[StoredRun]) -> dict[int, StoredRun]:
    """The newest finished evaluation of every seed, seeds ascending."""
    finished = [run for run in runs if run.status == "FINISHED"]
    found = {int(run.tag("seed")): run for run in sorted(finished, key=lambda run: run.ended)}
    return dict(sorted(found.items()))


def over_seeds(evaluations: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """`<metric>/<fact>_over_seeds` from the metrics of one evaluation per seed.

    n is the number of evaluations that have the metric.
    """
    from worldrep.evaluation.improvement import (
        spread_of,  # imports scipy, which a look at a finished study spares
    )

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
    """The summary run of a model: one for all seeds and studies, so below none of these.

    (MLflow's table shows a child only when its parent is unfolded.)
    """
    tags = settings.labels | {"configuration": configuration}
    facts = {key: value for key, value in settings.as_dict().items() if key != "seed"}
    fingerprint = digest(["summary", configuration])
    title = f"summary {settings.model_name} over seeds"
    return RunSpec("summary", title, fingerprint, tags, facts, repeatable=True)
