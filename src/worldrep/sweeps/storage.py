"""Where Optuna keeps a sweep's trials: a journal file on one machine, a database for many."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from sqlalchemy import create_engine, inspect

from worldrep.errors import InputError, StateError, first_line
from worldrep.executors import ExecutorOptions
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.guides import make_pruner
from worldrep.tracking import Store, without_user

IDENTITY = "worldrep.identity"  # of the sweep, as an attribute of Optuna's study
FOLDER, SUFFIX = "sweeps", ".journal"


def default_address(name: str) -> str:
    """$WORLDREP_STORAGE, else a journal file in the folder in which the command runs."""
    if named := os.environ.get("WORLDREP_STORAGE"):
        return named
    return str((Path(FOLDER) / f"{name}{SUFFIX}").resolve())


def is_database(address: str) -> bool:
    return "://" in address


def shown(address: str) -> str:
    """An address as others may see it."""
    return without_user(address) if is_database(address) else address


def open_storage(address: str) -> BaseStorage:
    """Optuna's storage at an address.

    Raises InputError for what belongs to another program, StateError when it cannot be reached.
    """
    try:
        storage: BaseStorage
        if is_database(address):
            _check_tables(address)
            storage = RDBStorage(address)
        else:
            _check_journal(Path(address))
            Path(address).parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(address))
        storage.get_all_studies()  # reads it, and so finds out whether it is one
        return storage
    except InputError:
        raise
    except Exception as fault:  # drivers of databases have faults of their own
        reason = first_line(fault).replace(address, shown(address))
        raise StateError(f"cannot use the storage at {shown(address)}: {reason}") from None


def _check_tables(address: str) -> None:
    """Raise InputError for a database that another program uses, such as MLflow.

    Both keep their version in a table `alembic_version`, and would take the other's for their own.
    """
    engine = create_engine(address)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables and ("studies" not in tables or "experiments" in tables):
        raise InputError(
            f"storage={shown(address)} is a database that something else uses, such as MLflow; "
            "a sweep needs one of its own"
        )


def _check_journal(path: Path) -> None:
    """Raise InputError for a file that is not Optuna's: it would be written to."""
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
    """Optuna's study of a sweep, made if it is not there."""
    study = optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        directions=[
            StudyDirection.MAXIMIZE if objective.higher_is_better else StudyDirection.MINIMIZE
            for objective in sweep.objectives
        ],
        pruner=make_pruner(sweep.pruner, sweep.settings.n_validations),
        load_if_exists=True,
    )
    study.set_user_attr(IDENTITY, sweep.identity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls it experimental
        study.set_metric_names([objective.name for objective in sweep.objectives])
    return study


def check_storage(store: Store, sweep: Sweep, choice: ExecutorOptions, address: str) -> None:
    """Raise InputError when the sweep's name or its storage is not free for it, or not for where
    the trials run. Nothing of a sweep is written. (Optuna makes its tables in an empty database.)
    """
    if choice.executor == "ray" and choice.address != "local" and not is_database(address):
        raise InputError(
            f"storage={address} is a file of this machine, and a cluster needs a database: "
            "storage=postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        )
    runs = store.find(fingerprint=sweep.fingerprint)
    for run in runs:
        if run.tag("identity") != sweep.identity:
            raise _belongs_to_another(sweep, f", which searches {run.tag('searches')}")
    known = _trials_known(address, sweep)
    if runs and known is None:
        raise InputError(
            f"{sweep.title} is in the store (run {runs[0].id}) and not in storage={shown(address)}:"
            f" it was begun with storage={runs[0].tag('storage')}; name that, or give another name"
        )
    if known and not runs:
        raise InputError(
            f"storage={shown(address)} has {known} trials of {sweep.title} of which the store at "
            f"{store.address} knows nothing: give another name, or another storage"
        )


def _trials_known(address: str, sweep: Sweep) -> int | None:
    """How many trials a storage has of a sweep; None if it does not know the sweep."""
    if not is_database(address) and not Path(address).exists():
        return None
    storage = open_storage(address)
    if sweep.name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=sweep.name, storage=storage)
    if study.user_attrs.get(IDENTITY) not in (None, sweep.identity):
        raise _belongs_to_another(sweep)
    return len(study.trials)


def _belongs_to_another(sweep: Sweep, searches: str = "") -> InputError:
    return InputError(
        f"the name {sweep.name!r} belongs to a sweep of other settings or another search space"
        f"{searches}; this one searches {sweep.searches}: give it another name"
    )
