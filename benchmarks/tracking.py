"""The share of training time that MLflow takes at default settings, on SQLite and on a server.

The share is the time that the training's thread spends in calls of `worldrep.tracking` and MLflow;
"longer by" compares the whole run with one into a plain folder, which is noisier.

    python -m benchmarks.tracking --steps 7000    # the full length of mini
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient

from benchmarks.report import Rows, Tables, benchmark, timed
from benchmarks.stores import mlflow_server, working_in
from worldrep.model.qwen2 import build_model, save_model
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings
from worldrep.stages import TrainingPlan, train_model
from worldrep.stages.train import TrainingData
from worldrep.tracking import OpenRun, Store
from worldrep.training.loop import TrainingInputs, train
from worldrep.training.state import make_accelerator


@benchmark
def main(scale: str = "mini", steps: tuple[int, ...] = (200, 400, 800)) -> Tables:
    """Train with MLflow and without, at several lengths."""
    with tempfile.TemporaryDirectory(prefix="worldrep-") as name:
        folder = Path(name)
        with mlflow_server(f"sqlite:///{folder}/server.db", folder) as address:
            stores = {"SQLite": f"sqlite:///{folder}/mlflow.db", "server": address}
            lengths = [lasting(scale, length) for length in sorted(steps)]
            rows = [row for settings in lengths for row in measure(settings, stores, folder)]
    return {"Trainings of each length:": rows}


def lasting(scale: str, steps: int) -> Settings:
    """Return the pretraining of a scale with as many rows as make `steps` steps."""
    usual = resolve(ModelName("pt1"), scale=scale)
    rows = steps * usual.batch_size // (usual.epochs * len(usual.tasks))
    return resolve(ModelName("pt1"), scale=scale, overrides={"pretrain_rows": rows})


def measure(settings: Settings, stores: Mapping[str, str], folder: Path) -> Rows:
    """Train without MLflow, and then in each store."""
    rows, experiment = [], f"{settings.pretrain_rows} rows"
    with working_in(folder):
        steps, without = unrecorded(settings, folder / experiment)
    for store, uri in stores.items():
        with working_in(folder, uri, experiment):
            seconds, tracking = recorded(settings)
        row = {"store": store, "steps": steps, "seconds": seconds, "of these tracking": tracking}
        row |= {"share, %": 100 * tracking / seconds, "without MLflow": without}
        rows.append(row | {"longer by, %": 100 * (seconds / without - 1)})
    return rows


def unrecorded(settings: Settings, folder: Path) -> tuple[int, float]:
    """Return the steps and seconds of the training with its checkpoints in a plain folder."""
    accelerator, plan = make_accelerator(settings), TrainingPlan.of(settings)

    def work() -> None:
        data = TrainingData.load(plan, accelerator)
        inputs = TrainingInputs(build_model(settings), data.rows, settings, accelerator)
        save_model(train(inputs, FolderRecorder(folder), data.validate), folder)

    TrainingData.load(plan, accelerator)  # fills the cache, which the recorded training uses too
    return plan.steps, timed(work)[0]


class FolderRecorder:
    """Writes metrics and checkpoints of a training into a new folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to a file."""
        with (self._folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def checkpoint(self, folder: Path) -> None:
        """Copy a checkpoint."""
        shutil.copytree(folder, self._folder / folder.name)


def recorded(settings: Settings) -> tuple[float, float]:
    """Return the seconds of the training by the command, and of these what tracking takes."""
    store = Store.connect()  # a new experiment, in which the training is not finished
    with clocked(Store, OpenRun, MlflowClient) as spent:
        seconds, _ = timed(lambda: train_model(store, settings, progress=lambda progress: None))
    return seconds, sum(spent)


@contextmanager
def clocked(*classes: type) -> Iterator[list[float]]:
    """Collect the seconds of calls of the classes' public methods by this thread.

    A call within a call belongs to the outer one. Context managers are not timed, because the time
    within their block is not theirs; the methods that they call are.
    """
    spent: list[float] = []
    state = threading.local()
    state.timing = True  # in this thread, outside a timed call

    def with_clock(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not getattr(state, "timing", False):
                return function(*args, **kwargs)
            state.timing, begun = False, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                state.timing = True
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
