"""What the commands share: their options, and how they end.

Only light modules are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from worldrep.errors import InputError, one_sentence, unknown
from worldrep.names import ModelName, parse_model
from worldrep.scales import resolve
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES, VARIANTS, Settings, parse_value

NONE = "none"  # what MLproject passes for an option that was not given


def command(function: Callable[..., None]) -> click.Command:
    """A click command that ends in one sentence and the right exit code when something is wrong."""
    return click.command(context_settings={"max_content_width": 100})(one_sentence(function))


def option(name: str, default: str, text: str) -> Callable:
    """An option under the name that MLproject gives it; its value is checked later."""
    return click.option(f"--{name}", name, default=default, show_default=True, help=text)


def name_options(function: Callable) -> Callable:
    """The names that choose a scale's settings."""
    for decorate in reversed(
        (
            option("seed", "42", "Seed of the initial weights and of the order of rows."),
            option("scale", "mini", f"Complete settings: {', '.join(SCALES)}."),
            option("world", "standard", f"Where Atlantis lies: {', '.join(VARIANTS)}."),
            option("experiment", NONE, "MLflow experiment; none: the one in force, or worldrep."),
        )
    ):
        function = decorate(function)
    return function


def override_options(function: Callable) -> Callable:
    """One option for every setting, so that any single value can be changed."""
    for name in reversed(OVERRIDABLE):
        text = f"Override: {FIELDS[name].metadata['help']}."
        function = click.option(f"--{name}", name, metavar="VALUE", help=text)(function)
    return function


def executor_options(function: Callable) -> Callable:
    """Where the steps of a study run."""
    for decorate in reversed(
        (
            option(
                "executor", "auto", "inline, processes, ray; auto: processes for several workers."
            ),
            option("workers", "1", "Steps at once."),
            option("cpus", "auto", "Cores of each worker; auto: an equal part of them (ray: 1)."),
            option("gpus", "auto", "GPUs of each worker, such as 0.25; auto: an equal part."),
            option("address", "local", "Of a Ray cluster: local, auto, HOST:PORT."),
        )
    ):
        function = decorate(function)
    return function


def overrides_from(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given a value."""
    return {
        name: parse_value(name, options[name])
        for name in OVERRIDABLE
        if options.get(name) is not None
    }


def settings_from(model: ModelName, options: dict[str, Any]) -> Settings:
    """Settings of a named model from the command's options."""
    return resolve(
        model,
        scale=options["scale"],
        world=options["world"],
        seed=parse_value("seed", options["seed"]),
        overrides=overrides_from(options),
    )


def given(value: str) -> str | None:
    """None for an option that was left at `none`."""
    return None if value == NONE else value


def named(kind: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise InputError when an option is none of its names."""
    if value not in allowed:
        raise unknown(kind, value, allowed)


def parse_count(name: str, text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise InputError(f"{name}={text!r} is not a whole number above 0")
    return int(text)


def flag(name: str, value: str) -> bool:
    """A yes-or-no option of MLproject, where every value is text."""
    if value.lower() not in ("true", "false"):
        raise InputError(f"{name}={value!r} is not one of: true, false")
    return value.lower() == "true"


def connect(options: dict[str, Any]):
    """The store that the command works on."""
    from worldrep.tracking import Store

    return Store.connect(given(options["experiment"]))


def announce(store, run_id: str, began: float) -> None:
    """Say where the result is, and let the run that `mlflow run` made point there.

    began: when the command began, in seconds since 1970; what ended before was there already.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    store.point_launch(run_id)
    run = store.get(run_id)
    word = "already done" if run.ended < began else "done"
    click.echo(f"{run.name}: {word}, run {run.id}")


def chosen_model(store, options: dict[str, Any]):
    """The trained model that `run_id`, or else `model` and the other names, stand for."""
    from worldrep.stages import find_model, model_by_run_id

    run_id, model = given(options["run_id"]), given(options["model"])
    if (run_id is None) == (model is None):
        raise InputError("name one model: either model=pt1_ftwb1-3 (with seed) or run_id=ID")
    if run_id is not None:
        overrides = [name for name in OVERRIDABLE if options.get(name) is not None]
        if overrides:
            raise InputError(f"run_id has settings of its own; leave out {', '.join(overrides)}")
        return model_by_run_id(store, run_id)
    assert model is not None
    return find_model(store, settings_from(parse_model(model), options))
