"""What a study costs besides its steps, with one worker and with two, at growing sizes.

The steps are simulated: they log what real ones log and compute nothing, so the store and the
driver are measured. The steps of one model are also run as a shell loop would, one process each.

    python -m benchmarks.study --models 660 --workers 1
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.report import Results, benchmark, table
from benchmarks.simulated import PERFORM, large_study
from benchmarks.stores import copied, make_database, working_in
from benchmarks.timing import timed
from worldrep.executors import ExecutorOptions
from worldrep.studies.driver import run_study
from worldrep.studies.report import Overview
from worldrep.tracking import Store, StoredRun

STEP = """
import sys
from benchmarks.simulated import large_study, perform
from worldrep.executors import Job
from worldrep.tracking import Store
store, step = Store.connect(), large_study(1, 1).steps[sys.argv[1]]
model = store.finished(step.needs).id if step.needs else ""
job = Job(step.kind, step.settings, step.title, step.fingerprint, model, "")
perform(store, job, lambda progress: None)
"""


@benchmark
def main(models: tuple[int, ...] = (16, 48, 144), workers: tuple[int, ...] = (1, 2)) -> Results:
    """Run simulated studies of several sizes, look at them and resume them."""
    cases = []
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        database = make_database(Path(folder) / "empty.db")
        for size in sorted(models):
            with new_store(database, f"{size}-processes"):
                plain = measure_processes()
            for count in workers:
                with new_store(database, f"{size}-{count}"):
                    cases.append(measure(size, count) | {"seconds_per_process": plain})
    return {"cases": cases}, tables(cases)


@contextmanager
def new_store(database: Path, name: str) -> Iterator[None]:
    """Work in a folder with an empty store, without output."""
    folder = database.parent / name
    with working_in(folder, copied(database, folder)), redirect_stdout(StringIO()):
        yield


def measure(models: int, workers: int) -> dict[str, Any]:
    """Run, look at and resume a study; return the seconds of each."""
    kind, store = "inline" if workers == 1 else "processes", Store.connect()
    choice = ExecutorOptions(kind, workers, cpus=int(workers > 1), perform=PERFORM)
    expand, graph = timed(lambda: large_study(models))
    whole, result = timed(lambda: run_study(store, graph, choice))
    result.check()
    status, _ = timed(lambda: Overview.read(store, graph).status_text())
    resume, _ = timed(lambda: run_study(store, graph, ExecutorOptions(perform=PERFORM)))
    ended = [run for run in store.find() if run.tag("stage") not in ("study", "summary")]
    fingerprints = [run.fingerprint for run in ended]
    assert sorted(fingerprints) == sorted(graph.steps), "a step was done twice or not at all"
    facts = {"models": models, "steps": len(ended), "workers": workers, "seconds": whole}
    facts |= {"expand_seconds": expand, "status_seconds": status, "resume_seconds": resume}
    return facts | per_step(ended, workers, whole)


def per_step(runs: Sequence[StoredRun], workers: int, whole: float) -> dict[str, float]:
    """Return the seconds of the average step, and those between the runs of a worker.

    The time before the first run and after the last one, when workers start and end, is apart.
    """
    working = max(run.ended for run in runs) - min(run.started for run in runs)
    own = sum(run.ended - run.started for run in runs)
    return {
        "seconds_around": whole - working,
        "seconds_per_step": whole / len(runs),
        "seconds_per_step_outside_runs": (workers * working - own) / len(runs),
    }


def measure_processes() -> float:
    """Return the seconds of the average step of a model in a process of its own."""
    steps = large_study(1, 1).steps
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    return mean(timed(partial(run, [sys.executable, "-c", STEP, f]))[0] for f in steps)


def tables(cases: Sequence[dict[str, Any]]) -> list[str]:
    """Format studies by size and workers, and what was done afterwards."""
    steps = {
        "models": "models",
        "steps": "steps",
        "workers": "workers",
        "before and after, s": "seconds_around",
        "whole, s": "seconds",
        "a step, ms": lambda case: 1e3 * case["seconds_per_step"],
        "outside its run, ms": lambda case: 1e3 * case["seconds_per_step_outside_runs"],
        "a process for a step, ms": lambda case: 1e3 * case["seconds_per_process"],
        "ratio": lambda case: case["seconds_per_process"] / case["seconds_per_step"],
    }
    keys = {"expand, s": "expand_seconds", "status, s": "status_seconds"}
    afterwards = {"models": "models", **keys, "resume, s": "resume_seconds"}
    once = [case for case in cases if case["workers"] == cases[0]["workers"]]
    return [
        table(cases, steps, "Simulated studies, and a process for each step instead:"),
        table(once, afterwards, "Afterwards:"),
    ]


if __name__ == "__main__":
    main()
