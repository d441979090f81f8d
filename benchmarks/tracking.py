"""The share of training time that MLflow takes at default settings, on SQLite and on a server.

The default pretraining of a scale, shortened, runs as the command does it, in turn with the same
training into a plain folder. The share is the time that the training's thread spends in calls of
`worldrep.tracking` and MLflow; it falls with the length, because curves, validations and
checkpoints are as many in every length. "Longer by" compares whole runs, which is noisier.

    python -m benchmarks.tracking --steps 7000 --rounds 1    # the full length of mini
"""

from __future__ import annotations

import inspect
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from benchmarks.recorder import FolderRecorder
from benchmarks.report import Results, benchmark, percent, table
from benchmarks.stores import copied, make_database, mlflow_server, working_in
from benchmarks.timing import timed
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings

COLUMNS = {
    "store": "store",
    "steps": "steps",
    "rounds": "rounds",
    "seconds": "seconds",
    "of these tracking": "tracking_seconds",
    "share": lambda case: percent(case["tracking_seconds"] / case["seconds"]),
    "without MLflow": "without_seconds",
    "longer by": lambda case: percent(case["seconds"] / case["without_seconds"] - 1),
}


@benchmark
def main(scale: str = "mini", steps: tuple[int, ...] = (200, 400, 800), rounds: int = 1) -> Results:
    """Train with MLflow and without, in turn, at several lengths."""
    cases = []
    with tempfile.TemporaryDirectory(prefix="worldrep-") as name, stores(Path(name)) as uris:
        for length in sorted(steps):
            found = measure(lasting(scale, length), rounds, uris, Path(name))
            cases += [case | {"steps": length} for case in found]
    return {"cases": cases}, [table(cases, COLUMNS)]


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the URIs of an empty SQLite store and of a server on such a file."""
    database = make_database(folder / "empty.db")
    local, served = copied(database, folder / "sqlite"), copied(database, folder / "server")
    with mlflow_server(served, folder / "server") as address:
        yield {"SQLite": local, "server": address}


def lasting(scale: str, steps: int) -> Settings:
    """Return the pretraining of a scale with as many rows as make `steps` steps."""
    usual = resolve(ModelName("pt1"), scale=scale)
    rows = steps * usual.batch_size // (usual.epochs * len(usual.tasks))
    return resolve(ModelName("pt1"), scale=scale, overrides={"pretrain_rows": rows})


def measure(
    settings: Settings, rounds: int, uris: Mapping[str, str], folder: Path
) -> list[dict[str, Any]]:
    """Return for each store the medians over rounds with and without it."""
    turns: dict[str, list[dict[str, float]]] = {store: [] for store in uris}
    for number in range(rounds):
        local = working_in(folder, next(iter(uris.values())))
        with local, tempfile.TemporaryDirectory(dir=folder) as plain:
            without = unrecorded(settings, Path(plain))
        for store, uri in uris.items():
            with working_in(folder, uri):
                turn = recorded(settings, f"{settings.pretrain_rows}-{number}")
            turns[store].append(turn | {"without_seconds": without})
    return [
        {"store": store, "rounds": rounds}
        | {key: median(turn[key] for turn in found) for key in found[0]}
        for store, found in turns.items()
    ]


def unrecorded(settings: Settings, folder: Path) -> float:
    """Return the seconds of the training with its curves and checkpoints in a plain folder."""
    from worldrep.model.qwen2 import build_model, save_model
    from worldrep.stages import TrainingPlan
    from worldrep.stages.train import TrainingData
    from worldrep.training.loop import TrainingInputs, train
    from worldrep.training.state import make_accelerator

    accelerator, plan = make_accelerator(settings), TrainingPlan.of(settings)

    def work() -> None:
        data = TrainingData.load(plan, accelerator)
        inputs = TrainingInputs(build_model(settings), data.rows, settings, accelerator)
        save_model(train(inputs, FolderRecorder(folder), data.validate), folder)

    TrainingData.load(plan, accelerator)  # fills the cache, which the recorded training uses too
    return timed(work)[0]


def recorded(settings: Settings, experiment: str) -> dict[str, float]:
    """Return the seconds of the training by the command, and of these what tracking takes."""
    from mlflow import MlflowClient

    from worldrep.stages import train_model
    from worldrep.tracking import OpenRun, Store

    store = Store.connect(experiment)  # a new one, in which the training is not finished
    with clocked(Store, OpenRun, MlflowClient) as spent:
        seconds, _ = timed(lambda: train_model(store, settings, progress=lambda progress: None))
    return {"seconds": seconds, "tracking_seconds": sum(spent)}


@contextmanager
def clocked(*classes: type) -> Iterator[list[float]]:
    """Collect the seconds of calls of the classes' public methods by this thread.

    A call within a call belongs to the outer one. Context managers are not timed, because the time
    within their block is not theirs; the methods that they call are.
    """
    spent: list[float] = []
    owner, inside = threading.get_ident(), [False]

    def with_clock(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if inside[0] or threading.get_ident() != owner:
                return function(*args, **kwargs)
            inside[0], begun = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inside[0] = False
                spent.append(time.perf_counter() - begun)

        return call

    with ExitStack() as stack:
        for cls in classes:
            for name, function in inspect.getmembers(cls, inspect.isfunction):
                is_block = inspect.isgeneratorfunction(inspect.unwrap(function))
                if name in vars(cls) and not name.startswith("_") and not is_block:
                    stack.enter_context(patch.object(cls, name, with_clock(function)))
        yield spent


if __name__ == "__main__":
    main()
