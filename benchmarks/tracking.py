"""The share of training time that MLflow takes at default settings, on SQLite and on a server.

The share is the time that the training's thread spends in calls of `worldrep.tracking` and MLflow.
"""

import inspect
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient

from benchmarks.report import Tables, benchmark, timed
from benchmarks.stores import mlflow_server, working_in
from worldrep.data.sets import stack_rows
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import Settings
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.train import train_model
from worldrep.tracking import OpenRun, Store


@benchmark
def main(scale: str = "mini", steps: tuple[int, ...] = (200, 400, 800)) -> Tables:
    """Train at several lengths, in both stores."""
    with (
        tempfile.TemporaryDirectory(prefix="worldrep-") as folder,
        mlflow_server(f"sqlite:///{folder}/server.db", Path(folder)) as address,
    ):
        rows = [
            measure(lasting(scale, length), store, uri, Path(folder))
            for length in sorted(steps)
            for store, uri in (("SQLite", ""), ("server", address))
        ]
    return {"Trainings of growing length:": rows}


def lasting(scale: str, steps: int) -> Settings:
    """Return the pretraining of a scale with as many rows as make `steps` steps."""
    usual = resolve(ModelName("pt1"), scale=scale)
    rows = steps * usual.batch_size // (usual.epochs * len(usual.tasks))
    return resolve(ModelName("pt1"), scale=scale, overrides={"pretrain_rows": rows})


def measure(settings: Settings, store: str, uri: str, folder: Path) -> dict[str, Any]:
    """Train in a new experiment of a store; sum up what tracking takes of the time."""
    plan = TrainingPlan.of(settings)
    with working_in(folder, uri, experiment=f"{settings.pretrain_rows} rows"):
        stack_rows(plan.maker, (*plan.rows, *plan.validation.values()))  # fills the cache
        connected = Store.connect()
        with clocked(Store, OpenRun, MlflowClient) as spent:
            seconds, _ = timed(lambda: train_model(connected, settings, progress=lambda _: None))
    found = {"store": store, "steps": plan.steps, "seconds": seconds}
    return found | {"of these tracking": sum(spent), "share, %": 100 * sum(spent) / seconds}


@contextmanager
def clocked(*classes: type) -> Iterator[list[float]]:
    """Collect the seconds of calls of the classes' public methods by this thread.

    A call within a call belongs to the outer one. Context managers are not timed, because the time
    within their block is not theirs; the methods that they call are.
    """
    spent: list[float] = []
    thread, timing = threading.get_ident(), False

    def with_clock(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal timing
            if timing or threading.get_ident() != thread:
                return function(*args, **kwargs)
            timing, begun = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                timing = False
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
