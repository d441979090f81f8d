"""What determines each result: two pieces of work with one fingerprint have one outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from worldrep.data.rows import RowMaker
from worldrep.data.sets import base_sets, suite_sets, training_digest, validation_sets
from worldrep.digests import digest
from worldrep.scales import base_settings
from worldrep.settings import Settings

SEMANTICS = 2  # raised by hand when the same settings train, evaluate or extract differently


def training_fingerprint(maker: RowMaker, settings: Settings, base: str | None = None) -> str:
    """Fingerprint of a pretraining, or of a fine-tuning from the base with fingerprint `base`.

    Without `base` a fine-tuning starts from the base that its own settings describe.
    """
    if settings.is_finetuning and base is None:
        base = training_fingerprint(maker, base_settings(settings))
    rows = [training_digest(maker, settings)]
    rows += [maker.digest(rowset) for rowset in base_sets(settings, maker.world)]
    rows += [maker.digest(rowset) for rowset in validation_sets(settings).values()]
    own = settings.group("name", "model", "training")
    del own["strategy"]  # a plain training is named as it was before there were strategies
    own |= settings.of_strategy
    return digest([SEMANTICS, "training", own, rows, base])


def seedless(settings: Settings) -> Settings:
    """Settings that models which differ in their seed alone have in common.

    Fingerprints of these are what the tag `configuration` holds; no model is trained with them.
    """
    return replace(settings, seed=0)


def evaluation_fingerprint(
    maker: RowMaker,
    settings: Settings,
    model: str,
    checkpoints: str | Sequence[int] = "last",
    keep_answers: bool = False,
) -> str:
    """Fingerprint of an evaluation of the model with fingerprint `model`."""
    rows = [maker.digest(rowset) for rowset in suite_sets(settings).values()]
    asked = [settings.multi_rows, checkpoints, keep_answers]
    return digest([SEMANTICS, "evaluate", model, rows, *asked])


def extraction_fingerprint(
    maker: RowMaker,
    model: str,
    request: Mapping[str, object],
    checkpoints: str | Sequence[int] = "last",
) -> str:
    """Fingerprint of an extraction: of which model, at which layers, prompt and positions."""
    return digest([SEMANTICS, "extract", model, maker.world.digest, request, checkpoints])
