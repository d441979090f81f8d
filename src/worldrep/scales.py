"""The named scales, whose docstrings state purpose, cost and expected result; and `resolve`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from worldrep.errors import InputError, check_name
from worldrep.names import NO_FT, TASK_NAMES, ModelName
from worldrep.settings import FIELDS, NO_CITIES, OVERRIDABLE, SCALES, SHARED_GROUPS, Settings

# Width: factor of the model's sizes, factor of the epochs of pretraining.
_WIDTHS = {"base": (1, 1), "wide": (2, 0.5), "narrow": (0.5, 2), "wider": (4, 0.5)}


def paper() -> dict[str, Any]:
    """Reproduce the published study (arXiv 2602.00533) on one GPU.

    5,075 cities, 1.6 million parameters, 328,128 steps for pt1.
    """
    world = {"n_cities": 5075, "max_per_country": 0, "n_atlantis": 100, "id_digits": 4}
    rows = {"pretrain_rows": 1_000_000, "val_rows": 128, "test_rows": 10_000, "multi_rows": 10_000}
    ft = {"ft_atlantis_rows": 100_000, "ft_world_rows": 20_000, "ft_warmup_rows": 256}
    model = {"hidden_size": 128, "intermediate_size": 512, "n_heads": 4, "n_layers": 6}
    training = {"batch_size": 128, "warmup_steps": 50, "n_checkpoints": 10, "loss": "full"}
    optimizer: dict[str, Any] = {"accumulation": 1, "weight_decay": 0.01, "clip_norm": 1.0}
    optimizer |= {"optimizer": "adamw", "muon_learning_rate": 5e-3}
    common = {"cities": NO_CITIES, "world_seed": 42, "precision": "auto", "compute": "auto"}
    pretrain = {"epochs": 6, "learning_rate": 3e-4, "n_validations": 100}
    finetune = {"epochs": (30, 30, 20), "learning_rate": 1e-5, "n_validations": 20}
    stages = {"pretrain": pretrain, "finetune": finetune}
    return world | rows | ft | model | training | optimizer | common | stages


def small() -> dict[str, Any]:
    """Show the study's findings in a night on two CPU cores, or in minutes on a GPU.

    300 real cities and 20 of Atlantis, with 3-digit ids; 1.1 million parameters. A step of the base
    takes 0.15 to 0.18 s on two cores (26 minutes in all), a fine-tuning 2 to 4 minutes of one core.
    At seeds 1, 2, 3 the base's mean error is 13 to 15 in distance, 7 to 8 degrees in angle and 86
    to 122 in perimeter, its accuracy 0.97 (compass), 0.93 (inside) and 0.91 (crossing) or more.
    Fine-tuned on one task, it gains 1.12 on that task and 0.66 on the others; on two, 1.09 and
    0.69.
    """
    world = {"n_cities": 300, "n_atlantis": 20, "id_digits": 3}
    rows = {"pretrain_rows": 21_000, "val_rows": 200, "test_rows": 1_000, "multi_rows": 2_000}
    ft = {"ft_atlantis_rows": 20_000, "ft_world_rows": 4_000, "ft_warmup_rows": 128}
    pretrain = {"epochs": 8, "optimizer": "muon", "muon_learning_rate": 3e-3}
    pretrain |= {"learning_rate": 2e-3, "weight_decay": 0.2, "n_validations": 20}
    finetune = {"epochs": (3, 2, 2), "learning_rate": 3e-4, "n_validations": 5}
    training = {"n_layers": 4, "loss": "answer", "pretrain": pretrain, "finetune": finetune}
    return paper() | world | rows | ft | training


def mini() -> dict[str, Any]:
    """Show the study's effect in minutes on two CPU cores. This is the default.

    44 real cities, at most one of a country, and 12 of Atlantis, with 2-digit ids; 0.46 million
    parameters. The base takes 4 to 7 minutes, a fine-tuning 10 to 30 s, and the demo (29 models)
    10 to 15 minutes. At seed 42 the base's mean distance error is 3.4 on its own cities and 656 on
    Atlantis, its crossing accuracy 0.89 and 0.57. Fine-tuned on one task, it gains 0.92 on that
    task and 0.45 on the others; at seeds 1 and 2 0.95 and 0.53, 0.89 and 0.45.
    """
    world = {"n_cities": 44, "max_per_country": 1, "n_atlantis": 12, "id_digits": 2}
    rows = {"pretrain_rows": 32_000, "val_rows": 100, "test_rows": 500, "multi_rows": 500}
    ft = {"ft_atlantis_rows": 3_000, "ft_world_rows": 500, "ft_warmup_rows": 70}
    model = {"hidden_size": 96, "intermediate_size": 384, "n_heads": 3, "n_layers": 3}
    pretrain = {"epochs": 2, "optimizer": "muon", "muon_learning_rate": 0.01}
    pretrain |= {"learning_rate": 6e-3, "weight_decay": 0.3, "n_validations": 10}
    finetune = {"epochs": (4, 2, 2), "batch_size": 32, "learning_rate": 4e-4, "n_validations": 3}
    training = {"n_checkpoints": 4, "loss": "answer", "pretrain": pretrain, "finetune": finetune}
    return paper() | world | rows | ft | model | training


def smoke() -> dict[str, Any]:
    """Run every part of the pipeline in seconds, for tests. Nothing is learnt."""
    rows = {"pretrain_rows": 64, "val_rows": 8, "test_rows": 16, "multi_rows": 32}
    ft = {"ft_atlantis_rows": 96, "ft_world_rows": 16, "ft_warmup_rows": 4}
    sizes = {"n_cities": 20, "n_atlantis": 8}
    sizes |= {"hidden_size": 16, "intermediate_size": 32, "n_heads": 2, "n_layers": 2}
    training = {"batch_size": 32, "warmup_steps": 4, "n_checkpoints": 3}
    pretrain = {"epochs": 2, "learning_rate": 2e-3, "n_validations": 2}
    finetune = {"epochs": (2, 2, 2), "learning_rate": 5e-4, "n_validations": 2}
    stages = {"loss": "full", "pretrain": pretrain, "finetune": finetune}
    return mini() | rows | ft | sizes | training | stages


def resolve(
    model: ModelName,
    *,
    scale: str = "mini",
    world: str = "standard",
    seed: int = 42,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings of a model: those of the scale, fitted to its name, then the overrides.

    Args:
        model: The model, as parsed by `parse_model`.
        scale: One of `SCALES`.
        world: One of `VARIANTS`.
        seed: Seed of the initial weights and of the order of rows.
        overrides: Values by setting name, for any setting in `OVERRIDABLE`.

    Raises:
        InputError: A name is unknown, a value is out of bounds, or a setting is overridden that
            the model's strategy or optimizer does not read.
    """
    check_name("scale", scale, SCALES)
    values = {"paper": paper, "small": small, "mini": mini, "smoke": smoke}[scale]()
    size, length = _WIDTHS[model.width]
    for name in ("hidden_size", "intermediate_size", "n_heads"):
        values[name] = max(1, round(values[name] * size))
    pretrain, finetune = values.pop("pretrain"), values.pop("finetune")
    if model.ft == NO_FT:
        share = len(TASK_NAMES) / len(model.tasks)  # fewer tasks, fewer rows: equally many steps
        values |= pretrain | {"epochs": round(pretrain["epochs"] * share * length)}
    else:
        values |= finetune | {"epochs": finetune["epochs"][len(model.tasks) - 1]}
    overrides = dict(overrides or {})
    for name in overrides:
        check_name("setting", name, OVERRIDABLE)
    names = {"scale": scale, "world": world, "seed": seed} | asdict(model)
    settings = Settings(**values | overrides | names)
    for name in overrides:
        if not settings.reads(name):
            key, value = FIELDS[name].metadata["reader"]
            raise InputError(
                f"{name}={overrides[name]} has no effect: {name} is read by {key}={value} alone, "
                f"and this is {key}={getattr(settings, key)}; leave it out or set {key}={value}"
            )
    return settings


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from those of their scale and have an effect."""
    usual = asdict(_same_scale(settings, settings.model_name, {}))
    values = asdict(settings).items()
    return {k: value for k, value in values if value != usual[k] and settings.reads(k)}


def base_settings(settings: Settings) -> Settings:
    """Return the settings of the pretraining that a fine-tuning starts from.

    World, rows, model, precision and way of computing are shared; everything else is the scale's.
    """
    shared = {"precision": settings.precision, "compute": settings.compute}
    shared |= settings.group(*SHARED_GROUPS)
    return _same_scale(settings, settings.model_name.base, shared)


def _same_scale(settings: Settings, model: ModelName, overrides: dict[str, Any]) -> Settings:
    names = {name: getattr(settings, name) for name in ("scale", "world", "seed")}
    return resolve(model, **names, overrides=overrides)
