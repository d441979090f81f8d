"""Fingerprints: digests of everything that determines a result.

Two pieces of work with the same fingerprint have the same result, so the second one is not done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from worldrep.data.rows import RowMaker
from worldrep.data.sets import base_sets, suite_sets, training_digest, validation_sets
from worldrep.digests import digest
from worldrep.scales import base_settings
from worldrep.settings import Settings

SEMANTICS = 3  # raised by hand when the same settings train, evaluate or extract differently


def training_fingerprint(maker: RowMaker, settings: Settings, base: str | None = None) -> str:
    """Return the fingerprint of a training.

    Args:
        maker: Row maker of the settings' world.
        settings: Of a pretraining or a fine-tuning.
        base: Fingerprint of the training that a fine-tuning starts from; default: the one that
            `settings` describe.
    """
    if settings.is_finetuning and base is None:
        base = training_fingerprint(maker, base_settings(settings))
    return fingerprint_of(settings, row_digests(maker, settings), base)


def row_digests(maker: RowMaker, settings: Settings) -> list[str]:
    """Return the digests of all rows that a training reads; they do not depend on the seed."""
    rowsets = (*base_sets(settings, maker.world), *validation_sets(settings).values())
    return [training_digest(maker, settings), *map(maker.digest, rowsets)]


def fingerprint_of(settings: Settings, rows: Sequence[str], base: str | None) -> str:
    """Return the fingerprint of a training, given the digests of its rows."""
    own = settings.group("name", "model", "training") | settings.of_strategy
    return digest([SEMANTICS, "training", own, rows, base])


def seedless(settings: Settings) -> Settings:
    """Return the settings that models which differ in their seed alone have in common.

    Fingerprints of these are the tag `configuration`; no model is trained with them.
    """
    return replace(settings, seed=0)


def evaluation_fingerprint(
    maker: RowMaker,
    settings: Settings,
    model: str,
    checkpoints: str | Sequence[int] = "last",
    keep_answers: bool = False,
) -> str:
    """Return the fingerprint of an evaluation of the model with fingerprint `model`."""
    rows = [maker.digest(rowset) for rowset in suite_sets(settings).values()]
    return digest(
        [SEMANTICS, "evaluate", model, rows, settings.multi_rows, checkpoints, keep_answers]
    )


def extraction_fingerprint(
    maker: RowMaker,
    model: str,
    request: Mapping[str, object],
    checkpoints: str | Sequence[int] = "last",
) -> str:
    """Return the fingerprint of an extraction from the model with fingerprint `model`."""
    return digest([SEMANTICS, "extract", model, maker.world.digest, request, checkpoints])
