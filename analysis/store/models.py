"""Which models an analysis is about when they are named one by one, and how they are grouped."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.options import ALL, Options
from worldrep.errors import InputError
from worldrep.names import (
    FINETUNINGS,
    NO_FT,
    PRETRAININGS,
    STRATEGIES,
    ModelName,
    parse_model,
)
from worldrep.studies import Definition

_PLACES = {name: i for i, name in enumerate((*PRETRAININGS, NO_FT, *FINETUNINGS, *STRATEGIES))}


def named_models(text: str, options: Options) -> tuple[ModelName, ...]:
    """`pt1,pt1_ftwb1-1..7` -> their names at the width of the options; `all` -> ().

    Ranges and names are read as those of a study are. Raises InputError for a name that is not
    known or that has a width or a strategy of its own.
    """
    if text.strip() == ALL:
        return ()
    asked = Definition(
        f"models={text}",
        tuple(part.strip() for part in text.split(",")),
        widths=(options.width,),
        strategies=(options.strategy,),
        worlds=(options.world,),
        scale=options.scale,
    )
    return in_order(settings.model_name for settings in asked.resolved)


def known_model(text: str) -> ModelName | None:
    """A model by its tag; None if this version does not know the name."""
    try:
        return parse_model(text)
    except InputError:
        return None


def in_order(models: Iterable[ModelName]) -> tuple[ModelName, ...]:
    """Each once, every base before what is fine-tuned from it."""
    return tuple(
        sorted(set(models), key=lambda m: [_PLACES[n] for n in (m.pretrain, m.ft, m.strategy)])
    )


def family_of(model: ModelName) -> str:
    """What a model is grouped under: `pt1`, `pt1-X`, `pt2`, `ftwb1`, or `pt2_ftwb1`."""
    stem, _, number = model.pretrain.partition("-")
    base = f"{stem}-X" if stem == "pt1" and number else stem
    if model.ft == NO_FT:
        return base
    ft = model.ft.partition("-")[0]
    return ft if model.pretrain == "pt1" else f"{base}_{ft}"
