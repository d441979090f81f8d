"""The options that all analyses share, and how their commands end.

Only light modules are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from worldrep.endings import one_sentence
from worldrep.errors import InputError, unknown
from worldrep.names import WIDTHS
from worldrep.settings import SCALES, VARIANTS

IN_FORCE = "none"  # what stands for an experiment that was not named
ALL_SEEDS = "all"


@dataclass(frozen=True)
class Options:
    """Which models an analysis is about, and where its files go.

    experiment: None for the one in force; seeds: empty for all that the store has; log: whether
    the result is recorded in the store as well. Raises InputError for an unknown name.
    """

    out: Path
    experiment: str | None = None
    scale: str = "mini"
    width: str = "base"
    world: str = "standard"
    seeds: tuple[int, ...] = ()
    log: bool = True

    def __post_init__(self) -> None:
        for kind, allowed in (("scale", SCALES), ("width", WIDTHS), ("world", VARIANTS)):
            if getattr(self, kind) not in allowed:
                raise unknown(kind, getattr(self, kind), allowed)
        if any(seed < 0 for seed in self.seeds):
            raise InputError(f"seeds={self.seeds} must be at least 0")
        object.__setattr__(self, "seeds", tuple(sorted(set(self.seeds))))

    @property
    def names(self) -> dict[str, str]:
        """What every evaluation that is used has in common."""
        return {"scale": self.scale, "width": self.width, "world": self.world}


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1,2,3` -> (1, 2, 3), `all` -> (). Raises InputError for anything else."""
    if text.strip() == ALL_SEEDS:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"seeds={text!r} is neither {ALL_SEEDS!r} nor a list such as 1,2,3")
    return tuple(int(part) for part in parts)


def analysis_command(out: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function of Options (and of options of its own) the command of an analysis.

    It ends with exit code 2 for what the user typed, 1 for the state of the store or of a file.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def wrapped(**typed: Any) -> None:
            function(_options(typed), **typed)

        declared = _declare(one_sentence(wrapped), out)
        return click.command(context_settings={"max_content_width": 100})(declared)

    return decorate


def _declare(function: Callable[..., None], out: str) -> Callable[..., None]:
    texts = {
        "experiment": (IN_FORCE, "MLflow experiment; none: the one in force, or worldrep."),
        "scale": ("mini", f"Scale of the models: {', '.join(SCALES)}."),
        "width": ("base", f"Size of the models within the scale: {', '.join(WIDTHS)}."),
        "world": ("standard", f"Where Atlantis lies: {', '.join(VARIANTS)}."),
        "seeds": (ALL_SEEDS, "Seeds such as 1,2,3; all: every seed that the store has."),
        "out": (out, "Folder for figures and tables."),
    }
    no_log = click.option("--no-log", is_flag=True, help="Leave the store as it is.")
    function = no_log(function)
    for name, (default, text) in reversed(texts.items()):
        option = click.option(f"--{name}", name, default=default, show_default=True, help=text)
        function = option(function)
    return function


def _options(typed: dict[str, Any]) -> Options:
    """Take the shared options out of what was typed."""
    experiment, log = typed.pop("experiment"), not typed.pop("no_log")
    return Options(
        out=Path(typed.pop("out")),
        experiment=None if experiment == IN_FORCE else experiment,
        seeds=parse_seeds(typed.pop("seeds")),
        log=log,
        **{name: typed.pop(name) for name in ("scale", "width", "world")},
    )
