"""Names of mixtures of tasks, of fine-tuning strategies and of models.

`pt1` is pretrained on all seven tasks, `pt1-3` on the third alone, `pt2-k` and `pt3-k` on the k-th
pair and triple. `ft1-k`, `ft2-k`, `ft3-k` fine-tune on one, two, three tasks; `ftwb*` adds warm-up
rows of all seven. A model is named `pt1`, `pt1_ftwb2-13`, with a width `pt1@wide_ftwb2-13`, with a
strategy against forgetting `pt1_ftwb2-13+lora`. The seed is not part of the name.
"""

from dataclasses import dataclass, replace
from typing import Self

from worldrep.errors import InputError, unknown

TASK_NAMES = ("distance", "trianglearea", "angle", "compass", "inside", "perimeter", "crossing")
WIDTHS = ("base", "wide", "narrow", "wider")
STRATEGIES = ("plain", "replay", "l2sp", "ewc", "lora", "freeze")  # of fine-tuning
NO_FT = "none"  # the value of `ft` for a pretrained model, as stored in params and tags
PLAIN = "plain"

Mixture = tuple[str, ...]


def _mixtures(text: str) -> tuple[Mixture, ...]:
    """Parse mixtures such as `angle+compass inside`, which are numbered from 1 in this order."""
    return tuple(tuple(names.split("+")) for names in text.split())


SINGLES = tuple((name,) for name in TASK_NAMES)
PAIRS = _mixtures("""
    distance+trianglearea angle+compass inside+perimeter crossing+distance trianglearea+angle
    compass+inside perimeter+crossing angle+distance compass+trianglearea angle+inside
    compass+perimeter crossing+inside distance+perimeter crossing+trianglearea compass+distance
    inside+trianglearea angle+perimeter compass+crossing distance+inside perimeter+trianglearea
    angle+crossing
""")
TRIPLES = _mixtures("""
    distance+trianglearea+angle compass+inside+perimeter crossing+distance+trianglearea
    angle+compass+inside perimeter+crossing+distance trianglearea+angle+compass
    inside+perimeter+crossing
""")


def _numbered(prefix: str, mixtures: tuple[Mixture, ...]) -> dict[str, Mixture]:
    return {f"{prefix}-{k}": mixture for k, mixture in enumerate(mixtures, start=1)}


PRETRAININGS: dict[str, Mixture] = {
    "pt1": TASK_NAMES,
    **_numbered("pt1", SINGLES),
    **_numbered("pt2", (*PAIRS[:7], ("distance", "angle"))),
    **_numbered("pt3", (*TRIPLES, ("distance", "trianglearea", "compass"))),
}
FINETUNINGS: dict[str, Mixture] = {
    f"{family}{name}": mixture
    for family in ("ft", "ftwb")
    for size, mixtures in (("1", SINGLES), ("2", PAIRS), ("3", TRIPLES))
    for name, mixture in _numbered(size, mixtures).items()
}
FAMILIES = ("ftwb1", "ftwb2", "ftwb3", "ft1", "ft2", "ft3")


def finetunings(family: str) -> tuple[str, ...]:
    """Return the fine-tunings of a family such as `ftwb2`, in order."""
    return tuple(ft for ft in FINETUNINGS if ft.startswith(f"{family}-"))


def family_in_words(family: str) -> str:
    """Describe a family, such as `two tasks and warm-up rows (ftwb2)`."""
    tasks = ("one task", "two tasks", "three tasks")[int(family[-1]) - 1]
    return f"{tasks}{' and warm-up rows' if has_warmup_rows(family) else ''} ({family})"


def has_warmup_rows(ft: str) -> bool:
    """Return whether a fine-tuning adds rows of all seven tasks (`ftwb*`)."""
    return ft.startswith("ftwb")


@dataclass(frozen=True)
class ModelName:
    """The name of a model, without its seed.

    Raises:
        InputError: A part is unknown (the message names the nearest one), or a strategy is given
            for a pretrained model.
    """

    pretrain: str
    ft: str = NO_FT
    width: str = "base"
    strategy: str = PLAIN

    def __post_init__(self) -> None:
        known = (PRETRAININGS, FINETUNINGS, WIDTHS, STRATEGIES)
        for (part, value), allowed in zip(vars(self).items(), known, strict=True):
            if value not in allowed and (part, value) != ("ft", NO_FT):
                raise unknown(part, value, allowed)
        if self.strategy != PLAIN and self.ft == NO_FT:
            raise InputError(f"strategy={self.strategy} is for fine-tuning; a pretraining is plain")

    def __str__(self) -> str:
        width = "" if self.width == "base" else f"@{self.width}"
        ft = "" if self.ft == NO_FT else f"_{self.ft}"
        strategy = "" if self.strategy == PLAIN else f"+{self.strategy}"
        return f"{self.pretrain}{width}{ft}{strategy}"

    @property
    def base(self) -> Self:
        """The pretrained model that this one starts from; a base is its own base."""
        return replace(self, ft=NO_FT, strategy=PLAIN)

    def tuned_by(self, strategy: str) -> Self:
        """Return the same model fine-tuned with another strategy; a base is returned unchanged."""
        return self if self.ft == NO_FT else replace(self, strategy=strategy)

    @property
    def tasks(self) -> Mixture:
        return PRETRAININGS[self.pretrain] if self.ft == NO_FT else FINETUNINGS[self.ft]


def parse_model(text: str) -> ModelName:
    """Parse a name such as `pt1@wide_ftwb2-13+lora`; `pt1@base` is `pt1`.

    Raises:
        InputError: The text is not of that form, or a part is unknown.
    """
    name, _, strategy = text.partition("+")
    base, _, ft = name.partition("_")
    pretrain, _, width = base.partition("@")
    if pretrain in FINETUNINGS and base == name == pretrain:
        raise InputError(
            f"model {text!r} has no base: write it before the fine-tuning, as in pt1_{text}"
        )
    if text.endswith("+") or name.endswith("_") or base.endswith("@"):
        forms = "pt1, pt1_ftwb2-13, pt1@wide_ft1-2 or pt1_ftwb2-13+lora"
        raise InputError(f"model {text!r} is not of the form {forms}")
    return ModelName(pretrain, ft or NO_FT, width or "base", strategy or PLAIN)
