"""A training described by one object, and the fingerprints (digests of all inputs) of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from worldrep.data import sets
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import Schedule
from worldrep.digests import digest
from worldrep.scales import base_settings
from worldrep.settings import Settings

LAST, ALL = "last", "all"  # choices of checkpoints
SEMANTICS = 4  # raised by hand when the same settings train, evaluate or extract differently


def run_name(settings: Settings, stage: str, *choices: str) -> str:
    """Return the name of a run of a stage, with those choices that are not the default."""
    chosen = [choice for choice in choices if choice not in ("default", LAST)]
    return " ".join([settings.run_name(stage), *chosen])


class Base(Protocol):
    """The training that a fine-tuning starts from: a plan, a study's step, or a stored run."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def configuration(self) -> str: ...


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that determines a training, and all that follows from it."""

    settings: Settings  # complete ones of a pretraining or a fine-tuning
    maker: RowMaker  # of the settings' world
    base: Base | None  # where a fine-tuning starts from; None for a pretraining
    rows: tuple[RowSet, ...]  # that the model is trained on, in the order in which they are stacked
    base_rows: tuple[RowSet, ...]  # of the base's training, for a strategy that uses them again
    validation: Mapping[str, RowSet]  # by suite
    fingerprint: str  # digest of everything that determines the result
    configuration: str  # the same without the seed

    @classmethod
    def of(cls, settings: Settings, base: Base | None = None) -> Self:
        """Make the plan. base: default: the settings' own. InputError: the world cannot be made."""
        if settings.is_finetuning and base is None:
            base = cls.of(base_settings(settings))
        maker = sets.maker_of(settings)
        rows = tuple(sets.training_sets(settings, maker.world))
        base_rows = tuple(sets.base_sets(settings, maker.world))
        validation = sets.validation_sets(settings)
        digests = [digest([maker.digest(rowset) for rowset in rows])]
        digests += map(maker.digest, (*base_rows, *validation.values()))
        own, shared = (base.fingerprint, base.configuration) if base else (None, None)
        fingerprint = _fingerprint(settings, digests, own)
        configuration = _fingerprint(replace(settings, seed=0), digests, shared)
        return cls(settings, maker, base, rows, base_rows, validation, fingerprint, configuration)

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.settings, sum(rowset.rows for rowset in self.rows))

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def checkpoints(self) -> list[int]:
        """The steps after which a checkpoint is kept."""
        return sorted(self.schedule.marks(self.settings.n_checkpoints))


def _fingerprint(settings: Settings, rows: Sequence[str], base: str | None) -> str:
    own = settings.group("name", "model", "training") | settings.of_strategy
    own = {name: value for name, value in own.items() if settings.reads(name)}
    return digest([SEMANTICS, "training", own, rows, base])


def evaluation_fingerprint(
    maker: RowMaker,
    settings: Settings,
    model: str,
    checkpoints: str | Sequence[int] = "last",
    keep_answers: bool = False,
) -> str:
    """Return the fingerprint of an evaluation of the model with fingerprint `model`."""
    rows = [maker.digest(rowset) for rowset in sets.suite_sets(settings).values()]
    asked = [settings.multi_rows, checkpoints, keep_answers]
    return digest([SEMANTICS, "evaluate", model, rows, *asked])


def extraction_fingerprint(
    maker: RowMaker,
    model: str,
    request: Mapping[str, object],
    checkpoints: str | Sequence[int] = "last",
) -> str:
    """Return the fingerprint of an extraction from the model with fingerprint `model`."""
    return digest([SEMANTICS, "extract", model, maker.world.digest, request, checkpoints])
