"""Heatmaps: matrices as figures, with the number in every cell.

Matrices of many columns have small cells without numbers, which their table has. All lengths are
inches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.cells import draw_cells, draw_image
from analysis.figures.kinds import Heatmap, Kind
from analysis.figures.marks import MarkedFigure
from analysis.figures.page import (
    EDGE,
    Note,
    foot_height,
    head_height,
    wrapped,
    wrapped_notes,
    write_foot,
    write_head,
)
from analysis.statistics.matrices import Aggregate, Summary, in_words

CELL_HEIGHT, TALL_CELL_HEIGHT, LEAST_HEIGHT = 0.33, 0.43, 2.8
CELL_WIDTH, NARROW_CELL_WIDTH = 0.86, 0.64
SMALL_CELL = 0.2  # of dense matrices
TOP, RIGHT, HEADING, SLANTED = 1.42, 1.25, 0.28, 0.36
SEED_CELL, SEED_GAP, SEED_BAR, SEEDS_WIDTH = 0.16, 0.25, 1.1, 12.0  # of small multiples
CHARACTER = 0.074  # width of a letter of a row label, generously


@dataclass(frozen=True, kw_only=True)
class Panel(Heatmap):
    """A heatmap with its statistics and the words around it.

    Args:
        name: File name without ending.
        title: Title of the figure.
        summary: Statistics of the groups of cells, by group.
        heading: Heading when several matrices are side by side.
        notes: Further sentences, below the figure and printed.
        stem: Part of the name that all seeds share; empty for a matrix that stands alone.
        which: Which seed this is, or `mean over seeds`; empty for a matrix that stands alone.
    """

    name: str
    title: str
    summary: Mapping[str, Summary]
    heading: str = ""
    notes: tuple[str, ...] = ()
    stem: str = ""
    which: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        return self.kind.lines

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The matrix; of several seeds also the standard deviation and number in each cell."""
        tables = {self.name: self.values}
        if isinstance(self.matrix, Aggregate):
            tables |= {f"{self.name}_std": self.matrix.spread, f"{self.name}_n": self.matrix.n}
        return tables

    @property
    def statistics(self) -> dict[str, Mapping[str, Summary]]:
        return {self.name: self.summary}

    @property
    def said(self) -> list[str]:
        parts = [f"{group} {_short(self.summary[group])}" for group in self.kind.frame.shown]
        parts += [f"{self.partial} cells of some seeds only"] if self.partial else []
        return [f"{self.name}: {text}" for text in ("; ".join(parts), *self.notes)]

    def draw(self, about: str) -> Figure:
        return draw_heatmaps([self], self.title, self.lines, about, self.notes)


@dataclass(frozen=True)
class Strip:
    """Several matrices with the same rows side by side. lines: how to read them."""

    name: str
    title: str
    lines: tuple[str, ...]
    panels: Sequence[Panel]
    notes: tuple[str, ...] = ()

    @property
    def which(self) -> str:
        """The seed, or `mean over seeds`, that all panels show."""
        return self.panels[0].which

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: table for panel in self.panels for name, table in panel.tables.items()}

    @property
    def statistics(self) -> dict[str, Mapping[str, Summary]]:
        return {name: facts for panel in self.panels for name, facts in panel.statistics.items()}

    @property
    def said(self) -> list[str]:
        return [line for panel in self.panels for line in panel.said]

    def draw(self, about: str) -> Figure:
        return draw_heatmaps(self.panels, self.title, self.lines, about, self.notes)


def draw_heatmaps(
    panels: Sequence[Panel],
    title: str,
    lines: Sequence[str],
    about: str = "",
    sentences: Sequence[str] = (),
) -> Figure:
    """Draw matrices of the same rows side by side.

    Args:
        panels: The matrices.
        title: Title of the figure.
        lines: How to read it.
        about: Where the numbers come from, in small print.
        sentences: Further notes below the figure.
    """
    first, n = panels[0], len(panels)
    rows, columns = first.values.shape
    tall = any(panel.several for panel in panels)
    cell = SMALL_CELL if first.is_dense else TALL_CELL_HEIGHT if tall else CELL_HEIGHT
    height = max(0 if first.is_dense else LEAST_HEIGHT, rows * cell)
    wide = SMALL_CELL if first.is_dense else CELL_WIDTH if n == 1 else NARROW_CELL_WIDTH
    left, cells = _label_width(first), columns * wide
    width = left + n * (cells + RIGHT)
    lines = wrapped(lines, width)
    notes = wrapped_notes([*_notes(panels), *(("", text) for text in sentences)], width)
    top = TOP + 0.2 * (len(lines) - 2) + (HEADING if n > 1 else 0) + _turned(first, n > 1)
    bottom = foot_height(notes)
    figure = MarkedFigure(width, top + height + bottom)
    for i, panel in enumerate(panels):
        axes = _add_axes(figure, left + i * (cells + RIGHT), bottom, cells, height)
        draw_cells(axes, panel)
        _label_axes(axes, panel, is_first=i == 0, slanted=n > 1)
        _colour_bar(figure, axes, panel.kind)
    write_head(figure, title, lines)
    write_foot(figure, notes, about)
    return figure


def draw_seeds(panels: Sequence[Panel], title: str, about: str = "") -> Figure:
    """Draw the matrices of single seeds as small multiples: colours alone, a row for each model.

    The hover text of a row has its numbers, and the row links to its run.
    """
    rows, columns = panels[0].values.shape
    left, cells, height = _label_width(panels[0]), columns * SEED_CELL, rows * SEED_CELL
    above = 0.35 + CHARACTER * max(len(str(column)) for column in panels[0].values.columns)
    in_row = max(1, min(len(panels), int((SEEDS_WIDTH - left - SEED_BAR) / (cells + SEED_GAP))))
    lines_of_panels = math.ceil(len(panels) / in_row)
    width = max(left + in_row * (cells + SEED_GAP) + SEED_BAR, CHARACTER * 1.5 * len(title))
    head, bottom = head_height(()), foot_height(())
    figure = MarkedFigure(width, head + lines_of_panels * (above + height) + bottom)
    for i, panel in enumerate(panels):
        row, column = divmod(i, in_row)
        y = bottom + (lines_of_panels - row - 1) * (above + height)
        axes = _add_axes(figure, left + column * (cells + SEED_GAP), y, cells, height)
        draw_image(axes, panel, panel.which)
        _label_axes(axes, panel, is_first=column == 0, slanted=False, small=True)
        axes.set_title(panel.which, fontsize=9, fontweight="bold", loc="left", pad=3)
        if i == min(in_row, len(panels)) - 1:
            _colour_bar(figure, axes, panel.kind)
    write_head(figure, title, ())
    write_foot(figure, (), about)
    return figure


def _add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((x / wide, y / high, width / wide, height / high))


def _label_width(panel: Panel) -> float:
    longest = max(len(panel.kind.frame.row_label(row)) for row in panel.values.index)
    return EDGE + 0.35 + CHARACTER * longest


def _turned(panel: Panel, slanted: bool) -> float:
    """The height of the column names beyond one line."""
    if panel.is_dense:
        return CHARACTER * max(len(str(column)) for column in panel.values.columns) - 0.1
    return SLANTED if slanted else 0


# Axes


def _label_axes(
    axes: Axes, panel: Panel, *, is_first: bool, slanted: bool, small: bool = False
) -> None:
    """Write the names of columns, and of rows for the first matrix."""
    values, frame = panel.values, panel.kind.frame
    rows, columns = values.shape
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    slant: dict[str, Any] = {}
    if panel.is_dense or small:
        slant = {"rotation": 90}
    elif slanted:
        slant = {"rotation": 30, "ha": "left", "rotation_mode": "anchor"}
    size = 7 if small else 8 if panel.is_dense else 9
    axes.set_xticks(np.arange(columns) + 0.5, values.columns, fontsize=size, **slant)
    labels = [frame.row_label(row) for row in values.index] if is_first else [""] * rows
    axes.set_yticks(np.arange(rows) + 0.5, labels, fontsize=size)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    if not small:
        _name_axes(axes, panel, is_first=is_first, slanted=slanted)


def _name_axes(axes: Axes, panel: Panel, *, is_first: bool, slanted: bool) -> None:
    """Write what rows and columns are, and the heading."""
    width, height = axes.bbox.width / axes.figure.dpi, axes.bbox.height / axes.figure.dpi
    above = 0.28 + _turned(panel, slanted)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(panel.kind.frame.columns, va="bottom")
    axes.xaxis.set_label_coords(0.5, 1 + above / height)
    if slanted:
        style: dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "va": "bottom"}
        y = 1 + (above + HEADING) / height
        axes.text(0, y, panel.heading, transform=axes.transAxes, **style)
    if is_first:
        axes.set_ylabel(panel.kind.frame.rows, va="top")
        axes.yaxis.set_label_coords((EDGE - axes.bbox.x0 / axes.figure.dpi) / width, 0.5)


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


# Notes below the figure


def _notes(panels: Sequence[Panel]) -> list[Note]:
    notes = [note for panel in panels for note in _statistics_notes(panel)]
    dense = any(panel.is_dense for panel in panels)
    notes += [_dense_note(panels)] if dense else _sign_notes(panels)
    if any(panel.values.isna().to_numpy().any() for panel in panels):
        notes.append(("hatch", "missing in the store; missing.csv has the command that fills it"))
    return notes


def _dense_note(panels: Sequence[Panel]) -> Note:
    """What small cells do not show."""
    partial = sum(panel.several.partial for panel in panels if panel.several)
    rest = f"; {partial} cells rest on some of the seeds only" if partial else ""
    return "", f"the number of each cell is in the table of the same name{rest}"


def _sign_notes(panels: Sequence[Panel]) -> list[Note]:
    """What the signs in the cells mean."""
    notes = []
    full = next((panel.kind.full for panel in panels if panel.kind.full), None)
    if full:
        notes.append(("bar", f"the number as a length, as wide as its cell for {full}"))
    if any(panel.kind.frame.marked for panel in panels):
        text = "trained: the model was fine-tuned on this task (all others are transfer)"
        notes.append(("T", text))
    means = [panel.several for panel in panels if panel.several]
    if means:
        most = max(means, key=lambda mean: mean.n_seeds)
        notes.append(("±", f"standard deviation over {most.in_words}"))
        partial = sum(mean.partial for mean in means)
        if partial:
            text = f"only n of {most.in_words} have this cell ({partial} cells)"
            notes.append(("(n)", text))
    return notes


def _statistics_notes(panel: Panel) -> list[Note]:
    shown = {group: in_words(panel.summary[group]) for group in panel.kind.frame.shown}
    if not panel.heading:
        return [("", f"{group} cells: {text}") for group, text in shown.items()]
    parts = "; ".join(f"{group} {text}" for group, text in shown.items())
    return [("", f"{panel.heading}: {parts}")]


def _short(summary: Summary) -> str:
    if summary["mean"] is None:
        return f"none (n = 0, missing {summary['missing']})"
    spread = f"{summary['mean']:.3f} ± {summary['std']:.3f}"
    return f"{spread} (n = {summary['n']}, missing {summary['missing']})"
