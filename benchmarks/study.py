"""What a study costs beyond its steps: planning, status, resuming, scheduling, at growing sizes.

The steps are simulated: they log what real ones log and compute nothing, so what is measured is the
store and the driver. Status, plan and resuming are also timed as a user meets them: the command in
a process of its own, imports included, for a part of the models in a store that holds all.

    python -m benchmarks.study --models 660 --part 180
    python -m benchmarks.study --models 2000 --workers 4
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PERFORM = "benchmarks.simulated:perform"
ROOT = Path(__file__).parents[1]


@click.command()
@click.option("--models", default=180, show_default=True, help="Models of the study.")
@click.option("--part", default=0, show_default=True, help="Models whose status is asked for.")
@click.option("--workers", default=1, show_default=True, help="Processes at once; 1: inline.")
@click.option("--uri", default="", help="MLflow store; default: a new SQLite file.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(models: int, part: int, workers: int, uri: str, out: str) -> None:
    """Run a simulated study, then look at it and resume it."""
    target = Path(out).resolve() if out else None
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        os.environ["MLFLOW_TRACKING_URI"] = uri or f"sqlite:///{folder}/mlflow.db"
        os.environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        os.chdir(folder)
        numbers = measure(models, workers)
        if part:
            numbers["commands"] = time_commands(part)
    numbers |= {"store": uri.split(":")[0] or "sqlite", "cores": os.cpu_count()}
    click.echo(json.dumps(numbers, indent=1))
    if target:
        target.write_text(json.dumps(numbers, indent=1))


def measure(models: int, workers: int) -> dict[str, Any]:
    """Seconds of each part; with one worker also the time per step that is not the step's own."""
    from benchmarks.simulated import large_study
    from worldrep.executors import Choice
    from worldrep.studies.drive import run_study
    from worldrep.studies.report import Overview
    from worldrep.tracking import Store

    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = function()
        seconds[name] = round(time.perf_counter() - begun, 2)
        return result

    kind = "inline" if workers == 1 else "processes"
    graph = timed("expand", lambda: large_study(models))
    store = timed("connect", Store.connect)
    choice = Choice(kind, workers, cpus=int(workers > 1), perform=PERFORM)
    timed("run", lambda: run_study(store, graph, choice)).check()
    timed("status", lambda: Overview.read(store, graph).status_text())
    timed("resume", lambda: run_study(store, graph, Choice(perform=PERFORM)))
    ended = [run for run in store.find() if run.tag("stage") not in ("study", "summary")]
    fingerprints = [run.fingerprint for run in ended]
    assert sorted(fingerprints) == sorted(graph.steps), "a step was done twice or not at all"
    facts = {"models": models, "steps": len(graph.steps), "workers": workers, "seconds": seconds}
    if workers == 1:
        own = sum(run.ended - run.started for run in ended)
        facts["ms_per_step_outside_runs"] = round(1e3 * (seconds["run"] - own) / len(ended), 1)
    return facts


def time_commands(models: int) -> dict[str, float]:
    """Seconds of the commands for the first models of the large study, best of three."""
    from benchmarks.simulated import large_study

    definition = large_study(models).definition
    content = {"models": list(definition.models), "seeds": list(definition.seeds)}
    Path("part.yaml").write_text(json.dumps(content | {"scale": definition.scale}))
    command = [sys.executable, "-m", "entrypoints.study", "--name", "part.yaml", "--action"]
    return {action: min(_seconds([*command, action]) for _ in range(3)) for action in ACTIONS}


ACTIONS = ("plan", "status", "run")


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - begun, 2)


if __name__ == "__main__":
    main()
