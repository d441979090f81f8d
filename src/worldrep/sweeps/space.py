"""Search space of a sweep, read from a YAML file.

learning_rate: {low: 1e-6, high: 1e-3, log: true}
epochs: {low: 0.25x, high: 2x}     # times the value of the model's own settings
batch_size: [32, 64, 128]          # one of these
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from worldrep.errors import InputError, unknown
from worldrep.names import has_warmup_rows
from worldrep.settings import FIELDS, Settings, parse_value
from worldrep.studies.definition import read_yaml

DEFAULT = "default"
LIBRARY = Path(__file__).parent / "library"
KEYS = ("low", "high", "log", "step")
OF_THE_BASE = ("precision", "compute")  # another value would need another base
WITHOUT_EFFECT = ("n_checkpoints", "n_validations")  # on the weights

Space = dict[str, BaseDistribution]


def read_space(path: str, settings: Settings) -> Space:
    """Read the distributions of the searched settings by name.

    Args:
        path: A YAML file, or `default` for the built-in space of the stage.
        settings: The model's own settings, which the trials share apart from the space.

    Raises:
        InputError: The file cannot be read, a setting is unknown or cannot be searched, or a
            range or value is invalid.
    """
    stage = "finetune" if settings.is_finetuning else "pretrain"
    file = LIBRARY / f"{stage}.yaml" if path == DEFAULT else Path(path)
    content = read_yaml(file, "search space")
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"search space {path} is not a list of settings with ranges such as "
            "`learning_rate: {low: 1e-6, high: 1e-3, log: true}`"
        )
    if path == DEFAULT:  # not every mixture uses every setting of the built-in space
        content = {name: content[name] for name in content if name in searchable(settings)}
    try:
        _check_keys(yaml.compose(file.read_text()))
        return {name: _distribution(name, given, settings) for name, given in content.items()}
    except InputError as fault:
        raise InputError(f"search space {path}: {fault}") from None


def _check_keys(node: Any) -> None:
    """Raise InputError for a duplicate key: YAML would silently use the last one."""
    names = [key.value for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is there twice")


def searchable(settings: Settings) -> tuple[str, ...]:
    """List the settings in which trials may differ: those that change the training alone."""
    if settings.is_finetuning:
        groups = settings.group("training", "ft_rows") | settings.of_strategy
        left_out = {*OF_THE_BASE, *WITHOUT_EFFECT, "strategy"}
        left_out |= set() if has_warmup_rows(settings.ft) else {"ft_warmup_rows"}
    else:
        groups = settings.group("training", "model") | {"pretrain_rows": settings.pretrain_rows}
        left_out = set(WITHOUT_EFFECT)
    return tuple(name for name in groups if name not in left_out)


def _distribution(name: str, given: Any, settings: Settings) -> BaseDistribution:
    allowed = searchable(settings)
    if name not in FIELDS:
        raise unknown("setting", name, allowed)
    if name not in allowed:
        raise unknown("setting to search here", name, allowed)
    if isinstance(given, list):
        return _choices(name, given, settings)
    if isinstance(given, dict):
        return _range(name, given, settings)
    raise InputError(
        f"{name} is neither a range such as {{low: 1, high: 4}} nor a list of values such as [1, 2]"
    )


def _choices(name: str, given: list[Any], settings: Settings) -> CategoricalDistribution:
    values = tuple(dict.fromkeys(_value(name, text, settings) for text in given))
    if len(values) < 2:
        raise InputError(f"{name} has fewer than two different values to choose from")
    for value in values:
        replace(settings, **{name: value})  # raises when it is out of bounds
    return CategoricalDistribution(values)


def _range(name: str, given: Mapping[str, Any], settings: Settings) -> BaseDistribution:
    for key in given:
        if key not in KEYS:
            raise unknown(f"key of {name}", key, KEYS)
    for key in ("low", "high"):
        if key not in given:
            raise InputError(f"{name} has no {key}")
    kind, log = FIELDS[name].type, given.get("log", False)
    if kind == "str":
        raise InputError(f"{name} is not a number: list its values, such as [full, answer]")
    numbers = {k: _value(name, given[k], settings) for k in ("low", "high", "step") if k in given}
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    faults = (
        (not isinstance(log, bool), f": log={log!r} is not one of: true, false"),
        (not math.isfinite(low), f" runs from {low} to {high}: both must be finite"),
        (not math.isfinite(high), f" runs from {low} to {high}: both must be finite"),
        (low >= high, f" runs from {low} to {high}: low must be below high"),
        (log and low <= 0, f" runs from {low}: on a logarithmic scale it must be above 0"),
        (log and step is not None, " cannot have both log and step"),
        (
            step is not None and not 0 < step <= high - low,
            f": step={step} must be above 0 and within the range",
        ),
    )
    for is_wrong, message in faults:
        if is_wrong:
            raise InputError(f"{name}{message}")
    for value in (low, high):
        replace(settings, **{name: value})  # raises when it is out of bounds
    if kind == "int":
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _value(name: str, given: Any, settings: Settings) -> Any:
    """Parse a value; `2x` is twice the value of the settings."""
    text = str(given)
    if FIELDS[name].type == "str" or not text.endswith("x"):
        return parse_value(name, text)
    try:
        times = float(text.removesuffix("x"))
    except ValueError:
        raise InputError(
            f"{name}: {text!r} is neither a number nor a multiple such as 2x"
        ) from None
    if not math.isfinite(times):
        raise InputError(f"{name}: {text!r} is not a finite multiple")
    value = times * getattr(settings, name)
    if FIELDS[name].type == "float":
        return value
    return max(FIELDS[name].metadata.get("least") or 0, round(value))
