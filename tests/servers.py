"""A PostgreSQL cluster for tests, started and ended here."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.stores import free_port, wait_for

STOP_SECONDS = 30
UNPRIVILEGED = "nobody"
READS_ALL = "+dac_read_search"  # a capability


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


def unprivileged_prefix(folder: Path) -> list[str]:
    """The beginning of a command that nobody runs, as `unprivileged_account` does for others.

    For Python: its interpreter may lie in a folder of root's, so that nobody may read all files.
    """
    account = unprivileged_account(folder)
    if not account:
        return []
    user = [f"--reuid={account['user']}", f"--regid={account['group']}", "--clear-groups"]
    return ["setpriv", *user, f"--inh-caps={READS_ALL}", f"--ambient-caps={READS_ALL}"]


def accepts_connections(uri: str) -> bool:
    import psycopg2

    with suppress(psycopg2.OperationalError):
        psycopg2.connect(uri, connect_timeout=5).close()
        return True
    return False
