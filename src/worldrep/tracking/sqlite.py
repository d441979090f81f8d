"""What a SQLite store needs so that many processes of one machine can use it at once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Engine

BUSY_SECONDS = 60  # that a writer waits for another one; the driver's own 5 are short under load


def use_write_ahead_log(uri: str) -> None:
    """Let readers and writers of a SQLite store work side by side; another store is left alone."""
    path = uri.removeprefix("sqlite:///")
    if path != uri and Path(path).is_file():
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
            connection.execute("pragma journal_mode=wal")


@event.listens_for(Engine, "connect")
def _wait_patiently(connection: object, record: object) -> None:
    """Applied to every connection that MLflow opens."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"pragma busy_timeout={BUSY_SECONDS * 1000}")
