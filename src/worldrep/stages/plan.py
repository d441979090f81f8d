"""A training, described by one object that is made once from its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import base_sets, maker_of, training_sets, validation_sets
from worldrep.scales import base_settings
from worldrep.settings import Settings
from worldrep.stages.fingerprints import fingerprint_of, row_digests, seedless
from worldrep.training.feed import Schedule


class Base(Protocol):
    """The training that a fine-tuning starts from: a plan, or a run in the store."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines the base."""

    @property
    def configuration(self) -> str:
        """The fingerprint without the seed."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that determines a training, and all that follows from it.

    Attributes:
        settings: Complete settings of a pretraining or a fine-tuning.
        maker: Makes the rows of the settings' world, `maker.world`.
        base: Where a fine-tuning starts from; None for a pretraining.
        rows: Row sets that the model is trained on, in the order in which they are stacked.
        base_rows: Row sets of the base's training, for a strategy that uses them again.
        validation: Validation rows by suite.
        fingerprint: Digest of everything that determines the result.
        configuration: The fingerprint without the seed, equal for models that differ in it alone.
        steps: Number of optimizer steps.
    """

    settings: Settings
    maker: RowMaker
    base: Base | None
    rows: tuple[RowSet, ...]
    base_rows: tuple[RowSet, ...]
    validation: Mapping[str, RowSet]
    fingerprint: str
    configuration: str
    steps: int

    @classmethod
    def of(cls, settings: Settings, base: Base | None = None) -> TrainingPlan:
        """Make the plan of a training.

        Args:
            settings: Complete settings.
            base: Where a fine-tuning starts from; default: the plan of the pretraining that its
                settings describe.

        Raises:
            InputError: The world cannot be made.
        """
        if settings.is_finetuning and base is None:
            base = cls.of(base_settings(settings))
        maker = maker_of(settings)
        rows = tuple(training_sets(settings, maker.world))
        digests = row_digests(maker, settings)
        own, shared = (base.fingerprint, base.configuration) if base else (None, None)
        return cls(
            settings=settings,
            maker=maker,
            base=base,
            rows=rows,
            base_rows=tuple(base_sets(settings, maker.world)),
            validation=validation_sets(settings),
            fingerprint=fingerprint_of(settings, digests, own),
            configuration=fingerprint_of(seedless(settings), digests, shared),
            steps=training_steps(settings, rows),
        )


def training_steps(settings: Settings, rows: Iterable[RowSet]) -> int:
    """Return the number of optimizer steps of a training on these row sets."""
    return Schedule.of(settings, sum(rowset.rows for rowset in rows)).steps
