"""A command that is stopped at any moment says one sentence."""

import signal
import subprocess
import sys

import pytest

from worldrep.tracking import Store

CUT_OFF = """
import os, signal, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from worldrep.errors import one_sentence

class Base(DeclarativeBase):
    pass

class City(Base):
    __tablename__ = "city"
    name: Mapped[str] = mapped_column(primary_key=True)

def stop(text):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return text.decode()

@one_sentence
def main():
    engine = create_engine("sqlite:///cities.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(City(name="Nineveh"))
        session.commit()
        session.connection().connection.dbapi_connection.text_factory = stop
        session.query(City).all()

main()
"""

IN_A_DESTRUCTOR = """
import os, signal, sys, time
from worldrep.errors import one_sentence

class City:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(1)

@one_sentence
def main():
    City()
    time.sleep(60)
    raise RuntimeError("not stopped")

main()
"""

WHEN_A_RUN_IS_CREATED = """
import os, signal, sys
from worldrep.errors import one_sentence
from worldrep.tracking import RunSpec, Store

@one_sentence
def main():
    store = Store.connect()
    create = store.client.create_run

    def stopped(*args, **kwargs):
        run = create(*args, **kwargs)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        return run

    store.client.create_run = stopped
    with store.run(RunSpec("pretrain", "pretrain pt1", "f1", {})):
        raise RuntimeError("not stopped")

main()
"""

KILL = "os.kill(os.getpid(), getattr(signal, sys.argv[1]))"
TWICE = WHEN_A_RUN_IS_CREATED.replace(KILL, f"{KILL}; {KILL}")

BEFORE_CLEANING_UP = """
import os, signal, sys, time
from worldrep.errors import one_sentence

@one_sentence
def main():
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(60)
    finally:
        os.rmdir(sys.executable)

main()
"""


# A pool that does not know its thread cannot end it, and the process waits for it at exit.
IN_A_THREAD_POOL = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from worldrep.errors import one_sentence

POOL = ThreadPoolExecutor(1)  # as MLflow keeps one for each store of artifacts

def profile(frame, event, _):
    if event == "call" and frame.f_code is threading.Event.wait.__code__:
        if frame.f_back.f_code is threading.Thread.start.__code__:
            sys.setprofile(None)
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))

@one_sentence
def main():
    sys.setprofile(profile)
    POOL.submit(time.sleep, 0)
    time.sleep(60)

main()
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "code",
    [CUT_OFF, IN_A_DESTRUCTOR, WHEN_A_RUN_IS_CREATED, TWICE, BEFORE_CLEANING_UP, IN_A_THREAD_POOL],
    ids=["query", "destructor", "creation of a run", "twice in it", "cleaning up", "pool"],
)
def test_a_stop_at_an_awkward_moment_is_one_sentence(store_uri, tmp_path, code, number):
    """During a query, in a destructor, while a run is created, before an error in cleaning up."""
    command = [sys.executable, "-c", code, number]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130
    created = code == WHEN_A_RUN_IS_CREATED or (code == TWICE and number == "SIGTERM")
    if code != TWICE or created:
        assert [run.status for run in Store.connect().find()] == ["KILLED"] * created
    assert done.stderr == "Interrupted: the same command begins anew\n"
