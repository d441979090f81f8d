"""Which rows a model is trained, validated and tested on, in how many steps; rows from the cache.

Importing this module does not load torch, so that a study is planned quickly.
"""

import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.tokens import Tokens, stack_padded
from worldrep.data.world import World, world_of
from worldrep.disk import cached_file
from worldrep.names import TASK_NAMES, ModelName, has_warmup_rows
from worldrep.scales import resolve
from worldrep.settings import Settings

SPLIT_POOLS = {"standard": "world", "atlantis": "atlantis"}  # prefix of a suite -> pool


def maker_of(settings: Settings) -> RowMaker:
    """Return the row maker of the settings' world; models that share the world share it."""
    scale, world, shared = settings.scale, settings.world, settings.group("world", "rows")
    return _maker(resolve(ModelName("pt1"), scale=scale, world=world, overrides=shared))


@lru_cache(maxsize=8)
def _maker(settings: Settings) -> RowMaker:
    return RowMaker(world_of(settings), settings)


def training_sets(settings: Settings, world: World) -> list[RowSet]:
    """Return the row sets that a model is trained on, in the order in which they are stacked."""
    if not settings.is_finetuning:
        return _pretraining_sets(settings, world)
    sets = [RowSet(t, "atlantis", "finetune", settings.ft_atlantis_rows) for t in settings.tasks]
    if settings.ft_world_rows:
        sets += [RowSet(t, "world", "finetune", settings.ft_world_rows) for t in settings.tasks]
    if has_warmup_rows(settings.ft) and settings.ft_warmup_rows:
        sets += [RowSet(t, "atlantis", "warmup", settings.ft_warmup_rows) for t in TASK_NAMES]
    return sets


def base_sets(settings: Settings, world: World) -> list[RowSet]:
    """Return the row sets of the base's training if the strategy reads them, else none."""
    return _pretraining_sets(settings, world) if settings.strategy in ("replay", "ewc") else []


def _pretraining_sets(settings: Settings, world: World) -> list[RowSet]:
    pool = "all" if world.variant == "with_atlantis" else "world"
    tasks = settings.model_name.base.tasks
    return [RowSet(task, pool, "pretrain", settings.pretrain_rows) for task in tasks]


def learns_atlantis(settings: Settings) -> bool:
    """Return whether a model is trained on rows about Atlantis."""
    return settings.is_finetuning or settings.world == "with_atlantis"


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


def validation_sets(settings: Settings) -> dict[str, RowSet]:
    """Return the validation rows by suite; Atlantis is included when the model learns it."""
    splits = ("standard", "atlantis") if learns_atlantis(settings) else ("standard",)
    return _held_out(splits, "val", settings.val_rows)


def suite_sets(settings: Settings) -> dict[str, RowSet]:
    """Return the 14 test sets by suite, such as `atlantis/angle`."""
    return _held_out(SPLIT_POOLS, "test", settings.test_rows)


def _held_out(splits: Iterable[str], name: str, rows: int) -> dict[str, RowSet]:
    pairs = itertools.product(splits, TASK_NAMES)
    return {f"{split}/{t}": RowSet(t, SPLIT_POOLS[split], name, rows) for split, t in pairs}


def load_rows(maker: RowMaker, rowset: RowSet) -> Tokens:
    """Return the token rows (rows, length) of a set, from the cache if they are there."""
    return cached(maker.digest(rowset), lambda: maker.tokens(rowset))


def stack_rows(maker: RowMaker, rowsets: Iterable[RowSet]) -> Tokens:
    """Return the token rows of several sets, concatenated and padded to the longest."""
    return stack_padded([load_rows(maker, rowset) for rowset in rowsets])


def cached(name: str, make: Callable[[], Tokens]) -> Tokens:
    """Return the array cached as `name`, memory-mapped; make it first if absent or damaged."""
    return np.load(cached_file(f"{name}.npy", lambda: _npy(make())), mmap_mode="r")


def _npy(array: Tokens) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
