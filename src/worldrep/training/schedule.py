"""How many steps a training takes. It imports no torch, so that a study is planned quickly."""

from dataclasses import dataclass
from typing import Self

from worldrep.settings import Settings


@dataclass(frozen=True)
class Schedule:
    """The number of steps of a training, and the steps at which something happens."""

    rows: int  # of an epoch, without replayed ones
    batch_size: int  # without replayed rows
    epochs: int

    @classmethod
    def of(cls, settings: Settings, rows: int) -> Self:
        return cls(rows, settings.batch_size - replayed_rows(settings), settings.epochs)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def marks(self, count: int) -> set[int]:
        """Return `count` evenly spaced steps, the last one of the training among them."""
        return {max(1, round(self.steps * i / count)) for i in range(1, count + 1)}


def replayed_rows(settings: Settings) -> int:
    """Return how many rows of each batch are replayed from the base's training."""
    share = settings.replay_share if settings.strategy == "replay" else 0.0
    return round(share * settings.batch_size)
