"""Matrix -> figure: heatmaps that can be read by someone who has not seen the code.

Every cell carries its number (in matrices of many columns the table does), so that nothing depends
on telling two colours apart. All lengths are inches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.kinds import Kind
from analysis.figures.page import (
    EDGE,
    HATCH,
    Note,
    foot_height,
    new_figure,
    wrapped,
    wrapped_notes,
    write_foot,
    write_head,
)
from analysis.statistics.matrices import (
    Aggregate,
    Summary,
    in_words,
)

CELL_HEIGHT, TALL_CELL_HEIGHT, LEAST_HEIGHT = 0.33, 0.43, 2.8
CELL_WIDTH, NARROW_CELL_WIDTH = 0.86, 0.64
MANY_COLUMNS, SMALL_CELL = 12, 0.2  # with more, cells are small squares without numbers
TOP, RIGHT, HEADING, SLANTED = 1.42, 1.25, 0.28, 0.36
CHARACTER = 0.074  # width of a letter of a row label, generously
MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}
BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # of red, green and blue, to the eye


@dataclass(frozen=True)
class Block:
    """One matrix of a figure, with a heading if there are several."""

    matrix: pd.DataFrame | Aggregate
    kind: Kind
    heading: str = ""

    @property
    def values(self) -> pd.DataFrame:
        return self.matrix.mean if isinstance(self.matrix, Aggregate) else self.matrix

    @property
    def several(self) -> Aggregate | None:
        """The matrix as a mean over seeds, if it is one of more than one."""
        is_mean = isinstance(self.matrix, Aggregate) and self.matrix.n_seeds > 1
        return self.matrix if is_mean else None  # type: ignore[return-value]

    @property
    def statistics(self) -> dict[str, Summary]:
        return self.kind.statistics(self.values)


def draw_heatmaps(
    blocks: Sequence[Block],
    title: str,
    lines: Sequence[str],
    about: str = "",
    sentences: Sequence[str] = (),
) -> Figure:
    """Matrices of the same rows side by side.

    lines: how they are to be read; sentences: further ones, below the figure.
    """
    first, n = blocks[0], len(blocks)
    tall = any(block.several for block in blocks)
    rows, columns = first.values.shape
    dense = columns > MANY_COLUMNS
    cell = SMALL_CELL if dense else TALL_CELL_HEIGHT if tall else CELL_HEIGHT
    height = max(0 if dense else LEAST_HEIGHT, rows * cell)
    left = (
        EDGE + 0.35 + CHARACTER * max(map(len, map(first.kind.frame.row_label, first.values.index)))
    )
    cells = columns * (SMALL_CELL if dense else CELL_WIDTH if n == 1 else NARROW_CELL_WIDTH)
    width = left + n * (cells + RIGHT)
    lines = wrapped(lines, width)
    notes = wrapped_notes([*_notes(blocks), *(("", text) for text in sentences)], width)
    top = TOP + 0.2 * (len(lines) - 2) + (HEADING if n > 1 else 0) + _turned(first, n > 1)
    bottom = foot_height(notes)
    figure = new_figure(width, top + height + bottom)
    for i, block in enumerate(blocks):
        x = left + i * (cells + RIGHT)
        place = (x / width, bottom / figure.get_figheight())
        size = (cells / width, height / figure.get_figheight())
        axes = figure.add_axes((*place, *size))
        _draw_cells(axes, block)
        _label_axes(axes, block, is_first=i == 0, slanted=n > 1)
        _colour_bar(figure, axes, block.kind)
    write_head(figure, title, lines)
    write_foot(figure, notes, about)
    return figure


def _turned(block: Block, slanted: bool) -> float:
    """The height that the names of the columns take beyond one line."""
    columns = block.values.columns
    if len(columns) > MANY_COLUMNS:
        return CHARACTER * max(len(str(column)) for column in columns) - 0.1
    return SLANTED if slanted else 0


def _draw_cells(axes: Axes, block: Block) -> None:
    values, kind, several = block.values, block.kind, block.several
    numbers, colours = np.ma.masked_invalid(values.to_numpy(dtype=float)), kind.mappable()
    lowest, highest = kind.limits
    mesh: dict[str, Any] = {"cmap": kind.colours, "vmin": lowest, "vmax": highest}
    axes.pcolormesh(numbers, edgecolors="white", linewidth=1, **mesh)
    missing = np.ma.getmaskarray(numbers)
    inks = np.where(missing, "black", _inks(colours.to_rgba(numbers)))
    holes = [_box(row + 0.03, column + 0.02, 0.94, 0.96) for row, column in np.argwhere(missing)]
    axes.add_collection(PolyCollection(holes, **HATCH), autolim=False)
    if values.shape[1] > MANY_COLUMNS:
        return
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
    if kind.frame.marked:
        _mark(axes, kind.frame.masks(values)[kind.frame.marked], inks, missing)


def _box(top: float, left: float, height: float, width: float) -> list[tuple[float, float]]:
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _spread(several: Aggregate, row: int, column: int) -> str:
    """What stands below a mean: its spread, and how many seeds it has if not all."""
    spread, n = several.spread.iat[row, column], several.n.iat[row, column]
    text = "" if math.isnan(spread) else f"±{spread:.2f}"
    full = several.n_seeds if several.full is None else several.full.iat[row, column]
    return f"{text} ({n})".strip() if n < full else text


def _mark(
    axes: Axes, marked: NDArray[np.bool_], inks: NDArray[np.str_], missing: NDArray[np.bool_]
) -> None:
    """A T in the corner of trained cells, readable on hatching too."""
    style: dict[str, Any] = {"va": "top", "fontsize": 7, "fontweight": "bold"}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for row, column in np.argwhere(marked):
        box = behind if missing[row, column] else None
        axes.text(column + 0.05, row + 0.1, "T", color=inks[row, column], bbox=box, **style)


def _inks(colours: NDArray[np.float64]) -> NDArray[np.str_]:
    """Black or white, whichever can be read on colours (..., red green blue opacity)."""
    return np.where(colours[..., :3] @ BRIGHTNESS < 0.45, "white", "black")


def _label_axes(axes: Axes, block: Block, *, is_first: bool, slanted: bool) -> None:
    """Names of rows, for the first matrix alone, and of columns, slanted where they are narrow."""
    values, frame = block.values, block.kind.frame
    rows, columns = values.shape
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    dense = columns > MANY_COLUMNS
    slant: dict[str, Any] = (
        {"rotation": 90}
        if dense
        else {"rotation": 30, "ha": "left", "rotation_mode": "anchor"}
        if slanted
        else {}
    )
    size = 8 if dense else 9
    axes.set_xticks(np.arange(columns) + 0.5, values.columns, fontsize=size, **slant)
    labels = [frame.row_label(row) for row in values.index] if is_first else [""] * rows
    axes.set_yticks(np.arange(rows) + 0.5, labels, fontsize=size)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    width, height = axes.bbox.width / axes.figure.dpi, axes.bbox.height / axes.figure.dpi
    above = 0.28 + _turned(block, slanted)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(frame.columns, va="bottom")
    axes.xaxis.set_label_coords(0.5, 1 + above / height)
    if slanted:
        style: dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "va": "bottom"}
        y = 1 + (above + HEADING) / height
        axes.text(0, y, block.heading, transform=axes.transAxes, **style)
    if is_first:
        axes.set_ylabel(frame.rows, va="top")
        axes.yaxis.set_label_coords((EDGE - axes.bbox.x0 / axes.figure.dpi) / width, 0.5)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour_bar(figure: Figure, axes: Axes, kind: Kind) -> None:
    width, height = figure.get_size_inches()
    box = axes.get_position()
    tall = min(box.height, 3.6 / height)
    place = (box.x1 + 0.2 / width, box.y1 - tall, 0.16 / width, tall)
    bar = figure.colorbar(
        kind.mappable(), cax=figure.add_axes(place), extend=kind.extend, extendfrac=0.04
    )
    bar.set_label(kind.label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)


def _notes(blocks: Sequence[Block]) -> list[Note]:
    """What stands below the cells."""
    notes = [note for block in blocks for note in _statistics_notes(block)]
    dense = any(block.values.shape[1] > MANY_COLUMNS for block in blocks)
    notes += _dense_notes(blocks) if dense else _sign_notes(blocks)
    if any(block.values.isna().to_numpy().any() for block in blocks):
        notes.append(("hatch", "missing in the store; missing.csv has the command that fills it"))
    return notes


def _dense_notes(blocks: Sequence[Block]) -> list[Note]:
    """What is not written into small cells."""
    partial = sum(block.several.partial for block in blocks if block.several)
    rest = f"; {partial} cells rest on some of the seeds only" if partial else ""
    return [("", f"the number of each cell is in the table of the same name{rest}")]


def _sign_notes(blocks: Sequence[Block]) -> list[Note]:
    """What the signs in the cells mean."""
    notes = []
    if any(block.kind.full for block in blocks):
        full = next(block.kind.full for block in blocks if block.kind.full)
        notes.append(("bar", f"the number as a length, as wide as its cell for {full}"))
    if any(block.kind.frame.marked for block in blocks):
        text = "trained: the model was fine-tuned on this task (all others are transfer)"
        notes.append(("T", text))
    means = [block.several for block in blocks if block.several]
    if means:
        most = max(means, key=lambda mean: mean.n_seeds)
        notes.append(("±", f"standard deviation over {most.in_words}"))
        partial = sum(mean.partial for mean in means)
        if partial:
            text = f"only n of {most.in_words} have this cell ({partial} cells)"
            notes.append(("(n)", text))
    return notes


def _statistics_notes(block: Block) -> list[Note]:
    statistics, shown = block.statistics, block.kind.frame.shown
    if not block.heading:
        return [("", f"{cells} cells: {in_words(statistics[cells])}") for cells in shown]
    parts = "; ".join(f"{cells} {in_words(statistics[cells])}" for cells in shown)
    return [("", f"{block.heading}: {parts}")]
