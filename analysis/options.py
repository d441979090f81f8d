"""Which models an analysis is about, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldrep.errors import InputError, unknown
from worldrep.names import PLAIN, STRATEGIES, WIDTHS
from worldrep.settings import SCALES, VARIANTS

ALL = "all"  # seeds, or widths


@dataclass(frozen=True)
class Options:
    """Which models an analysis is about, and where its files go.

    experiment: None for the one in force; width: `all` where an analysis compares widths; seeds:
    empty for all that the store has; log: whether the result is recorded in the store as well.
    Raises InputError for an unknown name.
    """

    out: Path
    experiment: str | None = None
    scale: str = "mini"
    width: str = "base"
    world: str = "standard"
    strategy: str = PLAIN
    seeds: tuple[int, ...] = ()
    log: bool = True

    def __post_init__(self) -> None:
        names = {"scale": SCALES, "width": (*WIDTHS, ALL), "world": VARIANTS}
        for kind, allowed in (names | {"strategy": STRATEGIES}).items():
            if getattr(self, kind) not in allowed:
                raise unknown(kind, getattr(self, kind), allowed)
        if any(seed < 0 for seed in self.seeds):
            raise InputError(f"seeds={self.seeds} must be at least 0")
        object.__setattr__(self, "seeds", tuple(sorted(set(self.seeds))))

    @property
    def names(self) -> dict[str, str]:
        """What every evaluation that is used has in common."""
        return {"scale": self.scale, "width": self.width, "world": self.world}

    @property
    def all_names(self) -> dict[str, str]:
        """What an analysis says that it is about."""
        return self.names | {"strategy": self.strategy}

    @property
    def widths(self) -> tuple[str, ...]:
        """The widths that are meant."""
        return WIDTHS if self.width == ALL else (self.width,)

    @property
    def in_words(self) -> str:
        """Such as `scale mini, width base, world standard`; a strategy if it is not plain."""
        strategy = {} if self.strategy == PLAIN else {"strategy": self.strategy}
        return ", ".join(f"{name} {value}" for name, value in (self.names | strategy).items())


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1,2,3` -> (1, 2, 3), `all` -> (). Raises InputError for anything else."""
    if text.strip() == ALL:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"seeds={text!r} is neither {ALL!r} nor a list such as 1,2,3")
    return tuple(int(part) for part in parts)
