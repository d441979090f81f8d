"""Optuna's storage of a sweep: a journal file on one machine, a database for a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine, inspect

from worldrep.errors import InputError, StateError, first_line
from worldrep.executors import ExecutorOptions
from worldrep.sweeps.definition import Sweep
from worldrep.tracking import Store, without_user


def default_address(name: str) -> str:
    """Return $WORLDREP_STORAGE, else a journal file in the current folder."""
    if named := os.environ.get("WORLDREP_STORAGE"):
        return named
    return str(Path("sweeps", f"{name}.journal").resolve())


def is_database(address: str) -> bool:
    """Whether an address is a URL; any other one is the path of a journal file."""
    return "://" in address


def open_storage(address: str) -> BaseStorage:
    """Open Optuna's storage; an empty one gets Optuna's tables.

    Raises:
        InputError: The file or database belongs to another program.
        StateError: It cannot be reached or read.
    """
    storage: BaseStorage
    try:
        if is_database(address):
            _check_tables(address)
            storage = RDBStorage(address)
        else:
            _check_journal(Path(address))
            Path(address).parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(address))
        storage.get_all_studies()  # fails here for a damaged file
        return storage
    except InputError:
        raise
    except Exception as fault:  # database drivers raise exceptions of their own
        reason = first_line(fault).replace(address, without_user(address))
        raise StateError(f"cannot use the storage at {without_user(address)}: {reason}") from None


def _check_tables(address: str) -> None:
    """Raise InputError for a database of another program, such as MLflow.

    Both keep their version in a table `alembic_version` and would use the other's.
    """
    engine = create_engine(address)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables and ("studies" not in tables or "experiments" in tables):
        raise InputError(
            f"storage={without_user(address)} is a database that something else uses, such as "
            "MLflow; a sweep needs one of its own"
        )


def _check_journal(path: Path) -> None:
    """Raise InputError for a file that is not Optuna's, which would be appended to."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline()
    try:
        is_journal = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise InputError(f"storage={path} is a file of something else, not a journal of Optuna")


def open_study(storage: BaseStorage, sweep: Sweep) -> optuna.Study:
    """Open Optuna's study of a sweep, and create it if it does not exist.

    Raises:
        InputError: A study of this name has other objectives.
    """
    goals, direction = sweep.objectives, optuna.study.StudyDirection
    directions = [direction.MAXIMIZE if g.higher_is_better else direction.MINIMIZE for g in goals]
    study = optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        directions=directions,
        pruner=sweep.make_pruner(),
        load_if_exists=True,
    )
    if study.directions != directions:  # an empty one, see check_storage
        raise InputError(
            f"the name {sweep.name!r} belongs to a sweep of other objectives: give it another name"
        )
    study.set_metric_names([goal.name for goal in goals])
    return study


def check_storage(store: Store, sweep: Sweep, options: ExecutorOptions, address: str) -> None:
    """Check that name and storage are free for this sweep, before anything of it is written.

    Raises:
        InputError: The name belongs to another sweep, the storage and the MLflow store know
            different trials, or the workers cannot reach the storage.
    """
    if options.executor == "ray" and options.address != "local" and not is_database(address):
        raise InputError(
            f"storage={address} is a file of this machine, and a cluster needs a database: "
            "storage=postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        )
    runs = store.find(fingerprint=sweep.fingerprint)
    for run in runs:
        if run.tag("identity") != sweep.identity:
            raise InputError(
                f"the name {sweep.name!r} belongs to a sweep of other settings or another search "
                f"space, which searches {run.tag('searches')}; this one searches "
                f"{sweep.searches}: give it another name"
            )
    known, shown = _trials_known(address, sweep), without_user(address)
    if runs and known is None:
        raise InputError(
            f"{sweep.title} is in the store (run {runs[0].id}) and not in storage={shown}:"
            f" it was begun with storage={runs[0].tag('storage')}; name that, or give another name"
        )
    if known and not runs:
        raise InputError(
            f"storage={shown} has {known} trials of {sweep.title} of which the store at "
            f"{store.address} knows nothing: give another name, or another storage"
        )


def _trials_known(address: str, sweep: Sweep) -> int | None:
    """Count the trials of a sweep in a storage; None if it does not know the sweep."""
    if not is_database(address) and not Path(address).exists():
        return None
    storage = open_storage(address)
    if sweep.name not in optuna.get_all_study_names(storage):
        return None
    return len(optuna.load_study(study_name=sweep.name, storage=storage).trials)
