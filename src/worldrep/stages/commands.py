"""The commands that messages and analyses advise, and the names of a model in messages."""

import shlex
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from worldrep.scales import changed_settings
from worldrep.settings import Settings
from worldrep.tracking import DEFAULT_EXPERIMENT, Store, run_page, sqlite_file

_USUAL = {"pretrain": "pt1", "seed": 42, "scale": "mini", "width": "base", "world": "standard"}


def command_line(entry: str, parameters: Mapping[str, object], experiment: str) -> str:
    """Return the command of an entry point with its parameters, as it is typed in a shell.

    In the folder of the project it is one of `mlflow run`, elsewhere one of `worldrep`.
    """
    pairs = [f"{key}={value}" for key, value in parameters.items()]
    other = [] if experiment == DEFAULT_EXPERIMENT else [experiment]
    if not Path("MLproject").is_file():
        pairs += [f"experiment={name}" for name in other]
        command = "demo" if entry == "main" else entry
        return shlex.join(["worldrep", command, *(f"--{pair}" for pair in pairs)])
    words = [word for pair in pairs for word in ("-P", pair)]
    words += [word for name in other for word in ("--experiment-name", name)]
    return shlex.join(["mlflow", "run", ".", "-e", entry, *words, "--env-manager", "local"])


def parsed_command(text: str) -> tuple[str, dict[str, str], str] | None:
    """Return entry point, parameters and experiment of what `command_line` made, else None."""
    words = shlex.split(text)
    if words[0] == "worldrep":
        given = dict(word.removeprefix("--").split("=", 1) for word in words[2:])
        return words[1], given, given.pop("experiment", DEFAULT_EXPERIMENT)
    if words[:4] == ["mlflow", "run", ".", "-e"]:
        given = dict(word.split("=", 1) for option, word in pairwise(words) if option == "-P")
        return words[4], given, dict(pairwise(words)).get("--experiment-name", DEFAULT_EXPERIMENT)
    return None


def to_look(store: Store, run_id: str) -> str:
    """Return how to open a run in the MLflow UI."""
    page = "/" + run_page(store.experiment_id, run_id)
    if store.uri.startswith("http"):
        return f"{store.address}{page}"
    is_usual = sqlite_file(store.uri) == Path("mlflow.db").resolve()
    server = [] if is_usual else ["--backend-store-uri", store.address]
    command = shlex.join([_program("mlflow"), "server", *server])
    return f"{command}, then open http://127.0.0.1:5000{page}"


def _program(name: str) -> str:
    """Return how a program of this environment is called; it may not be on the user's PATH."""
    path = Path(sys.executable).parent / name
    inside = path.is_file() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if inside else name


def training_command(
    settings: Settings, base_run: str | None = None, experiment: str = DEFAULT_EXPERIMENT
) -> str:
    """Return the command that trains a model, without what is the default."""
    entry, own = "pretrain", ["pretrain"]
    if settings.is_finetuning:
        entry, own = "finetune", ["ft", *(["strategy"] if settings.of_strategy else [])]
    names = dict.fromkeys([*own, "pretrain", "seed", "scale", "width", "world"])
    names |= dict.fromkeys(changed_settings(settings))
    values = {key: getattr(settings, key) for key in names}
    given = {key: value for key, value in values.items() if value != _USUAL.get(key)}
    return command_line(entry, given | ({"base_run": base_run} if base_run else {}), experiment)


def describe(settings: Settings) -> str:
    """Return all names of a model, for messages."""
    where = f"scale {settings.scale}, world {settings.world}"
    return f"{settings.model_name} seed {settings.seed} ({where})"
