"""The share of training time that MLflow takes at default settings, on SQLite and on a server.

The default pretraining of a scale, shortened, is recorded by the very function that the command
calls, in turn with the same training into a plain folder. Two answers: the time that the training's
thread spends in calls of `worldrep.tracking` and of MLflow, from the look for a finished run to the
closing of the new one; and how much longer the whole takes than without. The first is exact on a
noisy machine, the second misses nothing. Curves, validations and checkpoints are as many in every
length, and so the share falls with it, down to that of sending the numbers every few seconds.

    python -m benchmarks.tracking --steps 7000 --rounds 1    # mini's full length

What a process pays once, importing MLflow and connecting, is given apart.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.clock import clocked
from benchmarks.report import Table, percent, write
from benchmarks.rows import whole_numbers
from benchmarks.server import mlflow_server
from benchmarks.stores import copied, make_database, working_in
from worldrep.errors import one_sentence
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

STEPS = 200, 400, 800
OPENING, NUMBERS, CHECKPOINTS, CLOSING = "opening", "numbers", "checkpoints", "closing"
PARTS = {"metrics": NUMBERS, "checkpoint": CHECKPOINTS, "artifacts": CHECKPOINTS, "close": CLOSING}
START = """
import time, worldrep.training.loop
begun = time.perf_counter()
from worldrep.tracking import Store
Store.connect()
print(time.perf_counter() - begun)
"""


@click.command()
@click.option("--scale", default="mini", show_default=True, help="Scale whose pretraining it is.")
@click.option("--steps", default=",".join(map(str, STEPS)), show_default=True, help="Lengths.")
@click.option("--rounds", default=0, help="Times for each; default: the shorter, the more often.")
@click.option("--out", default="", help="JSON file for the numbers.")
@one_sentence
def main(scale: str, steps: str, rounds: int, out: str) -> None:
    """Train with MLflow and without, in turn, at several lengths."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    lengths = sorted(whole_numbers(steps))
    with tempfile.TemporaryDirectory(prefix="worldrep-") as name, stores(Path(name)) as uris:
        folder = Path(name)
        starts = {store: start(folder, uri) for store, uri in uris.items()}
        cases = []
        for length in lengths:
            times = rounds or max(1, lengths[-1] // (2 * length))
            cases += measure(lasting(scale, length), times, uris, folder)
    numbers = {"scale": scale, "start_seconds": starts, "cases": cases}
    write("tracking", numbers, tables(cases, starts), out)


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """An empty SQLite store, and a server that keeps its runs in such a file too."""
    database = make_database(folder / "empty.db")
    local, served = copied(database, folder / "sqlite"), copied(database, folder / "server")
    with mlflow_server(served, folder / "server") as address:
        yield {"SQLite": local, "server": address}


def start(folder: Path, uri: str) -> float:
    """Seconds to import MLflow and to connect, of a new process that has imported the rest."""
    with working_in(folder, uri):
        answer = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True)
    return float(answer.stdout)


def lasting(scale: str, steps: int) -> Settings:
    """The scale's pretraining with as many rows as make that many steps."""
    usual = resolve(ModelName("pt1"), scale=scale)
    rows = steps * usual.batch_size // (usual.epochs * len(usual.tasks))
    return resolve(ModelName("pt1"), scale=scale, overrides={"pretrain_rows": rows})


def measure(
    settings: Settings, rounds: int, uris: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """For each store the medians over rounds that train without MLflow and with every store."""
    turns: dict[str, list[dict[str, Any]]] = {store: [] for store in uris}
    for number in range(rounds):
        with working_in(folder, next(iter(uris.values()))):
            without = unrecorded(settings, folder / f"without-{settings.pretrain_rows}-{number}")
        for store, uri in uris.items():
            with working_in(folder, uri):
                turn = recorded(settings, f"{settings.pretrain_rows}-{number}")
            turn["longer"] = turn["seconds"] / without["seconds"] - 1
            turns[store].append(without | turn | {"without_seconds": without["seconds"]})
    return [{"store": store, "rounds": rounds} | medians(found) for store, found in turns.items()]


def unrecorded(settings: Settings, folder: Path) -> dict[str, float]:
    """Steps and seconds of the training with its curves and checkpoints in a plain folder."""
    from worldrep.model.qwen2 import build_model, save_model
    from worldrep.stages import TrainingPlan
    from worldrep.stages.train import TrainingData
    from worldrep.training.device import make_accelerator
    from worldrep.training.loop import train
    from worldrep.training.progress import FolderRecorder

    accelerator, plan = make_accelerator(settings), TrainingPlan.of(settings)
    TrainingData.load(plan, accelerator)  # from now on the rows are in the cache
    begun = time.perf_counter()
    data = TrainingData.load(plan, accelerator)
    recorder, model = FolderRecorder(folder), build_model(settings)
    save_model(train(model, data.rows, settings, accelerator, recorder, data.validate), folder)
    seconds = time.perf_counter() - begun
    return {
        "steps": plan.steps,
        "seconds": seconds,
    }


def recorded(settings: Settings, experiment: str) -> dict[str, Any]:
    """Seconds of the training as the command does it, and of these what tracking takes."""
    from mlflow import MlflowClient

    from worldrep.stages import train_model
    from worldrep.tracking import OpenRun, Store

    store = Store.connect(experiment)  # a new one: the training is not found finished
    with clocked(Store, OpenRun, MlflowClient) as clock:
        begun = time.perf_counter()
        train_model(store, settings, progress=lambda progress: None)
        seconds = time.perf_counter() - begun
    parts: defaultdict[str, float] = defaultdict(float)
    for name, spent in clock.seconds.items():
        parts[PARTS.get(name, OPENING)] += spent
    facts = {"seconds": seconds, "tracking_seconds": clock.total, "share": clock.total / seconds}
    counts = {"points": clock.calls["metrics"], "checkpoints": settings.n_checkpoints}
    return facts | counts | {f"{part}_seconds": spent for part, spent in parts.items()}


def medians(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of what was measured; what was counted is the same every time."""
    return {
        key: median(turn[key] for turn in turns) if isinstance(value, float) else value
        for key, value in turns[0].items()
    }


def tables(cases: Sequence[Mapping[str, Any]], starts: Mapping[str, float]) -> list[Table]:
    """Shares by length, and what single calls cost at the greatest length."""
    head = ("store", "steps", "rounds", "seconds", "of these tracking", "share", "without MLflow")
    shares = [
        (
            case["store"],
            case["steps"],
            case["rounds"],
            case["seconds"],
            case["tracking_seconds"],
            percent(case["share"]),
            case["without_seconds"],
            percent(case["longer"]),
        )
        for case in cases
    ]
    calls = [
        (
            case["store"],
            starts[case["store"]],
            1e3 * case["opening_seconds"],
            1e3 * case["numbers_seconds"] / case["points"],
            1e3 * case["checkpoints_seconds"] / (case["checkpoints"] + 1),
            1e3 * case["closing_seconds"],
        )
        for case in cases[-len(starts) :]
    ]
    costs = (
        "store",
        "import and connect, s",
        "opening, ms",
        "a point of the curves, ms",
        "a checkpoint or the model, ms",
        "closing, ms",
    )
    return [
        Table((*head, "longer by"), shares, "Training with MLflow, and the same without:"),
        Table(costs, calls, "What single calls cost, at the greatest length:"),
    ]


if __name__ == "__main__":
    main()
