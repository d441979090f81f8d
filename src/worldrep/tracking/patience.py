"""A client of MLflow whose calls wait while the store does not answer. Every call goes through it.

A fault that waiting may mend (no connection, no answer in time, HTTP 429 and 5xx, a locked SQLite
file) is waited out for WORLDREP_STORE_PATIENCE seconds; any other one is raised at once.
"""

import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import mlflow.store.db.utils
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils.credentials import read_mlflow_creds
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from tqdm import tqdm
from urllib3.exceptions import HTTPError as UrllibError

from worldrep import errors
from worldrep.errors import StateError, first_line, raise_delayed, shown, was_interrupted
from worldrep.settings import number
from worldrep.text import duration_in_words, line, masked

VARIABLE = "WORLDREP_STORE_PATIENCE"
DEFAULT_SECONDS, MOST_SECONDS = "3600", 10_000_000
CONTACT_SECONDS = 3.0  # for the first contact, which fails when the address is wrong
REPORTED_SECONDS = 3.0  # a shorter outage is not reported
LONGEST_PAUSE = 5.0  # between two attempts
OWNER = "worldrep.owner"  # tag: the first claim on a run, another text for each request

mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # else MLflow repeats a connection for 100 seconds

_AWAY_STATUS = {408, 425, 429} | set(range(500, 600)) - {501, 505}
_AWAY_TYPES = (
    requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError,
    requests.exceptions.ChunkedEncodingError, ConnectionError, TimeoutError,
)  # fmt: skip
_NOT_BY_WAITING = re.compile(r"authentication failed|does not exist|No space left")
# MLflow reports odd statuses, and the errors of downloads, as text alone.
_STATUS = re.compile(r"API request to endpoint \S+ failed with error code (\d+)")
# Another process added the same new tag or data set at once: a repeated call finds it there.
_SAME_ROW = re.compile(
    r'UniqueViolation\) .*"(experiment_tag|tag|dataset)_pk"'
    r"|UNIQUE constraint failed: (experiment_tags|tags|datasets)\."
)
_DOWNLOAD = re.compile(
    r"The following failures(?s:.)*?(failed with (timeout )?exception|Max retries exceeded"
    r"|timed out|Connection (aborted|broken|refused|reset)|\n(408|425|429|5\d\d) )"
)
RIGHTS = {"READ": "read", "EDIT": "write", "MANAGE": "delete"}  # permissions on an experiment
_PURPOSES = {
    "get_experiment_by_name": "to open the experiment",
    "search_runs": "to look for runs",
    "create_run": "to begin a run",
    "log_param": "to claim a run",
    "set_terminated": "to close a run",
}


class AwayError(StateError):
    """The store did not answer for longer than the patience. reason: the last fault."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def patience() -> float:
    """Return for how many seconds an outage is waited out. Raises InputError for a wrong value."""
    return number(VARIABLE, os.environ.get(VARIABLE) or DEFAULT_SECONDS, 0, MOST_SECONDS)


def pauses() -> Iterator[float]:
    """Yield the seconds between attempts: short ones first."""
    pause = 0.25
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


def waiting_helps(fault: BaseException, outer: BaseException | None = None) -> bool:
    """Return whether a fault may go away by itself. outer: one that was being handled before."""
    return any(map(_is_away, _chain(fault, outer)))


def root_reason(fault: BaseException, outer: BaseException | None = None) -> str:
    """Return the root of a fault in a few words, such as `Connection refused`."""
    *_, root = _chain(fault, outer)
    if _DOWNLOAD.match(str(root)):
        return line(masked(str(root).rpartition("Caused by ")[2].strip(" ()\n")), 200)
    return errors.reason_of(root)


def _chain(fault: BaseException, outer: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    link: BaseException | None = fault
    while link is not None and link is not outer and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def _is_away(fault: BaseException) -> bool:
    if isinstance(fault, IntegrityError):
        return bool(_SAME_ROW.search(str(fault)))
    if isinstance(fault, DBAPIError):
        if isinstance(fault.orig, sqlite3.Error):
            return _is_away(fault.orig)
        lost = fault.connection_invalidated or isinstance(fault, OperationalError)
        return lost and not _NOT_BY_WAITING.search(str(fault))
    if isinstance(fault, sqlite3.Error):
        code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    if isinstance(fault, requests.HTTPError):
        return fault.response is not None and fault.response.status_code in _AWAY_STATUS
    if isinstance(fault, MlflowException):
        if status := _STATUS.match(str(fault)):
            return int(status[1]) in _AWAY_STATUS
        return bool(_DOWNLOAD.match(str(fault)) or _SAME_ROW.search(str(fault)))
    if isinstance(fault, requests.exceptions.SSLError):
        return False
    return isinstance(fault, _AWAY_TYPES)


@contextmanager
def own_errors(right: str = "EDIT") -> Iterator[None]:
    """Raise the errors of libraries below MLflow as its own.

    A refusal by its accounts becomes PERMISSION_DENIED with a remedy: to ask for the right, a name
    of MLflow's permissions.
    """
    try:
        yield
    except (MlflowException, requests.RequestException, UrllibError, SQLAlchemyError) as fault:
        if refused := _refusal(str(fault), right):
            raise MlflowException(refused, PERMISSION_DENIED) from fault
        if isinstance(fault, MlflowException):
            raise
        foreign = isinstance(fault, requests.exceptions.JSONDecodeError)
        text = "its answer is not that of an MLflow server" if foreign else first_line(fault)
        raise MlflowException(text) from fault


def _refusal(text: str, right: str) -> str:
    """Return in words what MLflow's accounts refused; nothing for any other error."""
    user = read_mlflow_creds().username
    if re.search(r"\b401\b(?s:.)*You are not authenticated", text):
        return (
            "the server does not accept the account (HTTP 401): set MLFLOW_TRACKING_USERNAME "
            f"({shown(user) if user else 'not set'}) and MLFLOW_TRACKING_PASSWORD"
        )
    if re.search(r"\b403\b(?s:.)*Permission denied", text):
        who = f"the account {shown(user)}" if user else "this account"
        ask = f"ask for {right} permission on the experiment"
        return f"{who} may not {RIGHTS[right]} (HTTP 403): {ask}"
    return ""


def _right_for(method: str) -> str:
    """Return the permission on an experiment that a method of MlflowClient needs."""
    if method.startswith(("get_", "search_", "list_")):
        return "READ"
    return "MANAGE" if method == "delete_run" else "EDIT"


class Client:
    """An MlflowClient whose methods wait for an absent store, and do nothing twice.

    All of its errors are MlflowException, OSError, or AwayError after waiting in vain. Attributes:
        limit: Seconds to wait; None for the patience.
    """

    def __init__(self, uri: str, address: str, limit: float | None = None) -> None:
        self.uri, self.address, self.limit = uri, address, limit
        self._gave_up = False  # until the store answers again, each call is tried once

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self._call, name)

    def once(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method without waiting."""
        with own_errors(_right_for(name)):
            return getattr(self._client, name)(*args, **kwargs)

    def once_with(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of MLflow that takes a client, without waiting."""
        with own_errors():
            return function(self._client, *args)

    def create_run(
        self, experiment_id: str, *, tags: Mapping[str, str] = {}, run_name: str | None = None
    ) -> Run:
        """Create a run. After a lost answer it is searched by its tag OWNER first."""

        def attempt(again: bool) -> Run:
            query = f"tags.`{OWNER}` = '{tags.get(OWNER)}'"
            if again and (found := self.once("search_runs", [experiment_id], query, max_results=1)):
                return found[0]
            return self.once("create_run", experiment_id, tags=tags, run_name=run_name)

        return self.wait(attempt, _PURPOSES["create_run"])

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag, which may be gone after a lost answer."""

        def attempt(again: bool) -> None:
            try:
                self.once("delete_tag", run_id, key)
            except MlflowException as fault:
                if not again or fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise

        self.wait(attempt, "to change a tag")

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        # Repeating these does no harm: the store keeps one of equal tags, params, metrics, files.
        attempt = partial(self.once, name, *args, **kwargs)
        return self.wait(lambda again: attempt(), _PURPOSES.get(name, "for it"))

    def wait(self, attempt: Callable[[bool], Any], purpose: str) -> Any:
        """Return `attempt(again)`, called again while the store is away.

        Raises AwayError when the store has not answered within the limit, the fault itself when
        waiting cannot mend it or the command was interrupted.
        """
        outage, outer = Outage(self.address), sys.exception()
        pause = pauses()
        while True:
            tried = time.monotonic()
            try:
                answer = attempt(outage.began is not None)
            except Exception as fault:
                if not waiting_helps(fault, outer) or was_interrupted(fault):
                    raise
                outage.goes_on(root_reason(fault, outer), tried)
            else:
                self._gave_up = False
                outage.ends()
                return answer
            self.check(outage)
            outage.tell(f"waiting {purpose}, {self.at_most}")
            sleep(next(pause))

    @property
    def at_most(self) -> str:
        return f"at most {duration_in_words(patience())} ({VARIABLE})"

    def check(self, outage: "Outage", since: float = 0.0, limit: float | None = None) -> None:
        """Raise AwayError if an outage lasts too long.

        Args:
            outage: What the caller waits for to end.
            since: When it began to wait, by time.monotonic.
            limit: Seconds instead of those of the client.
        """
        limit = next((x for x in (limit, self.limit) if x is not None), patience())
        waited = time.monotonic() - max(since, outage.began or 0.0)
        if outage.began is None or (waited < limit and not self._gave_up):
            return
        self._gave_up = True
        raise AwayError(
            f"{outage}; waited {duration_in_words(waited)} ({VARIABLE}). Nothing is lost: when it "
            "answers again, the same command sends what was kept and goes on",
            outage.reason,
        )


class Outage:
    """A time without an answer of the store, as one waiting call or one open run sees it."""

    def __init__(self, address: str) -> None:
        self.began: float | None = None  # by time.monotonic
        self.reason, self._address, self.told = "", address, False

    def goes_on(self, reason: str, tried: float) -> None:
        """Note a fault of a request that was made at `tried`."""
        self.began, self.reason = self.began or tried, reason

    def tell(self, what: str) -> None:
        """Say once, in one line, since when the store is away, and what is done about it."""
        if self.began and time.monotonic() - self.began >= REPORTED_SECONDS and not self.told:
            self.told = True
            say(f"{self}: {what}")

    def ends(self) -> None:
        if self.told and self.began is not None:
            lasted = duration_in_words(time.monotonic() - self.began)
            say(f"the MLflow store at {self._address} answers again, after {lasted}")
        self.began, self.told = None, False

    def __str__(self) -> str:
        ago = time.monotonic() - (self.began or time.monotonic())
        since = datetime.fromtimestamp(time.time() - ago).strftime("%H:%M:%S")
        return f"the MLflow store at {self._address} has not answered since {since} ({self.reason})"


def say(line: str) -> None:
    """Print a line to stderr, above progress bars."""
    tqdm.write(line, file=sys.stderr)


def sleep(seconds: float) -> None:
    """Sleep, but not after a Ctrl-C or SIGTERM that was to be delayed."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raise_delayed()
        time.sleep(min(left, 0.25))
