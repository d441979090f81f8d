"""The definition of a study, read from a YAML file: a user's, or one that comes with worldrep.

docs/studies.md shows a file with every key.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self

from worldrep.errors import InputError, check_name, unknown
from worldrep.names import PLAIN, STRATEGIES, WIDTHS, ModelName, parse_model
from worldrep.scales import resolve
from worldrep.settings import (
    OVERRIDABLE,
    SCALES,
    VARIANTS,
    Settings,
    parse_names,
    parse_seeds,
    parse_value,
)
from worldrep.stages.plan import ALL, LAST
from worldrep.text_files import read_yaml

LIBRARY = Path(__file__).parent / "library"
SUFFIXES = (".yaml", ".yml")
STEPS = ("train", "evaluate", "extract")
_ALLOWED = (WIDTHS, STRATEGIES, VARIANTS, STEPS, SCALES)

MOST_MODELS = 20_000
LONGEST_NAME = 60  # characters of the name of a study that is named by its models
_RANGE = re.compile(r"(.*-)([0-9]{1,9})\.\.([0-9]{1,9})(\+.*)?")
_NUMBERED = re.compile(r"(.*-)([0-9]+)(\+.*)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Definition:
    """The names that define a study. InputError for an unknown name, or if there is nothing to do.

    widths, strategies: empty for those in the models' names; checkpoints: last or all, of which
    those are evaluated and extracted; settings: overrides for every listed model; a setting that
    one strategy reads is for that strategy's models alone.
    """

    name: str
    models: tuple[str, ...]
    about: str = ""
    seeds: tuple[int, ...] = (42,)
    widths: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ("standard",)
    scale: str = "mini"
    steps: tuple[str, ...] = STEPS
    checkpoints: str = LAST
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("models", "seeds", "worlds", "steps"):
            if not getattr(self, key):
                raise InputError(f"study {self.name!r} has no {key}")
        found = {"width": self.widths, "strategy": self.strategies, "world": self.worlds}
        found |= {"step": self.steps, "scale": (self.scale,)}
        for (kind, values), names in zip(found.items(), _ALLOWED, strict=True):
            for value in values:
                check_name(kind, value, names)
        check_name("checkpoints", self.checkpoints, (LAST, ALL))
        _ = self.resolved  # checks the models' names and settings

    def asked_for(
        self, *, settings: Mapping[str, Any], scale: str | None = None,
        checkpoints: str | None = None, **lists: str | None,
    ) -> Self:  # fmt: skip
        """Return the study with those values that are not None. lists: as they are typed."""
        typed = {key: text for key, text in lists.items() if text is not None}
        found = {k: parse_seeds(v) if k == "seeds" else parse_names(v) for k, v in typed.items()}
        own = {"scale": scale, "checkpoints": checkpoints}
        return self.changed(**own, settings={**self.settings, **settings}, **found)

    def changed(self, **values: Any) -> Self:
        """Return the study with those values that are not None."""
        return replace(self, **{key: value for key, value in values.items() if value is not None})

    @cached_property
    def resolved(self) -> tuple[Settings, ...]:
        """The complete settings of every model, seed by seed, each once, in the order named."""
        models: dict[Settings, None] = {}
        count = len(self.seeds) * len(self.worlds) * len(self.model_names)
        if count > MOST_MODELS:
            raise InputError(f"study {self.name!r} has {count} models; at most {MOST_MODELS}")
        for seed, world, model in product(self.seeds, self.worlds, self.model_names):
            own = self._overrides(model)
            models[resolve(model, scale=self.scale, world=world, seed=seed, overrides=own)] = None
        return tuple(models)

    def _overrides(self, model: ModelName) -> dict[str, Any]:
        """Return the settings without those that only other models of this study read."""
        readers = self._readers
        return {k: v for k, v in self.settings.items() if model in readers[k] or not readers[k]}

    @cached_property
    def _readers(self) -> dict[str, set[ModelName]]:
        """The models that each of the settings has an effect on."""
        own = {k: v for k, v in self.settings.items() if k == "optimizer"}
        usual = {name: resolve(name, scale=self.scale, overrides=own) for name in self.model_names}
        return {k: {name for name, s in usual.items() if s.reads(k)} for k in self.settings}

    @cached_property
    def model_names(self) -> list[ModelName]:
        """The models that are listed, once for all seeds and worlds."""
        entries = dict.fromkeys(text for entry in self.models for text in _expanded(entry))
        names = [parse_model(text) for text in entries]
        for name in names:
            if self.widths and name.width != "base":
                raise InputError(f"model {name} names a width, and widths are given beside it")
            if self.strategies and name.strategy != PLAIN:
                text = f"model {name} names a strategy, and strategies are given beside it"
                raise InputError(text)
        if self.widths:
            names = [replace(name, width=width) for width in self.widths for name in names]
        if self.strategies:
            names = [name.tuned_by(strategy) for strategy in self.strategies for name in names]
        return names


def named_study(models: str) -> Definition:
    """Return the study of some models such as `pt1,pt1_ftwb2-1..21`, without a file."""
    shown = models if len(models) <= LONGEST_NAME else f"{models[:LONGEST_NAME]}..."
    return Definition(shown, parse_names(models))


def builtin_names() -> list[str]:
    """Return the names of the studies that come with worldrep."""
    return sorted(path.stem for path in LIBRARY.glob("*.yaml"))


def load_definition(name: str) -> Definition:
    """Return a built-in study by its name, or the study in a YAML file by its path."""
    if Path(name).suffix not in SUFFIXES:
        if name not in builtin_names():
            fault = unknown("study", name, builtin_names())
            raise InputError(f"{fault}, or a file whose name ends with .yaml")
        return _read(LIBRARY / f"{name}.yaml", name)
    stem = Path(name).stem
    if stem in builtin_names() or not _NAME.fullmatch(stem):
        raise InputError(
            f"a study is called after its file, and {stem!r} is taken or not made of letters, "
            "digits, - and _; give the file another name"
        )
    return _read(Path(name), stem)


def _read(path: Path, name: str) -> Definition:
    content = read_yaml(path, "study")
    if not isinstance(content, dict):
        raise InputError(f"study {path} is not a list of keys with values such as `models: [pt1]`")
    try:
        for key in content:
            check_name("key", key, _PARSERS)
        values = {key: _PARSERS[key](key, value) for key, value in content.items()}
        return Definition(name, **{"models": ()} | values)
    except InputError as fault:
        raise InputError(f"study {path}: {fault}") from None


def parse_settings(values: Any) -> dict[str, Any]:
    """Return overrides by name, each of its setting's type. Raises InputError."""
    if not isinstance(values, dict):
        raise InputError("settings is not a list of names with values such as `{epochs: 2}`")
    for key, value in values.items():
        check_name("setting", key, OVERRIDABLE)
        if not isinstance(value, str):
            raise InputError(f"{key} in settings is not one value but several")
    return {key: parse_value(key, value) for key, value in values.items()}


def _items(key: str, value: Any) -> tuple[str, ...]:
    """Return the items of a YAML list, or of a single value in its place."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or not item:
            raise InputError(f"{key} is not a list of names or numbers")
    return tuple(dict.fromkeys(items))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key} is not a text")
    return value


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("about", "scale", "checkpoints"), _text),
    "seeds": lambda key, value: parse_seeds(",".join(_items(key, value))),
    "settings": lambda key, value: parse_settings(value),
    **dict.fromkeys(("models", "widths", "strategies", "worlds", "steps"), _items),
}


def in_ranges(models: Iterable[str]) -> str:
    """Return models as a study takes them, such as `pt1,pt1_ftwb2-1..21`, in order."""
    found: dict[tuple[str, str], list[int]] = {}
    single = []
    for name in sorted(models):
        if match := _NUMBERED.fullmatch(name):
            found.setdefault((match[1], match[3] or ""), []).append(int(match[2]))
        else:
            single.append(name)
    parts = [*single]
    for (stem, end), numbers in found.items():
        numbers = sorted(numbers)
        starts = [n for n in numbers if n - 1 not in numbers]
        for first, last in zip(starts, [n for n in numbers if n + 1 not in numbers], strict=True):
            parts.append(f"{stem}{first}{f'..{last}' if last > first else ''}{end}")
    return ",".join(parts)


def _expanded(entry: str) -> list[str]:
    """Return the models of an entry such as `pt1_ftwb1-1..3+ewc`; others are one model."""
    found = _RANGE.fullmatch(entry)
    if not found:
        return [entry]
    stem, first, last = found[1], int(found[2]), int(found[3])
    if first > last:
        raise InputError(f"models {entry!r} run backwards")
    if last - first > 1000:
        raise InputError(f"models {entry!r} are too many")
    return [f"{stem}{k}{found[4] or ''}" for k in range(first, last + 1)]
