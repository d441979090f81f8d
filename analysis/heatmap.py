"""Matrix -> figure: heatmaps that can be read by someone who has not seen the code.

Red is bad, green or blue is good. Every cell also carries its number, so that nothing depends on
telling two colours apart. All lengths are inches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.canvas import OutlineCanvas
from analysis.matrices import Aggregate, cell_statistics, in_words, trained_mask
from analysis.normalize import HIGHEST
from worldrep.names import FINETUNINGS

CELL_WIDTH, CELL_HEIGHT, TALL_CELL_HEIGHT, LEAST_HEIGHT = 0.86, 0.33, 0.43, 2.8
TOP, RIGHT, EDGE, LINE = 1.42, 1.25, 0.2, 0.235
CHARACTER = 0.074  # width of a letter of a row label, generously
MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}
BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # of red, green and blue, to the eye
GAP = "\u2002\u2002"  # wide spaces, as SVG makes one of several ordinary ones
DPI = 120
SHOWN_CELLS = ("trained", "transfer")
HATCH: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": "0.55",
    "hatch": "/////",
    "linewidth": 0.0,
}
# The same input gives the same bytes; letters stay letters, to be searched and edited.
SAVING = {"svg.hashsalt": "worldrep", "svg.fonttype": "none", "hatch.linewidth": 0.7}


@dataclass(frozen=True)
class Kind:
    """What the numbers of a heatmap mean, and how they become colours."""

    label: str
    lines: tuple[str, ...]
    colours: str
    limits: tuple[float, float]
    extend: str
    number: str
    full: float | None  # what a bar as wide as its cell stands for; None: no bars

    def write(self, number: float) -> str:
        """A number with two decimals; zero has no sign."""
        return "0.00" if abs(number) < 0.005 else self.number.format(number)

    def mappable(self) -> ScalarMappable:
        return ScalarMappable(Normalize(*self.limits), matplotlib.colormaps[self.colours])


_ZERO_AND_ONE = (
    "0: as bad as the base on Atlantis. 1: as good as the base on the cities that it knows. "
    f"Cut off at 0 and {HIGHEST}."
)
PERFORMANCE = Kind(
    "normalised improvement (no unit)",
    ("What fine-tuning gained on Atlantis, the new cities.", _ZERO_AND_ONE),
    "RdYlGn",
    (0.0, 1.0),
    "max",
    "{:.2f}",
    HIGHEST,
)
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
    "RdBu",
    (-0.5, 0.5),
    "both",
    "{:+.2f}",
    None,
)


def draw_heatmap(
    matrix: pd.DataFrame | Aggregate, kind: Kind, title: str, about: str = ""
) -> Figure:
    """The figure of a matrix (rows: fine-tunings, columns: the seven tasks) or of several seeds'.

    about: where the numbers come from, in small print.
    """
    several = matrix if isinstance(matrix, Aggregate) and matrix.n_seeds > 1 else None
    values = matrix.mean if isinstance(matrix, Aggregate) else matrix
    notes = _notes(values, several, kind)
    height = max(LEAST_HEIGHT, len(values) * (TALL_CELL_HEIGHT if several else CELL_HEIGHT))
    figure, axes = _frame(values, height, bottom=LINE * (len(notes) + 2.2))
    _draw_cells(axes, values, kind, several)
    _label_axes(axes, values)
    _colour_bar(figure, axes, kind)
    _write_head(figure, title, kind.lines)
    _write_foot(figure, notes, about)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg; the same figure always gives the same files."""
    with matplotlib.rc_context(SAVING):
        png: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        figure.savefig(folder / f"{name}.png", dpi=DPI, **png)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _frame(values: pd.DataFrame, height: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure that is as large as its cells and labels need."""
    left = EDGE + 0.35 + CHARACTER * max(len(_row_label(ft)) for ft in values.index)
    width = CELL_WIDTH * len(values.columns)
    size = (left + width + RIGHT, TOP + height + bottom)
    figure = Figure(figsize=size)
    OutlineCanvas(figure)
    box = (left / size[0], bottom / size[1], width / size[0], height / size[1])
    return figure, figure.add_axes(box)


def _draw_cells(axes: Axes, values: pd.DataFrame, kind: Kind, several: Aggregate | None) -> None:
    numbers, colours = np.ma.masked_invalid(values.to_numpy(dtype=float)), kind.mappable()
    lowest, highest = kind.limits
    mesh: dict[str, Any] = {"cmap": kind.colours, "vmin": lowest, "vmax": highest}
    axes.pcolormesh(numbers, edgecolors="white", linewidth=1, **mesh)
    missing = np.ma.getmaskarray(numbers)
    inks = np.where(missing, "black", _inks(colours.to_rgba(numbers)))
    holes = [_box(row + 0.03, column + 0.02, 0.94, 0.96) for row, column in np.argwhere(missing)]
    axes.add_collection(PolyCollection(holes, **HATCH), autolim=False)
    present = [(int(row), int(column)) for row, column in np.argwhere(~missing)]
    for row, column in present:
        text, style = kind.write(numbers[row, column]), {"color": inks[row, column], **MIDDLE}
        axes.text(column + 0.5, row + (0.31 if several else 0.5), text, fontsize=9, **style)
        if several:
            below = _spread(several, row, column)
            axes.text(column + 0.5, row + 0.66, below, fontsize=7, **style)
    if kind.full:
        unit = len(values) * axes.figure.dpi / axes.bbox.height  # an inch, in rows
        sizes = {cell: 0.9 * numbers[cell] / kind.full for cell in present}
        bars = [
            _box(row + 1 - 0.06 * unit, column + 0.05, 0.025 * unit, size)
            for (row, column), size in sizes.items()
        ]
        inked = [inks[cell] for cell in present]
        axes.add_collection(PolyCollection(bars, facecolors=inked, linewidth=0), autolim=False)
    _mark_trained(axes, values, inks, missing)


def _box(top: float, left: float, height: float, width: float) -> list[tuple[float, float]]:
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _spread(several: Aggregate, row: int, column: int) -> str:
    """What stands below a mean: its spread, and how many seeds it has if not all."""
    spread, n = several.spread.iat[row, column], several.n.iat[row, column]
    text = "" if math.isnan(spread) else f"±{spread:.2f}"
    return f"{text} ({n})".strip() if n < several.n_seeds else text


def _mark_trained(
    axes: Axes, values: pd.DataFrame, inks: NDArray[np.str_], missing: NDArray[np.bool_]
) -> None:
    """A T in the corner of trained cells, readable on hatching too."""
    style: dict[str, Any] = {"va": "top", "fontsize": 7, "fontweight": "bold"}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for row, column in np.argwhere(trained_mask(list(values.index)).to_numpy()):
        box = behind if missing[row, column] else None
        axes.text(column + 0.05, row + 0.1, "T", color=inks[row, column], bbox=box, **style)


def _inks(colours: NDArray[np.float64]) -> NDArray[np.str_]:
    """Black or white, whichever can be read on colours (..., red green blue opacity)."""
    return np.where(colours[..., :3] @ BRIGHTNESS < 0.45, "white", "black")


def _row_label(ft: str) -> str:
    return f"{' + '.join(FINETUNINGS[ft])}{GAP}{ft}"


def _label_axes(axes: Axes, values: pd.DataFrame) -> None:
    rows, columns = len(values.index), len(values.columns)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_xticks(np.arange(columns) + 0.5, values.columns, fontsize=9)
    axes.set_yticks(np.arange(rows) + 0.5, [_row_label(ft) for ft in values.index], fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    width, height = axes.bbox.width / axes.figure.dpi, axes.bbox.height / axes.figure.dpi
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("tested on (questions about Atlantis)", va="bottom")
    axes.set_ylabel("fine-tuned on", va="top")
    axes.xaxis.set_label_coords(0.5, 1 + 0.28 / height)
    axes.yaxis.set_label_coords((EDGE - axes.bbox.x0 / axes.figure.dpi) / width, 0.5)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour_bar(figure: Figure, axes: Axes, kind: Kind) -> None:
    width, height = figure.get_size_inches()
    box = axes.get_position()
    tall = min(box.height, 3.6 / height)
    place = ((width - RIGHT + 0.2) / width, box.y1 - tall, 0.16 / width, tall)
    bar = figure.colorbar(
        kind.mappable(), cax=figure.add_axes(place), extend=kind.extend, extendfrac=0.04
    )
    bar.set_label(kind.label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)


def _notes(values: pd.DataFrame, several: Aggregate | None, kind: Kind) -> list[tuple[str, str]]:
    """What stands below the cells: (sign, text)."""
    statistics = cell_statistics(values)
    notes = [("", f"{cells} cells: {in_words(statistics[cells])}") for cells in SHOWN_CELLS]
    if kind.full:
        notes.append(("bar", f"the number as a length, as wide as its cell for {kind.full}"))
    notes.append(("T", "trained: the model was fine-tuned on this task (all others are transfer)"))
    if several:
        notes.append(("±", f"standard deviation over the {several.n_seeds} seeds"))
    if several and several.partial:
        partial = f"only n of the {several.n_seeds} seeds have this cell ({several.partial} cells)"
        notes.append(("(n)", partial))
    if statistics["all"]["missing"]:
        notes.append(("hatch", "missing in the store; missing.csv has the command that fills it"))
    return notes


def _write_head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    top, inches = figure.get_figheight() - 0.16, figure.dpi_scale_trans
    style: dict[str, Any] = {"va": "top", "transform": inches}
    figure.text(EDGE, top, title, fontsize=13, fontweight="bold", **style)
    for i, line in enumerate(lines):
        figure.text(EDGE, top - 0.32 - 0.2 * i, line, fontsize=9.5, **style)


def _write_foot(figure: Figure, notes: Sequence[tuple[str, str]], about: str) -> None:
    inches = figure.dpi_scale_trans
    style: dict[str, Any] = {"va": "center", "transform": inches}
    for i, (sign, text) in enumerate(notes):
        y = LINE * (len(notes) + 1.2 - i)
        if sign == "hatch":
            box = Rectangle((EDGE, y - 0.075), 0.32, 0.15, transform=inches, **HATCH)
            figure.add_artist(box)
        elif sign == "bar":
            bar: dict[str, Any] = {"facecolor": "black", "linewidth": 0, "transform": inches}
            figure.add_artist(Rectangle((EDGE, y - 0.012), 0.32, 0.024, **bar))
        else:
            figure.text(EDGE, y, sign, fontsize=8, fontweight="bold", **style)
        figure.text(EDGE + (0.42 if sign else 0), y, text, fontsize=9.5, **style)
    figure.text(EDGE, LINE * 0.6, about, fontsize=7.5, color="0.35", **style)
