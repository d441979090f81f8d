"""Kinds of heatmaps: what the numbers, rows and columns are, and the colours."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from analysis.statistics.matrices import Masks, trained_masks
from worldrep.evaluation.improvement import HIGHEST
from worldrep.names import FINETUNINGS

GAP = "\u2002\u2002"  # wide spaces, as SVG collapses ordinary ones


def finetuned_label(ft: str) -> str:
    """Return the tasks and the name of a fine-tuning."""
    return f"{' + '.join(FINETUNINGS[ft])}{GAP}{ft}"


@dataclass(frozen=True)
class Kind:
    """What the numbers, rows and columns of a heatmap mean, and how they are drawn.

    label: name and unit; lines: how to read the figure; colours: a colour map of matplotlib;
    limits: numbers at the ends of the colour bar; extend: ends beyond which numbers occur, as
    `Figure.colorbar` takes it; number: format of the numbers in the cells; full: number of a bar
    as wide as its cell, None for no bars; rows, columns: what they are, in words; masks: groups of
    cells that have statistics; shown: groups whose statistics the figure states; marked: group
    whose cells carry a T.
    """

    label: str
    lines: tuple[str, ...]
    colours: str
    limits: tuple[float, float]
    extend: str = "neither"
    number: str = "{:.2f}"
    full: float | None = None
    rows: str = "fine-tuned on"
    columns: str = "tested on (questions about Atlantis)"
    row_label: Callable[[str], str] = finetuned_label
    masks: Callable[[pd.DataFrame], Masks] = trained_masks
    shown: tuple[str, ...] = ("trained", "transfer")
    marked: str = "trained"

    def write(self, number: float) -> str:
        """Format a number with two decimals; zero has no sign."""
        return "0.00" if abs(number) < 0.005 else self.number.format(number)

    def mappable(self) -> ScalarMappable:
        """Return the mapping from numbers to colours."""
        return ScalarMappable(Normalize(*self.limits), self.colours)


_ZERO_AND_ONE = (
    "0: as bad as the base on Atlantis. 1: as good as the base on the cities that it knows. "
    f"Cut off at 0 and {HIGHEST}."
)
PERFORMANCE = Kind(
    "normalised improvement (no unit)",
    ("What fine-tuning gained on Atlantis, the new cities.", _ZERO_AND_ONE),
    "RdYlGn", (0.0, 1.0), "max", full=HIGHEST,
)  # fmt: skip
EXPECTED = replace(
    PERFORMANCE,
    label="expected normalised improvement (no unit)",
    lines=("The best of the models fine-tuned on one of the same tasks alone.", _ZERO_AND_ONE),
)
DIFFERENCE = Kind(
    "actual - expected (normalised improvement)",
    (
        "Expected is the best of the models fine-tuned on one of the same tasks alone.",
        "Blue, above 0: training together helps. Red, below 0: it interferes.",
    ),
    "RdBu", (-0.5, 0.5), "both", "{:+.2f}",
)  # fmt: skip
