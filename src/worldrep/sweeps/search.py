"""What a sweep searches: its space of settings, read from YAML, and its objectives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from worldrep.data.sets import validation_sets
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError, check_name, shown, unknown
from worldrep.evaluation.improvement import headlines
from worldrep.evaluation.suites import VALIDATED_FACTS
from worldrep.names import TASK_NAMES, has_warmup_rows
from worldrep.settings import FIELDS, OVERRIDABLE, Settings, parse_names, parse_value
from worldrep.text_files import read_yaml

DEFAULT = "default"
LIBRARY = Path(__file__).parent / "library"
KEYS = ("low", "high", "log", "step")
OF_THE_BASE = {"precision", "compute"}  # another value would need another base
WITHOUT_EFFECT = {"n_checkpoints", "n_validations"}  # on the weights
AGGREGATES = ("transfer", "trained", "retention")
SPLITS = ("standard", "atlantis", "multi")
FACTS = ("mean", "median", "valid_ratio")
SINGLE = tuple(
    f"{split}/{task}/{fact}" for split in SPLITS for task in TASK_NAMES for fact in FACTS
)

Space = dict[str, BaseDistribution]
Metrics = Mapping[str, float]  # `<split>/<task>/<fact>` -> value


@dataclass(frozen=True)
class Objective:
    """A number to maximise or minimise. Raises InputError if its name is unknown.

    `transfer`, `trained` and `retention` are explained in `headlines`. Any other name is a metric
    of the evaluation, such as `atlantis/angle/mean`.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name in (*AGGREGATES, *SINGLE):
            return
        if "/" not in self.name:
            raise unknown("objective", self.name, (*AGGREGATES, "SPLIT/TASK/mean"))
        hint = str(unknown("objective", self.name, SINGLE)).split("; allowed")[0]
        raise InputError(
            f"{hint}; allowed: {', '.join(AGGREGATES)}, or SPLIT/TASK/FACT with SPLIT one of "
            f"{', '.join(SPLITS)}, FACT one of {', '.join(FACTS)}"
        )

    @property
    def needs_base(self) -> bool:
        return self.name in AGGREGATES

    @property
    def higher_is_better(self) -> bool:
        if self.needs_base or self.name.endswith("/valid_ratio"):
            return True
        return TASKS[self.name.split("/")[1]].accuracy

    def is_validated(self, settings: Settings) -> bool:
        """Whether the validations during a training measure it as well."""
        suite, _, fact = self.name.rpartition("/")
        return self.needs_base or (suite in validation_sets(settings) and fact in VALIDATED_FACTS)

    def value(self, metrics: Metrics, base: Metrics, settings: Settings) -> float:
        """Compute the objective from the metrics of a model and of its base."""
        if not self.needs_base:
            return metrics[self.name]
        return headlines(metrics, base, settings.tasks)[self.name]


def parse_objectives(text: str, settings: Settings) -> tuple[Objective, ...]:
    """Parse objectives such as `transfer,retention`. Raises InputError if one needs a base."""
    found = tuple(map(Objective, parse_names(text)))
    for objective in found:
        if objective.needs_base and not settings.is_finetuning:
            raise InputError(
                f"objective={objective.name} compares a fine-tuning with its base; a pretraining "
                "has single numbers, such as standard/angle/mean"
            )
    return found


def read_space(path: str, settings: Settings) -> Space:
    """Read the distributions of the searched settings by name; `default` is the stage's own file.

    Raises InputError if the file cannot be read, or a setting, range or value is invalid.
    """
    stage = "finetune" if settings.is_finetuning else "pretrain"
    file = LIBRARY / f"{stage}.yaml" if path == DEFAULT else Path(path)
    content = read_yaml(file, "search space")
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"search space {path} is not a list of settings with ranges such as "
            "`learning_rate: {low: 1e-6, high: 1e-3, log: true}`"
        )
    if path == DEFAULT:  # not every model uses every setting of the built-in space
        used = set(filter(settings.reads, searchable(settings)))
        content = {name: content[name] for name in content if name in used}
    try:
        for name in content.keys() & FIELDS.keys():
            key, value = FIELDS[name].metadata.get("reader", (name, None))
            if key not in content and not settings.reads(name):
                also = f", or search {key}" if key in OVERRIDABLE else ""
                raise InputError(f"{name} is read by {key}={value} alone: set that{also}")
        return {name: _distribution(name, given, settings) for name, given in content.items()}
    except InputError as fault:
        raise InputError(f"search space {path}: {fault}") from None


def combinations(space: Space) -> float:
    """Return how many different settings a space has; infinity if a setting is continuous."""
    return math.prod(map(_n_values, space.values()))


def _n_values(found: BaseDistribution) -> float:
    if isinstance(found, CategoricalDistribution):
        return len(found.choices)
    assert isinstance(found, IntDistribution | FloatDistribution)
    return (found.high - found.low) // found.step + 1 if found.step else math.inf


def searchable(settings: Settings) -> tuple[str, ...]:
    """List the settings in which trials may differ: those that change the training alone."""
    if not settings.is_finetuning:
        names = (*settings.group("training", "model"), "pretrain_rows")
        return tuple(name for name in names if name not in WITHOUT_EFFECT)
    names = (*settings.group("training", "ft_rows"), *settings.of_strategy)
    left_out = {*OF_THE_BASE, *WITHOUT_EFFECT, "strategy"}
    if not has_warmup_rows(settings.ft):
        left_out.add("ft_warmup_rows")
    return tuple(name for name in names if name not in left_out)


def _distribution(name: str, given: Any, settings: Settings) -> BaseDistribution:
    allowed = searchable(settings)
    if name not in allowed:
        kind = "setting to search here" if name in FIELDS else "setting"
        raise unknown(kind, name, allowed)
    if isinstance(given, dict):
        return _range(name, given, settings)
    if not isinstance(given, list):
        raise InputError(
            f"{name} is neither a range such as {{low: 1, high: 4}} nor a list of values such as "
            "[1, 2]"
        )
    values = tuple(dict.fromkeys(_value(name, text, settings) for text in given))
    if len(values) < 2:
        raise InputError(f"{name} has fewer than two different values to choose from")
    for value in values:
        replace(settings, **{name: value})  # checks the bounds
    return CategoricalDistribution(values)


def _range(name: str, given: Mapping[str, Any], settings: Settings) -> BaseDistribution:
    for key in given:
        check_name(f"key of {name}", key, KEYS)
    for key in ("low", "high"):
        if key not in given:
            raise InputError(f"{name} has no {key}")
    kind, log = FIELDS[name].type, given.get("log", "false")
    if kind == "str":
        raise InputError(f"{name} is not a number: list its values, such as [full, answer]")
    if log not in ("true", "false"):
        raise InputError(f"{name}: log={shown(log)} is not one of: true, false")
    log = log == "true"
    numbers = {k: _value(name, given[k], settings) for k in ("low", "high", "step") if k in given}
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    ends = f" runs from {low} to {high}:"
    fits = step is None or 0 < step <= high - low
    for is_right, fault in (
        (math.isfinite(low) and math.isfinite(high), f"{ends} both must be finite"),
        (low < high, f"{ends} low must be below high"),
        (not log or low > 0, f" runs from {low}: on a logarithmic scale it must be above 0"),
        (not log or step is None, " cannot have both log and step"),
        (fits, f": step={step} must be above 0 and within the range"),
    ):
        if not is_right:
            raise InputError(f"{name}{fault}")
    for end in (low, high):
        replace(settings, **{name: end})  # checks the bounds
    if kind == "int":
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _value(name: str, given: Any, settings: Settings) -> Any:
    """Parse a value; `2x` is twice the value of the settings."""
    if not isinstance(given, str):
        raise InputError(f"{name}: {shown(given)} is not one value but several")
    text = given
    if FIELDS[name].type == "str" or not text.endswith("x"):
        return parse_value(name, text)
    try:
        times = float(text.removesuffix("x"))
    except ValueError:
        fault = f"{name}: {shown(text)} is neither a number nor a multiple such as 2x"
        raise InputError(fault) from None
    if not math.isfinite(times):
        raise InputError(f"{name}: {shown(text)} is not a finite multiple")
    value = times * getattr(settings, name)
    if FIELDS[name].type == "float":
        return value
    return max(FIELDS[name].metadata.get("least") or 0, round(value))
