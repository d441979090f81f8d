"""The fewest commands that do what many single ones do: a study in place of a list of them."""

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby, product
from typing import NamedTuple

from worldrep.names import NO_FT, PLAIN, WIDTHS, ModelName, parse_model
from worldrep.settings import OVERRIDABLE
from worldrep.stages.commands import command_line, parsed_command
from worldrep.stages.plan import ALL, LAST
from worldrep.studies.definition import (
    STEPS,
    Definition,
    builtin_names,
    in_ranges,
    load_definition,
)

Member = tuple[str, int]  # model, seed
_NAMES = {"ft", "pretrain", "width", "strategy", "model", "seed", "scale", "world"}


class _Group(NamedTuple):
    """What the models of one study have in common."""

    experiment: str
    scale: str
    world: str
    overrides: tuple[tuple[str, str], ...]
    checkpoints: str
    are_bases: bool | None  # None without overrides: else a base of the study would have them, too


def fewest_commands(
    commands: Iterable[str], present: Collection[Member] = ()
) -> dict[str, list[str]]:
    """Return what to type in place of each command; `in_order` has it all, as it is to be typed.

    A study takes the place of several commands: one of the library if it has their models and
    otherwise only models that are present, else one that names their models.

    Args:
        commands: As `command_line` makes them; several in one text are joined by `&&`.
        present: Model and seed of what a study would find done.
    """
    parts = {text: [shlex.join(words) for words in _split(text)] for text in commands}
    every = dict.fromkeys(part for own in parts.values() for part in own)
    groups: dict[_Group, list[tuple[str, str, Member]]] = defaultdict(list)
    for part in every:
        if found := _work_of(part):
            groups[found[0]].append((part, *found[1:]))
    instead = {part: part for part in every}
    for group, works in groups.items():
        if len(works) > 1:
            kinds = {member: {k for _, k, m in works if m == member} for *_, member in works}
            studies = _studies(group, kinds, set(present))
            instead |= {part: studies[member] for part, _, member in works}
    return {text: in_order(instead[part] for part in own) for text, own in parts.items()}


def in_order(commands: Iterable[str]) -> list[str]:
    """Return each command once, in the order to type them."""
    return sorted(dict.fromkeys(commands), key=_rank)


def _rank(command: str) -> int:
    """Damaged runs are deleted first; what a study does not do may need what it does."""
    words = shlex.split(command)
    return 0 if words[1] == "runs" else 1 if "study" in words else 2


def _split(text: str) -> Iterator[list[str]]:
    for is_join, words in groupby(shlex.split(text), lambda word: word == "&&"):
        if not is_join:
            yield list(words)


def _work_of(command: str) -> tuple[_Group, str, Member] | None:
    """Return the group, the kind and the model of a command; None if no study does its work."""
    parsed = parsed_command(command)
    if parsed is None:
        return None
    entry, given, experiment = parsed
    checkpoints = given.pop("checkpoints", LAST)
    if not given.keys() <= _NAMES | set(OVERRIDABLE) or checkpoints not in (LAST, ALL):
        return None
    kind = {"pretrain": "train", "finetune": "train"}.get(entry, entry)
    model = str(_model_of(given)) if kind == "train" else given["model"]
    overrides = tuple(sorted((k, v) for k, v in given.items() if k not in _NAMES))
    are_bases = parse_model(model).ft == NO_FT if overrides else None
    place = given["scale"], given.get("world", "standard")
    group = _Group(experiment, *place, overrides, checkpoints, are_bases)
    return group, kind, (model, int(given["seed"]))


def _model_of(given: Mapping[str, str]) -> ModelName:
    usual = {"pretrain": "pt1", "ft": NO_FT, "width": "base", "strategy": PLAIN}
    return ModelName(**{name: given.get(name, value) for name, value in usual.items()})


def _studies(
    group: _Group, kinds: Mapping[Member, set[str]], present: set[Member]
) -> dict[Member, str]:
    """Return the study that does the work of each model, as few as possible."""
    every = set().union(*kinds.values())
    allowed = kinds.keys() | (present if group.checkpoints == LAST else set())
    models, seeds = {model for model, _ in kinds}, sorted({seed for _, seed in kinds})
    if not group.overrides and group.checkpoints == LAST:
        for definition in _library():
            if parameters := _covering(definition, group, models, seeds, every, allowed):
                return dict.fromkeys(kinds, command_line("study", parameters, group.experiment))
    if set(product(models, seeds)) <= allowed:
        return dict.fromkeys(kinds, _named(group, models, seeds, every))
    by_seeds: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for model in models:
        by_seeds[tuple(seed for seed in seeds if (model, seed) in kinds)].add(model)
    studies: dict[Member, str] = {}
    for some, own in by_seeds.items():
        members = [*product(own, some)]
        needed = set().union(*(kinds[member] for member in members))
        studies |= dict.fromkeys(members, _named(group, own, some, needed))
    return studies


@lru_cache(maxsize=1)
def _library() -> list[Definition]:
    # The models of the demo are those of exp1, whose name says what they are for.
    return [load_definition(name) for name in builtin_names() if name != "demo"]


def _covering(
    definition: Definition, group: _Group, models: set[str], seeds: Iterable[int],
    kinds: set[str], allowed: Collection[Member],
) -> dict[str, str]:  # fmt: skip
    """Return the parameters of a study of the library that has these models; {} if none does.

    It has no other models than those allowed.
    """
    widths = {parse_model(model).width for model in models}
    own = {str(name) for name in definition.model_names if name.width in widths}
    fits = definition.worlds == (group.world,) and kinds <= {"train", *definition.steps}
    if not fits or not models <= own or not set(product(own, seeds)) <= set(allowed):
        return {}
    parameters = {"name": definition.name, "seeds": ",".join(map(str, seeds))}
    if definition.widths and widths != set(definition.widths):
        parameters["widths"] = ",".join(width for width in WIDTHS if width in widths)
    return parameters | _scale_of(group)


def _named(group: _Group, models: set[str], seeds: Iterable[int], kinds: set[str]) -> str:
    """Return the study that names its models."""
    parameters = {"models": in_ranges(models), "seeds": ",".join(map(str, seeds))}
    parameters |= _scale_of(group)
    parameters |= {} if group.world == "standard" else {"worlds": group.world}
    steps = [kind for kind in STEPS[1:] if kind in kinds] or ["train"]
    parameters |= {} if steps == [*STEPS[1:]] else {"steps": ",".join(steps)}
    parameters |= {} if group.checkpoints == LAST else {"checkpoints": group.checkpoints}
    return command_line("study", parameters | dict(group.overrides), group.experiment)


def _scale_of(group: _Group) -> dict[str, str]:
    return {} if group.scale == "mini" else {"scale": group.scale}
