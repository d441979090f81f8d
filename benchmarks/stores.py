"""Empty MLflow stores for benchmarks and tests: copies of a SQLite file, and a server."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 120, 30


def make_database(path: Path) -> Path:
    """Make a SQLite file with MLflow's tables, which takes seconds; copy it to get more."""
    import worldrep.tracking  # noqa: F401  configures MLflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def copied(database: Path, folder: Path) -> str:
    """Copy an empty database into a folder, unless there is one, and return its URI."""
    path = folder / "mlflow.db"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        shutil.copy(database, path)
    return f"sqlite:///{path}"


@contextmanager
def working_in(folder: Path, uri: str, experiment: str = "worldrep") -> Iterator[None]:
    """Work in a folder and a store, with child processes that import this source tree."""
    environment = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "WORLDREP_CACHE": str(folder / "cache"),
    }
    with patch.dict(os.environ, environment), chdir(folder):
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        yield


@contextmanager
def mlflow_server(backend_uri: str, folder: Path) -> Iterator[str]:
    """Run `mlflow server`, with artifacts and log in a folder; yield its address.

    Raises:
        RuntimeError: It does not start.
    """
    port, log = free_port(), folder / "server.log"
    # fmt: off
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend_uri,
        "--artifacts-destination", str(folder / "artifacts"), "--workers", "1",
        "--host", "127.0.0.1", "--port", str(port),
    ]
    # fmt: on
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=out, stderr=out, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(process, log, lambda: _is_healthy(address))
        yield address
    finally:
        _stop_group(process)


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
            raise RuntimeError(f"the server of {log} did not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)


def _is_healthy(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
