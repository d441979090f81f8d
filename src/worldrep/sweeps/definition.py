"""Definition of a sweep, and the study that Optuna keeps of it in a file or a database."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.distributions import distribution_to_json
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import NullPool, create_engine, inspect

from worldrep.digests import digest, random_stream
from worldrep.disk import FullError
from worldrep.errors import InputError, StateError, check_name, first_line
from worldrep.executors import ExecutorOptions
from worldrep.settings import Settings
from worldrep.stages.plan import TrainingPlan, evaluation_fingerprint
from worldrep.sweeps.journal import Journal
from worldrep.sweeps.search import Objective, Space, parse_objectives, read_space
from worldrep.text import remember, without_user
from worldrep.tracking import Store

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

AUTO, NONE = "auto", "none"
SAMPLERS = ("tpe", "random")
PRUNERS = (AUTO, "median", "hyperband", NONE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,199}")


@dataclass(frozen=True)
class Sweep:
    """A search for settings, without the number of trials and where they run.

    settings: of every trial, apart from those that the space overrides; pruner: `auto` stands for
    `median` if there is one objective that validations measure, else for `none`. Raises InputError
    for an invalid value, or a pruner that cannot work with the objectives.
    """

    name: str
    settings: Settings
    space: Space
    objectives: tuple[Objective, ...]
    sampler: str = "tpe"
    pruner: str = AUTO

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"name={self.name!r} is not made of letters, digits and - _ . + @, 200 at most"
            )
        for name, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            check_name(name, getattr(self, name), allowed)
        first, *more = self.objectives
        can_prune = not more and first.is_validated(self.settings)
        if self.pruner == AUTO:
            object.__setattr__(self, "pruner", "median" if can_prune else NONE)
        if self.pruner != NONE and not can_prune:
            raise InputError(
                f"pruner={self.pruner} needs one objective that validations show "
                f"(not {', '.join(self.goals)}): choose pruner=none"
            )

    @classmethod
    def asked_for(
        cls, settings: Settings, typed: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> Self:
        """Build the sweep from the options space, objective, sampler, pruner and name.

        Settings that were given a value (`fixed`) cannot be searched as well.
        """
        objectives = parse_objectives(typed["objective"], settings)
        name = typed["name"]
        if name is None:
            goals = "_".join(objective.name.replace("/", "-") for objective in objectives)
            name = f"{settings.model_name}_{goals}_{settings.scale}_seed{settings.seed}"
        space = read_space(typed["space"], settings)
        for setting in fixed:
            if setting in space:
                raise InputError(f"{setting} is searched and cannot be given a value as well")
        return cls(name, settings, space, objectives, typed["sampler"], typed["pruner"])

    @property
    def goals(self) -> list[str]:
        return [objective.name for objective in self.objectives]

    @property
    def title(self) -> str:
        return f"sweep {self.name}"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the sweep's run: of the name alone, so that names are unique."""
        return digest(["sweep", self.name])

    @cached_property
    def identity(self) -> str:
        """Digest of everything that the trials share; it detects another sweep of this name."""
        plan = TrainingPlan.of(self.settings)
        work = evaluation_fingerprint(plan.maker, self.settings, plan.fingerprint)
        return digest([work, self._ranges, self.goals, self.sampler, self.pruner])

    @property
    def _ranges(self) -> dict[str, Any]:
        return {name: json.loads(distribution_to_json(d)) for name, d in self.space.items()}

    @property
    def searches(self) -> str:
        """Objectives, space, sampler and pruner, for tags and messages."""
        how = f"{json.dumps(self._ranges)} with {self.sampler}, pruner {self.pruner}"
        return f"{', '.join(self.goals)} by {how}"

    def sampler_of(self, number: int) -> BaseSampler:
        """Make the sampler of the trial that `number` others precede.

        Its random numbers depend on the seed and on `number` alone, so that an interrupted sweep
        continues with the same suggestions.
        """
        seed = int(random_stream(self.settings.seed, "sampler", number).integers(2**31))
        return RandomSampler(seed) if self.sampler == "random" else TPESampler(seed=seed)

    def outcome(self, trial: FrozenTrial) -> str:
        """Describe the values and settings of a completed trial."""
        values = zip(self.goals, trial.values, strict=True)
        return ", ".join(f"{g} {v:.4f}" for g, v in values) + f" ({in_words(trial.params)})"

    def trial_fingerprint(self, number: int) -> str:
        return digest(["trial", self.name, self.identity, number])


def in_words(params: Mapping[str, Any]) -> str:
    """Format the settings of a trial, such as `epochs 3, learning_rate 0.00123`."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def default_address(name: str) -> str:
    """Return $WORLDREP_STORAGE, else a journal file in the current folder."""
    return os.environ.get("WORLDREP_STORAGE") or str(Path("sweeps", f"{name}.journal").resolve())


def is_database(address: str) -> bool:
    """Whether an address is a URL; any other one is the path of a journal file."""
    return "://" in address


def open_storage(address: str) -> BaseStorage:
    """Open Optuna's storage; an empty one gets Optuna's tables.

    Raises InputError if it belongs to another program, StateError if it cannot be read.
    """
    storage: BaseStorage
    remember(address)
    try:
        if is_database(address):
            _check_tables(address)
            storage = RDBStorage(address)
        else:
            storage = JournalStorage(Journal(Path(address)))
        storage.get_all_studies()  # fails here for a damaged file
        return storage
    except (InputError, FullError):
        raise
    except Exception as fault:  # database drivers raise exceptions of their own
        where = without_user(address)
        raise StateError(f"cannot use the storage at {where}: {first_line(fault)}") from None


def _check_tables(address: str) -> None:
    """Raise InputError for a database of another program, such as MLflow.

    Both keep their version in a table `alembic_version` and would use the other's.
    """
    engine = create_engine(address, poolclass=NullPool)
    tables = inspect(engine).get_table_names()
    if tables and ("studies" not in tables or "experiments" in tables):
        raise InputError(
            f"storage={without_user(address)} is a database that something else uses, such as "
            "MLflow; a sweep needs one of its own"
        )


def open_study(storage: BaseStorage, sweep: Sweep) -> optuna.Study:
    """Open Optuna's study of a sweep, and create it if it does not exist.

    Raises InputError if a study of this name has other objectives.
    """
    pruner: BasePruner = MedianPruner() if sweep.pruner == "median" else NopPruner()
    if sweep.pruner == "hyperband":  # it compares trials at the same validation, counted from 1
        pruner = HyperbandPruner(max_resource=sweep.settings.n_validations)
    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = [up if goal.higher_is_better else down for goal in sweep.objectives]
    study = optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        directions=directions,
        pruner=pruner,
        load_if_exists=True,
    )
    if study.directions != directions:  # an empty study, see check_storage
        raise InputError(
            f"the name {sweep.name!r} belongs to a sweep of other objectives: give it another name"
        )
    study.set_metric_names(sweep.goals)
    return study


def check_storage(store: Store, sweep: Sweep, options: ExecutorOptions, address: str) -> None:
    """Check that name and storage are free for this sweep, before anything of it is written.

    Raises InputError if the name belongs to another sweep, the storage and the MLflow store know
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
    known, shown = None, without_user(address)
    if is_database(address) or Path(address).exists():
        studies = optuna.get_all_study_summaries(open_storage(address))
        known = next((study.n_trials for study in studies if study.study_name == sweep.name), None)
    if runs and known is None:
        begun = runs[0].tag("storage")
        remedy = f"it was begun with storage={begun}; name that, or give another name"
        if begun == shown:
            remedy = "its trials are lost unless you restore that from a copy; give another name"
        raise InputError(
            f"{sweep.title} is in the store (run {runs[0].id}) and not in storage={shown}: {remedy}"
        )
    if known and not runs:
        raise InputError(
            f"storage={shown} has {known} trials of {sweep.title} of which the store at "
            f"{store.address} knows nothing: give another name, or another storage"
        )
