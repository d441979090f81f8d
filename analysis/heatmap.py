"""Matrix -> figure: heatmaps that can be read by someone who has not seen the code.

Red is bad, green or blue is good. Every cell also carries its number, so that nothing depends on
telling two colours apart. All lengths are inches.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.matrices import Aggregate, cell_statistics, in_words, trained_mask
from analysis.normalize import HIGHEST
from worldrep.names import FINETUNINGS

CELL_WIDTH, CELL_HEIGHT, TALL_CELL_HEIGHT = 0.86, 0.33, 0.43
TOP, RIGHT, EDGE, LINE = 1.42, 1.25, 0.2, 0.235
CHARACTER = 0.074  # width of a letter of a row label, generously
DPI = 150
SHOWN_CELLS = ("trained", "transfer")
HATCH = {"facecolor": "white", "edgecolor": "0.55", "hatch": "/////", "linewidth": 0.0}
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
    several = matrix if isinstance(matrix, Aggregate) else None
    values = several.mean if several else matrix
    assert isinstance(values, pd.DataFrame)
    notes = _notes(values, several, kind)
    height = len(values) * (TALL_CELL_HEIGHT if several else CELL_HEIGHT)
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
        png = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        figure.savefig(folder / f"{name}.png", dpi=DPI, **png)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _frame(values: pd.DataFrame, height: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure that is as large as its cells and labels need."""
    left = EDGE + 0.35 + CHARACTER * max(len(_row_label(ft)) for ft in values.index)
    width = CELL_WIDTH * len(values.columns)
    size = (left + width + RIGHT, TOP + height + bottom)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    box = (left / size[0], bottom / size[1], width / size[0], height / size[1])
    return figure, figure.add_axes(box)


def _draw_cells(axes: Axes, values: pd.DataFrame, kind: Kind, several: Aggregate | None) -> None:
    colours, numbers = kind.mappable(), values.to_numpy(dtype=float)
    mesh = np.ma.masked_invalid(numbers)
    axes.pcolormesh(mesh, cmap=colours.cmap, norm=colours.norm, edgecolors="white", linewidth=1)
    inks = {cell: _ink(colours.to_rgba(number)) for cell, number in np.ndenumerate(numbers)}
    absent = [(row, column) for row, column in inks if math.isnan(numbers[row, column])]
    holes = [_box(row + 0.03, column + 0.02, 0.94, 0.96) for row, column in absent]
    axes.add_collection(PolyCollection(holes, **HATCH), autolim=False)
    present = [cell for cell in inks if cell not in absent]
    for row, column in present:
        text = kind.write(numbers[row, column])
        _write_number(axes, row, column, text, inks[row, column], several)
    if kind.full:
        bars = [_box(row + 0.86, col + 0.05, 0.07, 0.9 * numbers[row, col] / kind.full)
                for row, col in present]  # fmt: skip
        inked = [inks[cell] for cell in present]
        axes.add_collection(PolyCollection(bars, facecolors=inked, linewidth=0), autolim=False)
    _mark_trained(axes, values, inks, absent)


def _box(top: float, left: float, height: float, width: float) -> list[tuple[float, float]]:
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _mark_trained(
    axes: Axes,
    values: pd.DataFrame,
    inks: Mapping[tuple[int, ...], str],
    absent: Collection[tuple[int, int]],
) -> None:
    """A T in the corner of trained cells, readable on hatching too."""
    style = {"va": "top", "fontsize": 7, "fontweight": "bold"}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for row, column in np.argwhere(trained_mask(list(values.index)).to_numpy()).tolist():
        box = behind if (row, column) in absent else None
        axes.text(column + 0.05, row + 0.1, "T", color=inks[row, column], bbox=box, **style)


def _write_number(
    axes: Axes, row: int, column: int, text: str, ink: str, several: Aggregate | None
) -> None:
    middle = {"ha": "center", "va": "center", "color": ink}
    if several is None:
        axes.text(column + 0.5, row + 0.5, text, fontsize=9, **middle)
        return
    spread, n = several.spread.iat[row, column], int(several.n.iat[row, column])
    below = "" if math.isnan(spread) else f"±{spread:.2f}"
    below += f" ({n})" if n < several.n_seeds else ""
    axes.text(column + 0.5, row + 0.34, text, fontsize=9, **middle)
    axes.text(column + 0.5, row + 0.74, below, fontsize=7, **middle)


def _ink(colour: Sequence[float]) -> str:
    """Black or white, whichever can be read on a colour (red, green, blue, opacity)."""
    red, green, blue, opacity = colour
    return "white" if opacity and 0.299 * red + 0.587 * green + 0.114 * blue < 0.45 else "black"


def _row_label(ft: str) -> str:
    return f"{' + '.join(FINETUNINGS[ft])}   {ft}"


def _label_axes(axes: Axes, values: pd.DataFrame) -> None:
    rows, columns = len(values.index), len(values.columns)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_xticks(np.arange(columns) + 0.5, values.columns, fontsize=9)
    axes.set_yticks(np.arange(rows) + 0.5, [_row_label(ft) for ft in values.index], fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("task that the model is tested on, in questions about Atlantis", labelpad=6)
    axes.set_ylabel("tasks that the model was fine-tuned on")
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
    if several and several.n_seeds > 1:
        notes.append(("±", f"standard deviation over the {several.n_seeds} seeds"))
    if several and several.partial:
        notes.append(("(n)", f"only n of the {several.n_seeds} seeds have this cell"))
    if statistics["all"]["missing"]:
        notes.append(("hatch", "missing in the store; missing.csv has the command that fills it"))
    return notes


def _write_head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    top = 1 - 0.16 / height
    figure.text(EDGE / width, top, title, va="top", fontsize=13, fontweight="bold")
    for i, line in enumerate(lines):
        y = top - (0.32 + 0.2 * i) / height
        figure.text(EDGE / width, y, line, va="top", fontsize=9.5)


def _write_foot(figure: Figure, notes: Sequence[tuple[str, str]], about: str) -> None:
    width, height = figure.get_size_inches()
    foot = figure.add_axes((0, 0, 1, LINE * (len(notes) + 2.2) / height))
    foot.set(xlim=(0, width), ylim=(0, LINE * (len(notes) + 2.2)))
    foot.axis("off")
    for i, (sign, text) in enumerate(notes):
        y = LINE * (len(notes) + 1.2 - i)
        if sign == "hatch":
            foot.add_patch(Rectangle((EDGE, y - 0.075), 0.32, 0.15, **HATCH))
        elif sign == "bar":
            foot.add_patch(Rectangle((EDGE, y - 0.015), 0.32, 0.03, color="black", linewidth=0))
        else:
            foot.text(EDGE, y, sign, va="center", fontsize=8, fontweight="bold")
        foot.text(EDGE + (0.42 if sign else 0), y, text, va="center", fontsize=9.5)
    foot.text(EDGE, LINE * 0.6, about, va="center", fontsize=7.5, color="0.35")
