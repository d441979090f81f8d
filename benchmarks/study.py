"""What a study costs beyond its steps: planning, status, resuming, scheduling, at growing sizes.

The steps are simulated: they log what real ones log and compute nothing. Their own time is that of
the store; `overhead` is what the driver adds to it with one worker.

    python -m benchmarks.study --models 2000 --workers 4
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import click

PERFORM = "benchmarks.simulated:perform"


@click.command()
@click.option("--models", default=180, show_default=True, help="Models of the study.")
@click.option("--workers", default=4, show_default=True, help="Processes at once.")
@click.option("--executor", default="processes", show_default=True, help="inline, processes, ray.")
@click.option("--uri", default="", help="MLflow store; default: a new SQLite file.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(models: int, workers: int, executor: str, uri: str, out: str) -> None:
    """Run a simulated study, then look at it and resume it."""
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        os.environ["MLFLOW_TRACKING_URI"] = uri or f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)
        numbers = measure(models, workers, executor)
    numbers |= {"store": uri.split(":")[0] or "sqlite", "cores": os.cpu_count()}
    click.echo(json.dumps(numbers, indent=1))
    if out:
        Path(out).write_text(json.dumps(numbers, indent=1))


def measure(models: int, workers: int, executor: str) -> dict[str, object]:
    """Seconds of each part, and of the steps themselves."""
    from benchmarks.simulated import large_study
    from worldrep.executors import Choice
    from worldrep.studies.drive import run_study
    from worldrep.studies.report import Overview
    from worldrep.tracking import Store

    seconds: dict[str, float] = {}

    def timed(name, function):
        begun = time.perf_counter()
        result = function()
        seconds[name] = round(time.perf_counter() - begun, 2)
        return result

    graph = timed("expand", lambda: large_study(models))
    store = timed("connect", Store.connect)
    choice = Choice(executor, workers, cpus=1 if executor != "inline" else 0, perform=PERFORM)
    result = timed("run", lambda: run_study(store, graph, choice))
    result.check()
    timed("status", lambda: Overview.read(store, graph).status_text())
    timed("resume", lambda: run_study(store, graph, Choice(perform=PERFORM)))
    ended = [run for run in store.find() if run.tag("stage") not in ("study", "summary")]
    fingerprints = [run.fingerprint for run in ended]
    assert sorted(fingerprints) == sorted(graph.steps), "a step was done twice or not at all"
    own = sum(run.ended - run.started for run in ended)
    facts = {"models": models, "steps": len(graph.steps), "workers": workers, "executor": executor}
    return facts | {"seconds": seconds, "seconds_within_runs": round(own, 1)}


if __name__ == "__main__":
    main()
