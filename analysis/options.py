"""Options that all analyses share: which models one is about, and where its files go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worldrep import settings
from worldrep.errors import check_name
from worldrep.names import PLAIN, STRATEGIES, WIDTHS
from worldrep.settings import SCALES, VARIANTS

ALL = "all"  # seeds, widths, models or layers
_ALLOWED = {"scale": SCALES, "width": (*WIDTHS, ALL), "world": VARIANTS, "strategy": STRATEGIES}


@dataclass(frozen=True)
class Options:
    """The options that all analyses share. Raises InputError for an unknown name.

    experiment: None for the active one; width: `all` in an analysis that compares widths; seeds:
    empty for all in the store; log: record the result as a run, too; quiet: print
    nothing.
    """

    out: Path = Path("figures")
    experiment: str | None = None
    scale: str = "mini"
    width: str = "base"
    world: str = "standard"
    strategy: str = PLAIN
    seeds: tuple[int, ...] = ()
    log: bool = True
    quiet: bool = False

    def __post_init__(self) -> None:
        for kind, allowed in _ALLOWED.items():
            check_name(kind, getattr(self, kind), allowed)
        for seed in self.seeds:
            settings.check_value("seed", seed)
        object.__setattr__(self, "seeds", tuple(sorted(set(self.seeds))))

    @property
    def names(self) -> dict[str, str]:
        """Tags that all runs of the analysis have in common."""
        return {"scale": self.scale, "width": self.width, "world": self.world}

    @property
    def all_names(self) -> dict[str, str]:
        return self.names | {"strategy": self.strategy}

    @property
    def in_words(self) -> str:
        return in_words(self.names if self.strategy == PLAIN else self.all_names)


def in_words(names: Mapping[str, str]) -> str:
    """Return names as text, such as `scale mini, width base`."""
    return ", ".join(f"{name} {value}" for name, value in names.items())


def listed(numbers: Iterable[int]) -> str:
    """Return seeds or layers as text, each once and in order."""
    return ", ".join(map(str, sorted(set(numbers))))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse `1,2,3` to (1, 2, 3) and `all` to (). Raises InputError for anything else."""
    return () if text.strip() == ALL else settings.parse_seeds(text)
