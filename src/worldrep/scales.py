"""The named scales: complete settings for a model of a given name, before any override."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldrep.errors import InputError, unknown
from worldrep.names import NO_FT, TASK_NAMES, ModelName
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES, SHARED_GROUPS, USUAL, Settings

# Each width's sizes and epochs, relative to those of base.
_WIDTH_FACTORS = {"base": (1, 1), "wide": (2, 0.5), "narrow": (0.5, 2), "wider": (4, 0.5)}


def paper() -> dict[str, Any]:
    """The published study: 5,075 cities, 1.6 million parameters, 328,128 steps for pt1.

    Meant for one GPU; the sizes are those of arXiv 2602.00533.
    """
    return {
        "n_cities": 5075,
        "max_per_country": 0,
        "n_atlantis": 100,
        "id_digits": 4,
        "pretrain_rows": 1_000_000,
        "val_rows": 128,
        "test_rows": 10_000,
        "multi_rows": 10_000,
        "ft_atlantis_rows": 100_000,
        "ft_world_rows": 20_000,
        "ft_warmup_rows": 256,
        "hidden_size": 128,
        "intermediate_size": 512,
        "n_heads": 4,
        "n_layers": 6,
        "batch_size": 128,
        "warmup_steps": 50,
        "n_checkpoints": 10,
        "loss": "full",
        "pretrain": {"epochs": 6, "learning_rate": 3e-4, "n_validations": 100},
        "finetune": {"epochs": (30, 30, 20), "learning_rate": 1e-5, "n_validations": 20},
    }


def mini() -> dict[str, Any]:
    """The default: does the study's effect show in minutes on two CPU cores?

    44 real cities, at most one of a country, and 12 of Atlantis, with 2-digit ids. The base takes 6
    to 7 minutes, each fine-tuning 10 to 20 seconds. Seeds 42, 1, 2: the base's mean distance error
    on its own cities is 0.7, 21, 12 (median 0; guessing gives 443) and on Atlantis 666, 634, 635,
    its compass 0.83, 0.71, 0.82 and about 0.2. Crossing is learnt at seed 42 (0.86), not at 1 and 2
    (0.54, 0.52). Sums in another order gave 13, 17, 5 for distance and 0.78, 0.54, 0.53 for
    crossing: numbers of this scale depend on rounding as much as on the seed.
    """
    return {
        **paper(),
        "n_cities": 44,
        "max_per_country": 1,
        "n_atlantis": 12,
        "id_digits": 2,
        "pretrain_rows": 64_000,
        "val_rows": 32,
        "test_rows": 200,
        "multi_rows": 500,
        "ft_atlantis_rows": 3_000,
        "ft_world_rows": 500,
        "ft_warmup_rows": 70,
        "hidden_size": 64,
        "intermediate_size": 256,
        "n_heads": 2,
        "n_layers": 4,
        "n_checkpoints": 4,
        "loss": "answer",
        "pretrain": {"epochs": 2, "learning_rate": 1.2e-3, "n_validations": 10},
        "finetune": {"epochs": (6, 6, 4), "learning_rate": 2e-3, "n_validations": 3},
    }


def smoke() -> dict[str, Any]:
    """For tests: every part of the pipeline in seconds; nothing is learnt."""
    return {
        **mini(),
        "n_cities": 20,
        "n_atlantis": 8,
        "pretrain_rows": 64,
        "val_rows": 8,
        "test_rows": 16,
        "multi_rows": 32,
        "ft_atlantis_rows": 96,
        "ft_world_rows": 16,
        "ft_warmup_rows": 4,
        "hidden_size": 16,
        "intermediate_size": 32,
        "n_heads": 2,
        "n_layers": 2,
        "batch_size": 32,
        "warmup_steps": 4,
        "n_checkpoints": 3,
        "loss": "full",
        "pretrain": {"epochs": 2, "learning_rate": 2e-3, "n_validations": 2},
        "finetune": {"epochs": (2, 2, 2), "learning_rate": 5e-4, "n_validations": 2},
    }


_PRESETS = {"paper": paper, "mini": mini, "smoke": smoke}


def resolve(
    model: ModelName,
    *,
    scale: str = "mini",
    world: str = "standard",
    seed: int = 42,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Complete settings of one stage: the scale's, fitted to the model's name, then the overrides.

    Raises InputError for an unknown name or a value out of bounds.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    values = _PRESETS[scale]()
    size, patience = _WIDTH_FACTORS[model.width]
    for name in ("hidden_size", "intermediate_size", "n_heads"):
        values[name] = max(1, round(values[name] * size))
    pretrain, finetune = values.pop("pretrain"), values.pop("finetune")
    if model.ft == NO_FT:
        share = len(TASK_NAMES) / len(model.tasks)  # fewer tasks, fewer rows: equally many steps
        values |= pretrain | {"epochs": round(pretrain["epochs"] * share * patience)}
    else:
        values |= finetune | {"epochs": finetune["epochs"][len(model.tasks) - 1]}
    for name in overrides or {}:
        if name not in OVERRIDABLE:
            raise unknown("setting", name, OVERRIDABLE)
        reader = FIELDS[name].metadata.get("strategy", model.strategy)
        if reader != model.strategy:
            raise InputError(
                f"{name} is read by strategy={reader} alone, and this is strategy={model.strategy}"
            )
    common = {
        "cities": "none",
        "world_seed": 42,
        "accumulation": 1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "precision": "auto",
        "compute": "auto",
        **USUAL,
    }
    names = {"scale": scale, "world": world, "seed": seed, "strategy": model.strategy}
    parts = {"pretrain": model.pretrain, "ft": model.ft, "width": model.width}
    return Settings(**{**common, **values, **(overrides or {}), **names, **parts})


def changed_settings(settings: Settings) -> dict[str, Any]:
    """The settings that are not those of the scale."""
    usual = resolve(
        settings.model_name, scale=settings.scale, world=settings.world, seed=settings.seed
    )
    return {
        name: getattr(settings, name)
        for name in OVERRIDABLE
        if getattr(settings, name) != getattr(usual, name)
    }


def base_settings(settings: Settings) -> Settings:
    """Settings of the pretraining that a fine-tuning starts from.

    The world, the rows, the model and the arithmetic are the same; the rest of the training is the
    scale's own.
    """
    arithmetic = {"precision": settings.precision, "compute": settings.compute}
    return resolve(
        settings.model_name.base,
        scale=settings.scale,
        world=settings.world,
        seed=settings.seed,
        overrides=settings.group(*SHARED_GROUPS) | arithmetic,
    )
