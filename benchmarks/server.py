"""An MLflow server on this machine, started and ended here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 120
STOP_SECONDS = 30


@contextmanager
def mlflow_server(backend_uri: str, folder: Path) -> Iterator[str]:
    """The address of a new `mlflow server`, which ends with the block.

    folder: where it keeps artifacts and its log. Raises RuntimeError when it does not start.
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
        wait_for(process, log, lambda: is_healthy(address))
        yield address
    finally:
        stop_group(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(process: subprocess.Popen, log: Path, ready: Callable[[], bool]) -> None:
    """Return when a server is ready. Raises RuntimeError, with what it said, if that never is."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server of {log} did not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)


def is_healthy(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        return answer.status == 200
    return False


def stop_group(process: subprocess.Popen) -> None:
    """End a process that leads its own group, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
