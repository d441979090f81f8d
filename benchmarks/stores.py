"""MLflow stores for benchmarks and tests: in a folder, on a server, filled by simulated steps.

A simulated step logs what a real one logs, with made-up numbers.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

from worldrep.data.sets import maker_of, validation_sets
from worldrep.data.tasks import TASKS
from worldrep.digests import random_stream
from worldrep.evaluation.representations import Request, save_representations
from worldrep.executors.jobs import Job
from worldrep.names import FINETUNINGS, PRETRAININGS, TASK_NAMES
from worldrep.progress import Progress, ProgressCallback
from worldrep.settings import Settings
from worldrep.stages.provenance import downstream_tags
from worldrep.studies import Definition, Graph, expand
from worldrep.tracking import CITIES, OpenRun, RunSpec, Store
from worldrep.training.checkpoint import folder_name

ROOT = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 120, 30
PERFORM = "benchmarks.stores:perform"
STEPS, CURVE_POINTS, VALIDATIONS = 20_000, 200, 10


@contextmanager
def working_in(folder: Path, uri: str = "", experiment: str = "worldrep") -> Iterator[None]:
    """Work in a folder, with its own SQLite store or another one, as child processes will."""
    environment = {
        "MLFLOW_TRACKING_URI": uri or f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "WORLDREP_CACHE": str(folder / "cache"),
    }
    with patch.dict(os.environ, environment), chdir(folder):
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        yield


@contextmanager
def mlflow_server(backend_uri: str, folder: Path, port: int = 0) -> Iterator[str]:
    """Run `mlflow server`, with artifacts and log in a folder; yield its address.

    port: where it listens, 0 for any that is free. Raises RuntimeError if it does not start.
    """
    port, log = port or free_port(), folder / "server.log"
    address = f"http://127.0.0.1:{port}"
    # fmt: off
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend_uri,
        "--artifacts-destination", str(folder / "artifacts"), "--workers", "1",
        "--host", "127.0.0.1", "--port", str(port),
    ]
    # fmt: on
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with served(command, address, log, environment):
        yield address


@contextmanager
def served(
    command: list[str], address: str, log: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server of MLflow in the folder of its log, until the block ends.

    Raises RuntimeError if it does not answer at its address.
    """
    with log.open("wb") as out:
        options = {"env": environment, "cwd": log.parent, "stdout": out, "stderr": out}
        process = subprocess.Popen(command, start_new_session=True, **options)

    def is_healthy() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    try:
        wait_for(process, log, is_healthy)
        yield
    finally:  # it leads a group of processes
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    """Wait until a server is ready. Raises RuntimeError with its log when it does not start."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the server of {log} did not start: {log.read_text(encoding='utf-8')[-3000:]}"
            )
        time.sleep(0.1)


def large_study(n_models: int, n_seeds: int = 4) -> Graph:
    """Return a study of `n_models` (a multiple of n_seeds, at most 1,704 per seed) and bases."""
    names = [f"{base}{ft}" for base in PRETRAININGS for ft in ("", *map("_{}".format, FINETUNINGS))]
    seeds, chosen = tuple(range(1, n_seeds + 1)), tuple(names[: n_models // n_seeds])
    return expand(Definition("simulated", chosen, seeds=seeds, scale="smoke"))


def perform(store: Store, job: Job, progress: ProgressCallback) -> str:
    """Log a simulated step and return the id of its run."""
    settings, kind = job.settings, job.kind
    stage = settings.training_stage if kind == "train" else kind
    tags, params = settings.labels | {"seed": str(settings.seed)}, settings.as_dict()
    if kind == "train":
        tags |= {"world_digest": maker_of(settings).world.digest}
        tags |= {"base_run_id": job.model_run} if job.model_run else {}
    else:
        tags |= {"checkpoints": "last"} | downstream_tags(store.get(job.model_run))
    if kind == "extract":
        params |= {f"extract_{k}": v for k, v in Request.parse(settings).as_dict().items()}
    log = {"train": _train, "evaluate": _evaluate, "extract": _extract}[kind]
    with store.run(RunSpec(stage, job.title, job.fingerprint, tags, params, job.parent)) as run:
        progress(Progress(job.title, 0, 1))
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            log(run, settings, Path(folder))
    return run.id


def _train(run: OpenRun, settings: Settings, folder: Path) -> None:
    for step in range(STEPS // CURVE_POINTS, STEPS + 1, STEPS // CURVE_POINTS):
        numbers = {"loss": 3 - 2 * step / STEPS, "lr": 1e-3, "grad_norm": 1, "tokens_per_second": 1}
        run.metrics(step, {f"train/{name}": float(number) for name, number in numbers.items()})
    for step in range(0, STEPS + 1, STEPS // VALIDATIONS):
        for suite in validation_sets(settings):
            split, task = suite.split("/")
            worst, final = 0.1 if TASKS[task].accuracy else 1000.0, score(settings, split, task)
            mean = worst + (final - worst) * step / STEPS
            run.metrics(step, {f"val/{suite}/mean": mean, f"val/{suite}/valid_ratio": 1.0})
    maker_of(settings).world.cities.to_csv(folder / CITIES, index=False)
    run.artifact(folder / CITIES)
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(bytes(4_000))
    run.artifacts(folder / "model", "model")


def _evaluate(run: OpenRun, settings: Settings, folder: Path) -> None:
    for split, task in product(("standard", "atlantis", "multi"), TASK_NAMES):
        mean = score(settings, split, task)
        most = 1.0 if TASKS[task].accuracy else 10 * mean
        facts = {"mean": mean, "median": mean, "std": mean / 2, "min": 0.0, "max": most}
        facts |= {"n": 200, "valid_ratio": 1.0}
        run.metrics(STEPS, {f"{split}/{task}/{fact}": x for fact, x in facts.items()})


def _extract(run: OpenRun, settings: Settings, folder: Path) -> None:
    """Store representations: positions in random directions, and noise."""
    request, world = Request.parse(settings), maker_of(settings).world
    stream = random_stream(settings.seed, "representation", str(settings.model_name))
    place = world.positions / 1800.0 @ stream.normal(size=(2, 2 * settings.hidden_size))
    table = (place + stream.normal(0, 0.1, place.shape)).astype(np.float32)
    manifest = request.as_dict() | {"step": STEPS, "world_digest": world.digest}
    manifest |= {"city_ids": world.cities["city_id"].tolist()}
    save_representations(folder, dict.fromkeys(request.layers, table), manifest)
    run.artifacts(folder, f"representations/{folder_name(STEPS)}")


def score(settings: Settings, split: str, task: str) -> float:
    """Return a made-up mean score of a model in a suite, worst for a base on Atlantis."""
    share = 0.1 if split == "atlantis" else 0.9
    if settings.is_finetuning:
        stream = random_stream(settings.seed, "score", str(settings.model_name), split, task)
        share = stream.uniform(0.2, 0.8)
    return share if TASKS[task].accuracy else 200.0 * (1 - share)
