"""What a study costs beyond its steps, with one worker and with two, at growing sizes.

The steps are simulated: they log what real ones log and compute nothing, so what is measured is the
store and the driver. In turn with each size, the steps of one model are run as a loop of a shell
does it, in a process each that logs the same with MLflow alone (`benchmarks.plain_steps`).

With `--part`, status, plan and resuming are also timed as a user meets them: the command in a
process of its own, imports included, for a part of the models in a store that holds all.

    python -m benchmarks.study --models 660 --workers 1 --part 180
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import click

from benchmarks.plain_steps import seconds_of, write_steps
from benchmarks.report import Table, ratio, write
from benchmarks.rows import whole_numbers
from benchmarks.stores import copied, make_database, working_in
from benchmarks.turns import timed
from worldrep.errors import one_sentence

if TYPE_CHECKING:
    from worldrep.tracking import StoredRun

PERFORM = "benchmarks.simulated:perform"
ACTIONS = ("plan", "status", "run")
TIMES = 3  # that a command is called; the quickest counts


@click.command()
@click.option("--models", default="16,48,144", show_default=True, help="Models of each study.")
@click.option("--workers", default="1,2", show_default=True, help="Processes at once; 1: inline.")
@click.option("--part", default=0, show_default=True, help="Models whose status is asked for.")
@click.option("--uri", default="", help="MLflow store; default: a new SQLite file for each study.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(models: str, workers: str, part: int, uri: str, out: str) -> None:
    """Run simulated studies of several sizes, look at them and resume them."""
    sizes = sorted(whole_numbers(models))
    counts = whole_numbers(workers)
    cases, commands = [], {}
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        database = make_database(Path(folder) / "empty.db")
        for size in sizes:
            plain = measure_plain(Path(folder) / f"plain-{size}", database)
            for count in counts:
                with workplace(database, uri, size, count):
                    cases.append(measure(size, count) | {"plain": plain})
        if part:
            with workplace(database, uri, sizes[-1], counts[-1]):
                commands = time_commands(part)
    numbers = {"store": uri.split(":")[0] or "sqlite", "cases": cases, "commands": commands}
    write("study", numbers, tables(cases, commands), out)


@contextmanager
def workplace(database: Path, uri: str, models: int, workers: int) -> Iterator[None]:
    """The folder and the store of one study, which says nothing meanwhile."""
    folder = database.parent / f"{models}-{workers}"
    own = copied(database, folder)
    experiment = f"{database.parent.name}-{folder.name}"  # in a store that all studies share
    with working_in(folder, uri or own, experiment), redirect_stdout(StringIO()):
        yield


def measure(models: int, workers: int) -> dict[str, Any]:
    """Seconds of each part of a study's life, and of the average step."""
    from benchmarks.simulated import large_study
    from worldrep.executors import ExecutorOptions
    from worldrep.studies.driver import run_study
    from worldrep.studies.report import Overview
    from worldrep.tracking import Store

    kind, store, seconds = "inline" if workers == 1 else "processes", Store.connect(), {}
    choice = ExecutorOptions(kind, workers, cpus=int(workers > 1), perform=PERFORM)
    seconds["expand"], graph = timed(lambda: large_study(models))
    seconds["run"], result = timed(lambda: run_study(store, graph, choice))
    result.check()
    seconds["status"], _ = timed(lambda: Overview.read(store, graph).status_text())
    seconds["resume"], _ = timed(lambda: run_study(store, graph, ExecutorOptions(perform=PERFORM)))
    ended = [run for run in store.find() if run.tag("stage") not in ("study", "summary")]
    fingerprints = [run.fingerprint for run in ended]
    assert sorted(fingerprints) == sorted(graph.steps), "a step was done twice or not at all"
    facts = {"models": models, "steps": len(ended), "workers": workers, "seconds": seconds}
    return facts | per_step(ended, workers, seconds["run"])


def per_step(runs: Sequence[StoredRun], workers: int, whole: float) -> dict[str, float]:
    """Seconds of the average step, and of these what passes outside its run.

    Outside is what workers do between their runs: the next step is found, the driver keeps its
    books and summaries. The time before the first run and after the last one, in which workers are
    started and ended, is apart.
    """
    working = max(run.ended for run in runs) - min(run.started for run in runs)
    own = sum(run.ended - run.started for run in runs)
    return {
        "seconds_around": whole - working,
        "seconds_per_step": whole / len(runs),
        "seconds_per_step_outside_runs": (workers * working - own) / len(runs),
    }


def measure_plain(folder: Path, database: Path) -> dict[str, float]:
    """Seconds of the average step of a model in a process of its own, in and outside its run."""
    from benchmarks.simulated import large_study
    from worldrep.tracking import Store

    (settings,) = large_study(1, 1).by_model()
    steps = write_steps(settings, folder / "steps")
    with working_in(folder, copied(database, folder)):
        whole = mean(seconds_of(step) for step in steps)
        runs = Store.connect("plain", create=False).find()
    own = mean(run.ended - run.started for run in runs)
    return {"seconds_per_step": whole, "seconds_per_step_outside_runs": whole - own}


def time_commands(models: int) -> dict[str, float]:
    """Seconds of the commands for the first models of the large study, best of three."""
    from benchmarks.simulated import large_study

    definition = large_study(models).definition
    content = {"models": list(definition.models), "seeds": list(definition.seeds)}
    Path("part.yaml").write_text(json.dumps(content | {"scale": definition.scale}))
    command = [sys.executable, "-m", "entrypoints.study", "--name", "part.yaml", "--action"]
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    return {
        action: min(timed(partial(run, [*command, action]))[0] for _ in range(TIMES))
        for action in ACTIONS
    }


def tables(cases: Sequence[Mapping[str, Any]], commands: Mapping[str, float]) -> list[Table]:
    """Studies by size and workers; what was done with them afterwards; the commands."""
    steps = [
        (
            case["models"],
            case["steps"],
            case["workers"],
            case["seconds_around"],
            case["seconds"]["run"],
            1e3 * case["seconds_per_step"],
            1e3 * case["seconds_per_step_outside_runs"],
            1e3 * case["plain"]["seconds_per_step"],
            ratio(case["plain"]["seconds_per_step"] / case["seconds_per_step"]),
        )
        for case in cases
    ]
    lives = [
        (case["models"], *(case["seconds"][key] for key in ("expand", "status", "resume")))
        for case in cases
        if case["workers"] == cases[0]["workers"]
    ]
    head = (
        "models",
        "steps",
        "workers",
        "before and after, s",
        "whole, s",
        "a step, ms",
        "outside its run, ms",
        "a process for a step, ms",
        "ratio",
    )
    found = [
        Table(head, steps, "Simulated studies, and a process for each step instead:"),
        Table(("models", "expand, s", "status, s", "resume, s"), lives, "Afterwards:"),
    ]
    if commands:
        found.append(Table(("command", "seconds"), list(commands.items()), "With imports:"))
    return found


if __name__ == "__main__":
    main()
