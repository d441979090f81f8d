"""A polite stop: SIGTERM and Ctrl-C end as KeyboardInterrupt, so that open runs are closed."""

from __future__ import annotations

import logging
import signal


def listen_to_polite_stops() -> None:
    """From here on SIGTERM is treated like Ctrl-C. A Ctrl-C that is ignored or blocked stays so."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(signum: int, frame: object) -> None:
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_IGN)  # once is enough: the run is being closed
    # A query that is cut off loses its connection, and SQLAlchemy logs that with a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt
