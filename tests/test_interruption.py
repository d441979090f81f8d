"""A command that is stopped in the middle of a query of the store says one sentence."""

import signal
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_stop_in_the_middle_of_a_query_is_one_sentence(tmp_path, number):
    command = [sys.executable, "-c", CUT_OFF, number]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130
    assert done.stderr == "Interrupted: the same command goes on from the last checkpoint.\n"
