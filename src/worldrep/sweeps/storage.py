"""Where Optuna keeps a sweep's trials: a journal file on one machine, a database for many."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from worldrep.errors import InputError, StateError, first_line
from worldrep.sweeps.definition import Sweep
from worldrep.tracking.store import without_user

IDENTITY = "worldrep.identity"  # of the sweep, as an attribute of Optuna's study
FOLDER, SUFFIX = "sweeps", ".journal"


def default_address(name: str) -> str:
    """The journal file of a sweep, in the folder in which the command runs."""
    return str((Path(FOLDER) / f"{name}{SUFFIX}").resolve())


def is_database(address: str) -> bool:
    return "://" in address


def shown(address: str) -> str:
    """An address as others may see it."""
    return without_user(address) if is_database(address) else address


def open_storage(address: str) -> BaseStorage:
    """Optuna's storage at an address. Raises StateError when it cannot be reached."""
    try:
        storage: BaseStorage
        if is_database(address):
            storage = RDBStorage(address)
        else:
            Path(address).parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(address))
        storage.get_all_studies()  # reads it, and so finds out whether it is one
        return storage
    except Exception as fault:  # drivers of databases have faults of their own
        reason = first_line(fault).replace(address, shown(address))
        raise StateError(f"cannot use the storage at {shown(address)}: {reason}") from None


def known_identity(storage: BaseStorage, name: str) -> str | None:
    """The identity of the sweep that a storage holds under a name; None if it holds none."""
    names = {study.study_name for study in storage.get_all_studies()}
    if name not in names:
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    return str(study.user_attrs.get(IDENTITY, ""))


def open_study(storage: BaseStorage, sweep: Sweep) -> optuna.Study:
    """Optuna's study of a sweep, made if it is not there.

    Raises InputError when the name belongs to another search there.
    """
    known = known_identity(storage, sweep.name)
    if known not in (None, sweep.identity):
        raise belongs_to_another(sweep)
    study = optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        directions=[
            StudyDirection.MAXIMIZE if objective.higher_is_better else StudyDirection.MINIMIZE
            for objective in sweep.objectives
        ],
        pruner=sweep.make_pruner(),
        load_if_exists=True,
    )
    study.set_user_attr(IDENTITY, sweep.identity)
    return study


def belongs_to_another(sweep: Sweep, in_words: str = "") -> InputError:
    """The error for a name that is taken. in_words: what that sweep searches."""
    searches = f", which searches {in_words}" if in_words else ""
    return InputError(
        f"the name {sweep.name!r} belongs to a sweep of other settings or another search space"
        f"{searches}; this one searches {sweep.in_words}: give it another name"
    )
