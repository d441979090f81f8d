"""What the store and the driver of a study cost, at growing sizes; its steps compute nothing."""

import tempfile
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.report import Tables, benchmark, timed
from benchmarks.stores import PERFORM, large_study, working_in
from worldrep.executors import ExecutorOptions
from worldrep.studies.driver import run_study
from worldrep.studies.report import Overview
from worldrep.tracking import Store


@benchmark
def main(models: tuple[int, ...] = (16, 48, 144), workers: tuple[int, ...] = (1, 2)) -> Tables:
    """Run simulated studies of several sizes, look at them and resume them."""
    found = []
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        for size, count in product(sorted(models), workers):
            case = working_in(Path(folder), experiment=f"{size}-{count}")
            with case, redirect_stdout(StringIO()):
                found.append(measure(size, count))
    return {"Simulated studies:": found}


def measure(models: int, workers: int) -> dict[str, Any]:
    """Run, look at and resume a study; return what its steps and the rest took.

    The time before the first run and after the last one, when workers start and end, is apart.
    """
    kind, store = "inline" if workers == 1 else "processes", Store.connect()
    choice = ExecutorOptions(kind, workers, cpus=int(workers > 1), perform=PERFORM)
    expand, graph = timed(lambda: large_study(models))
    whole, result = timed(lambda: run_study(store, graph, choice))
    result.check()
    status, _ = timed(lambda: Overview.read(store, graph).status_text())
    resume, _ = timed(lambda: run_study(store, graph, ExecutorOptions(perform=PERFORM)))
    runs = [run for run in store.find() if run.tag("stage") not in ("study", "summary")]
    fingerprints = [run.fingerprint for run in runs]
    assert sorted(fingerprints) == sorted(graph.steps), "a step was done twice or not at all"
    working = max(run.ended for run in runs) - min(run.started for run in runs)
    own = sum(run.ended - run.started for run in runs)
    return {
        "models": models,
        "steps": len(runs),
        "workers": workers,
        "before and after, s": whole - working,
        "whole, s": whole,
        "a step, ms": 1e3 * whole / len(runs),
        "outside its run, ms": 1e3 * (workers * working - own) / len(runs),
        "expand, s": expand,
        "status, s": status,
        "resume, s": resume,
    }


if __name__ == "__main__":
    main()
