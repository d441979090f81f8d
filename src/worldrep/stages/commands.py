"""The commands that messages and analyses advise, and the names of a model in messages."""

import shlex
from collections.abc import Mapping

from worldrep.scales import changed_settings
from worldrep.settings import Settings
from worldrep.tracking import DEFAULT_EXPERIMENT


def command_line(entry: str, parameters: Mapping[str, object], experiment: str) -> str:
    """Return the command of an entry point with its parameters, as it is typed in a shell."""
    typed = " ".join(shlex.join(["-P", f"{key}={value}"]) for key, value in parameters.items())
    is_usual = experiment == DEFAULT_EXPERIMENT
    where = "" if is_usual else f" --experiment-name {shlex.quote(experiment)}"
    return f"mlflow run . -e {entry} {typed}{where} --env-manager local"


def training_command(
    settings: Settings, base_run: str | None = None, experiment: str = DEFAULT_EXPERIMENT
) -> str:
    """Return the command that trains a model, with every setting that differs from its scale's."""
    entry, own = "pretrain", ["pretrain"]
    if settings.is_finetuning:
        entry, own = "finetune", ["ft", *(["strategy"] if settings.of_strategy else [])]
    names = dict.fromkeys([*own, "pretrain", "seed", "scale", "width", "world"])
    names |= dict.fromkeys(changed_settings(settings))
    given = {key: getattr(settings, key) for key in names}
    return command_line(entry, given | ({"base_run": base_run} if base_run else {}), experiment)


def describe(settings: Settings) -> str:
    """Return all names of a model, for messages."""
    where = f"scale {settings.scale}, world {settings.world}"
    return f"{settings.model_name} seed {settings.seed} ({where})"
