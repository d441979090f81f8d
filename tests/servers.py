"""A PostgreSQL cluster and an MLflow server for tests and benchmarks, started and ended here."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS, STOP_SECONDS = 120, 30
UNPRIVILEGED = "nobody"


@contextmanager
def mlflow_server(backend_uri: str, folder: Path) -> Iterator[str]:
    """Run `mlflow server`, with artifacts and log in a folder; yield its address.

    Raises RuntimeError if it does not start.
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
            raise RuntimeError(f"the server of {log} did not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)


def _is_healthy(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URI of a new PostgreSQL cluster, which ends with the block.

    folder: an empty one for the cluster's files, removed at the end. PostgreSQL refuses to run as
    root; tests that do hand the folder over to another user, so that user must be able to reach it.
    Raises RuntimeError when PostgreSQL is not installed or does not start.
    """
    try:
        port, password, log = free_port(), secrets.token_hex(16), folder / "log"
        make, serve = cluster_commands(folder, port, password)
        account = unprivileged_account(folder)
        with log.open("wb") as out:
            options = dict(stdout=out, stderr=out, cwd=folder, start_new_session=True) | account
            if subprocess.run(make, **options).returncode:
                raise RuntimeError(f"initdb failed: {log.read_text()}")
            process = subprocess.Popen(serve, **options)
        try:
            uri = f"postgresql://worldrep:{password}@127.0.0.1:{port}/postgres"
            wait_for(process, log, lambda: accepts_connections(uri))
            yield uri.replace("postgresql:", "postgresql+psycopg2:")
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: connections are cut off
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()  # nothing, once it has ended
    finally:
        shutil.rmtree(folder)


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs: Debian does not put it on PATH."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name)
    )
    for folder in (*map(Path, os.get_exec_path()), *reversed(debian)):
        if all(shutil.which(name, path=str(folder)) for name in ("initdb", "postgres")):
            return folder
    raise RuntimeError(
        "this test starts a PostgreSQL cluster of its own, and found neither initdb nor postgres: "
        "run `apt-get install postgresql`, or put the folder of both on PATH"
    )


def cluster_commands(folder: Path, port: int, password: str) -> tuple[list[str], list[str]]:
    """The commands that make a cluster in a folder and that serve it."""
    programs, secret, data = postgres_programs(), folder / "password", str(folder / "data")
    secret.write_text(password)
    # fmt: off
    make = [
        str(programs / "initdb"), "--pgdata", data, "--username", "worldrep", "--pwfile",
        str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
    ]
    serve = [
        str(programs / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port),
        "-k", str(folder), "-c", "fsync=off",  # nothing here has to outlive the machine
    ]
    # fmt: on
    return make, serve


def unprivileged_account(folder: Path) -> dict[str, object]:
    """What `subprocess` needs to run a program as nobody in a folder, which becomes nobody's.

    Nothing unless we are root.
    """
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(UNPRIVILEGED)
    for path in (folder, *folder.iterdir()):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def accepts_connections(uri: str) -> bool:
    import psycopg2

    with suppress(psycopg2.OperationalError):
        psycopg2.connect(uri, connect_timeout=5).close()
        return True
    return False
