"""Which row sets a model is trained, validated and tested on, and their tokens."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from worldrep.data.cache import cached
from worldrep.data.encoding import Tokens, pad_together
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.world import World, world_of
from worldrep.digests import digest
from worldrep.names import TASK_NAMES, ModelName, has_warmup_rows
from worldrep.scales import resolve
from worldrep.settings import Settings

NEED_BASE_ROWS = ("replay", "ewc")  # strategies
SPLIT_POOLS = {"standard": "world", "atlantis": "atlantis"}  # suite prefix -> pool


def maker_of(settings: Settings) -> RowMaker:
    """The row maker of the settings' world, one for all models that share it."""
    shared = settings.group("world", "rows")
    return _maker(settings.scale, settings.world, tuple(shared.items()))


@lru_cache(maxsize=8)
def _maker(scale: str, world: str, shared: tuple[tuple[str, Any], ...]) -> RowMaker:
    settings = resolve(ModelName("pt1"), scale=scale, world=world, overrides=dict(shared))
    return RowMaker(world_of(settings), settings)


def training_sets(settings: Settings, world: World) -> list[RowSet]:
    """The row sets that one stage trains on, in the order in which they are stacked."""
    if not settings.is_finetuning:
        return _pretraining_sets(settings, world)
    sets = [RowSet(t, "atlantis", "finetune", settings.ft_atlantis_rows) for t in settings.tasks]
    if settings.ft_world_rows:
        sets += [RowSet(t, "world", "finetune", settings.ft_world_rows) for t in settings.tasks]
    if has_warmup_rows(settings.ft) and settings.ft_warmup_rows:
        sets += [RowSet(t, "atlantis", "warmup", settings.ft_warmup_rows) for t in TASK_NAMES]
    return sets


def base_sets(settings: Settings, world: World) -> list[RowSet]:
    """The row sets that the base was trained on, for a strategy that goes back to them."""
    return _pretraining_sets(settings, world) if settings.strategy in NEED_BASE_ROWS else []


def _pretraining_sets(settings: Settings, world: World) -> list[RowSet]:
    pool, rows = world.pretraining_pool, settings.pretrain_rows
    return [RowSet(task, pool, "pretrain", rows) for task in settings.model_name.base.tasks]


def validation_sets(settings: Settings) -> dict[str, RowSet]:
    """Validation rows by suite: standard ones, and Atlantis's too when that is being learnt."""
    learns_atlantis = settings.is_finetuning or settings.world == "with_atlantis"
    splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
    return _held_out(splits, "val", settings.val_rows)


def suite_sets(settings: Settings) -> dict[str, RowSet]:
    """The 14 test sets by suite, such as `atlantis/angle`."""
    return _held_out(SPLIT_POOLS, "test", settings.test_rows)


def _held_out(splits: Iterable[str], name: str, rows: int) -> dict[str, RowSet]:
    return {
        f"{split}/{task}": RowSet(task, SPLIT_POOLS[split], name, rows)
        for split in splits
        for task in TASK_NAMES
    }


def load_rows(maker: RowMaker, rowset: RowSet) -> Tokens:
    """Token rows (rows, length) of one set, from the cache when they are there."""
    return cached(maker.digest(rowset), lambda: maker.tokens(rowset))


def stack_rows(maker: RowMaker, rowsets: Iterable[RowSet]) -> Tokens:
    """Token rows of several sets below one another, padded to the longest."""
    return pad_together([load_rows(maker, rowset) for rowset in rowsets])


def training_digest(maker: RowMaker, settings: Settings) -> str:
    """Name of everything that a stage trains on."""
    return digest([maker.digest(rowset) for rowset in training_sets(settings, maker.world)])
