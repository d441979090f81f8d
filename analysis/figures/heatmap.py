"""Heatmaps: matrices as figures, with a number, a hover text and a link in every cell.

Matrices of many columns have small cells without numbers, which their table has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.kinds import Kind
from analysis.figures.page import MarkedFigure, figure_of, for_collection, plain
from analysis.statistics.matrices import Aggregate, Masks, Summary, summary

MANY_COLUMNS = 12  # with more columns, cells are small and without numbers
MOST_CELLS = 1000  # more are an image with one hover text for each row
SMALL_CELL, SEED_CELL, SEEDS_WIDTH, BAR_WIDTH = 0.2, 0.16, 12.0, 1.15  # inches
CHARACTER = 0.074  # width of a letter of a label, inches, generously
BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue (ITU-R BT.601)
HATCH: dict[str, Any] = {"fc": "white", "ec": "0.55", "hatch": "/////", "linewidth": 0}


@dataclass(frozen=True)
class Panel:
    """A matrix, or a mean of matrices over seeds, with its statistics and the words around it.

    name: file name without ending; heading: shown when several matrices are side by side; notes:
    below the figure and printed; details: rows of `improvement_cells` for the hover texts; stem:
    part of the name that the seeds and their mean share, empty for a matrix that stands alone;
    seed: None for a mean.
    """

    name: str
    title: str
    kind: Kind
    matrix: pd.DataFrame | Aggregate
    heading: str = ""
    notes: tuple[str, ...] = ()
    details: pd.DataFrame | None = None
    stem: str = ""
    seed: int | None = None

    @property
    def panels(self) -> list[Self]:
        return [self]

    @property
    def values(self) -> pd.DataFrame:
        return self.matrix.mean if isinstance(self.matrix, Aggregate) else self.matrix

    @property
    def is_empty(self) -> bool:
        """Whether it is of one seed, which has no value at all."""
        return self.seed is not None and bool(self.values.isna().all(axis=None))

    @property
    def several(self) -> Aggregate | None:
        """The matrix if it is a mean over two seeds or more."""
        matrix = self.matrix
        return matrix if isinstance(matrix, Aggregate) and matrix.n_seeds > 1 else None

    @property
    def is_dense(self) -> bool:
        """Whether the cells are too small for numbers."""
        return self.values.shape[1] > MANY_COLUMNS

    @cached_property
    def masks(self) -> Masks:
        return self.kind.masks(self.values)

    @cached_property
    def summary(self) -> dict[str, Summary]:
        values = self.values.to_numpy(dtype=float)
        return {group: summary(values[mask]) for group, mask in self.masks.items()}

    @property
    def statistics(self) -> dict[str, Mapping[str, Summary]]:
        return {self.name: self.summary}

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The matrix; of several seeds also the standard deviation and number in each cell."""
        tables = {self.name: self.values}
        if isinstance(self.matrix, Aggregate):
            tables |= {f"{self.name}_std": self.matrix.spread, f"{self.name}_n": self.matrix.n}
        return tables

    @property
    def in_words(self) -> str:
        """The statistics that the figure states."""
        return "; ".join(f"{g} {_in_words(self.summary[g])}" for g in self.kind.shown)

    @property
    def said(self) -> list[str]:
        n = self.several.partial if self.several else 0
        partial = f"; {n} cells of some seeds only" if n else ""
        return [f"{self.name}: {text}" for text in (self.in_words + partial, *self.notes)]

    def draw(self, about: str) -> Figure:
        return Strip(self.name, self.title, self.kind.lines, [self]).draw(about)


@dataclass(frozen=True)
class Strip:
    """Several matrices with the same rows side by side. lines: how to read them."""

    name: str
    title: str
    lines: tuple[str, ...]
    panels: Sequence[Panel]

    def draw(self, about: str) -> Figure:
        panels, first, n = self.panels, self.panels[0], len(self.panels)
        rows, columns = first.values.shape
        wide, high = 0.86 if n == 1 else 0.64, 0.43 if any(p.several for p in panels) else 0.33
        if first.is_dense:
            wide = high = SMALL_CELL
        above = _turned(first) if first.is_dense else 0.7 if n > 1 else 0
        width = _label_width(first) + n * (columns * wide + BAR_WIDTH)
        height = max(rows * high, 2.0) + 0.5 + above
        figure = MarkedFigure(width, height, self.title, self.lines, _notes(panels), about)
        grid = figure.subplots(1, n, squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            _draw_cells(axes, panel)
            slanted = {"rotation": 30, "ha": "left", "rotation_mode": "anchor"} if n > 1 else {}
            look = {"fontsize": 8, "rotation": 90} if panel.is_dense else {"fontsize": 9, **slanted}
            _label_axes(axes, panel, is_first=axes is grid[0], **look)
            axes.xaxis.set_label_position("top")
            axes.set_xlabel(panel.kind.columns)
            axes.set_ylabel(panel.kind.rows if axes is grid[0] else "")
            heading = panel.heading if n > 1 else ""
            axes.set_title(heading, fontsize=11, fontweight="bold", loc="left")
            _add_colour_bar(axes, panel.kind, rows * high)
        figure.settle()
        return figure


def draw_seeds(panels: Sequence[Panel], title: str, about: str = "") -> Figure:
    """Draw the matrices of single seeds as small multiples: colours alone, a row for each model.

    The hover text of a row has its numbers, and the row links to its run.
    """
    first = panels[0]
    rows, columns = first.values.shape
    left, wide = _label_width(first), columns * SEED_CELL + 0.2
    in_row = max(1, min(len(panels), int((SEEDS_WIDTH - left - BAR_WIDTH) / wide)))
    n = math.ceil(len(panels) / in_row)
    high = rows * SEED_CELL
    size = left + in_row * wide + BAR_WIDTH, n * (high + _turned(first) + 0.4)
    figure = MarkedFigure(*size, title, about=about)
    grid = figure.subplots(n, in_row, squeeze=False).ravel()
    for i, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        _draw_image(axes, panel)
        _label_axes(axes, panel, is_first=i % in_row == 0, fontsize=7, rotation=90)
        axes.set_title(f"seed {panel.seed}", fontsize=9, fontweight="bold", loc="left", pad=3)
    for axes in grid[len(panels) :]:
        axes.remove()
    _add_colour_bar(grid[in_row - 1], first.kind, high)
    figure.settle()
    return figure


def _label_width(panel: Panel) -> float:
    return 0.6 + CHARACTER * max(len(panel.kind.row_label(r)) for r in panel.values.index)


def _turned(panel: Panel) -> float:
    """The height of column names that are turned upright, inches."""
    return CHARACTER * max(len(str(column)) for column in panel.values.columns)


def _label_axes(axes: Axes, panel: Panel, *, is_first: bool, fontsize: int, **look: Any) -> None:
    values = panel.values
    rows, columns = values.shape
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.set_xticks(np.arange(columns) + 0.5, values.columns, fontsize=fontsize, **look)
    labels = [panel.kind.row_label(row) if is_first else "" for row in values.index]
    axes.set_yticks(np.arange(rows) + 0.5, labels, fontsize=fontsize)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def _add_colour_bar(axes: Axes, kind: Kind, height: float) -> None:
    """Add a colour bar to axes of a height in inches."""
    shrink = min(1, 3.6 / height)
    bar = axes.figure.colorbar(
        kind.mappable(), ax=axes, extend=kind.extend, extendfrac=0.04, pad=0.03, shrink=shrink,
        anchor=(0, 1), aspect=shrink * height / 0.16,
    )  # fmt: skip
    bar.set_label(kind.label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)


def _notes(panels: Sequence[Panel]) -> list[str]:
    """The statistics, what the signs in the cells mean, and the notes of a matrix alone."""
    notes = [f"{p.heading}: {p.in_words}." if p.heading else f"{p.in_words}." for p in panels]
    means = [panel.several for panel in panels if panel.several]
    partial = sum(mean.partial for mean in means)
    full = next((panel.kind.full for panel in panels if panel.kind.full), None)
    if any(panel.is_dense for panel in panels):
        rest = f"; {partial} cells rest on some of the seeds only" if partial else ""
        notes.append(f"The number of each cell is in the table of the same name{rest}.")
    else:
        if full:
            notes.append(f"Bar: the number as a length, as wide as its cell for {full}.")
        if any(panel.kind.marked for panel in panels):
            notes.append("T: the model was fine-tuned on this task; all others are transfer.")
        if means:
            most = max(means, key=lambda mean: mean.n_seeds)
            over = most.over or f"the {most.n_seeds} seeds"
            some = f" (n): only n of {over} have this cell ({partial} cells)." if partial else ""
            notes.append(f"±: standard deviation over {over}.{some}")
    if any(panel.values.isna().to_numpy().any() for panel in panels):
        notes.append("Hatched: missing in the store; missing.csv has the command that fills it.")
    return [*notes, *(panels[0].notes if len(panels) == 1 else ())]


def _in_words(summary: Summary) -> str:
    counts = f"(n = {summary['n']}, missing {summary['missing']})"
    if summary["mean"] is None:
        return f"none {counts}"
    return f"{summary['mean']:.3f} ± {summary['std']:.3f} {counts}"


def _draw_cells(axes: Axes, panel: Panel) -> None:
    numbers = np.ma.masked_invalid(panel.values.to_numpy())
    missing = np.ma.getmaskarray(numbers)
    colours = panel.kind.mappable().to_rgba(numbers)
    urls = np.full(numbers.shape, None, dtype=object)
    if numbers.size > MOST_CELLS:
        _draw_image(axes, panel)
    else:
        urls = _cell_urls(figure_of(axes), panel)
        look: dict[str, Any] = {"fc": colours[~missing], "ec": "white", "linewidths": 1}
        _add_boxes(axes, np.argwhere(~missing), urls[~missing], **look)
    _add_boxes(axes, np.argwhere(missing), urls[missing], inset=0.03, **HATCH)
    if not panel.is_dense:
        dark = colours[..., :3] @ BRIGHTNESS < 0.45
        _write_numbers(axes, panel, np.where(dark & ~missing, "white", "black"))


def _add_boxes(
    axes: Axes, cells: NDArray[np.int_], urls: Sequence[str], *, wide: int = 1, inset: float = 0,
    **look: Any,
) -> None:  # fmt: skip
    """Draw a box for each cell (row, column). wide: number of columns that a box covers."""
    x, y = (inset, wide - inset), (inset, 1 - inset)
    corners = np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
    boxes = [corners + (column, row) for row, column in cells]
    axes.add_collection(PolyCollection(boxes, urls=for_collection(urls), **look), autolim=False)


def _write_numbers(axes: Axes, panel: Panel, inks: NDArray[np.str_]) -> None:
    """Write the number of each cell, below it the spread, draw it as a bar, and mark with a T."""
    values, kind, several = panel.values.to_numpy(), panel.kind, panel.several
    present = ~np.isnan(values)
    middle: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
    for row, column in np.argwhere(present):
        ink, x, y = inks[row, column], column + 0.5, row + (0.31 if several else 0.5)
        axes.text(x, y, kind.write(values[row, column]), fontsize=9, color=ink, **middle)
        if spread := _spread(several, row, column):
            axes.text(x, row + 0.66, spread, fontsize=7, color=ink, **middle)
    if kind.full:
        rows, columns = np.nonzero(present)
        left, ends = columns + 0.05, columns + 0.05 + 0.9 * values[present] / kind.full
        axes.hlines(rows + 0.87, left, ends, colors=inks[present], linewidth=1.8, capstyle="butt")
    for row, column in np.argwhere(panel.masks[kind.marked]) if kind.marked else ():
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # on hatching
        axes.text(
            column + 0.05, row + 0.1, "T", color=inks[row, column], va="top", fontsize=7,
            fontweight="bold", bbox=None if present[row, column] else white, in_layout=False,
        )  # fmt: skip


def _spread(several: Aggregate | None, row: int, column: int) -> str:
    """The spread below a mean, and the number of its seeds if some are missing."""
    if not several:
        return ""
    spread, n = several.spread.iat[row, column], several.n.iat[row, column]
    text = "" if math.isnan(spread) else f"±{spread:.2f}"
    full = several.n_seeds if several.full is None else several.full.iat[row, column]
    return f"{text} ({n})".strip() if n < full else text


def _draw_image(axes: Axes, panel: Panel) -> None:
    """Draw a matrix as an image, with a hover text and a link for each row."""
    numbers = np.ma.masked_invalid(panel.values.to_numpy())
    rows, columns = numbers.shape
    colours = panel.kind.mappable()
    image = colours.cmap.with_extremes(bad="0.82")(colours.norm(numbers))
    axes.imshow(image, extent=(0, columns, rows, 0), aspect="auto", interpolation="none")
    runs = {} if panel.details is None else panel.details.groupby("ft")["run_id"].agg(_common_run)
    urls = []
    for name, values in panel.values.iterrows():
        known = [panel.kind.write(value) if value == value else "-" for value in values]
        row = str(name) if panel.seed is None else f"{name} seed {panel.seed}"
        text = f"{row}: {' '.join(known)}"
        urls.append(figure_of(axes).mark(text, runs.get(name, "")))
    # Not quite transparent: a shape without a fill has no hover text.
    look: dict[str, Any] = {"facecolors": "white", "alpha": 0.01, "linewidths": 0}
    _add_boxes(axes, np.argwhere(np.ones((rows, 1))), urls, wide=columns, **look)


def _cell_urls(figure: MarkedFigure, panel: Panel) -> NDArray[np.object_]:
    """The URL of each cell, with its numbers, its seeds, and its run if there is only one."""
    seeds: dict[tuple[str, str], list[str]] = {}
    runs: dict[tuple[str, str], str] = {}
    if panel.details is not None:
        for facts in panel.details.to_dict("records"):
            seeds.setdefault((facts["ft"], facts["task"]), []).append(_seed_text(facts))
        runs = panel.details.groupby(["ft", "task"])["run_id"].agg(_common_run).to_dict()
    urls = np.full(panel.values.shape, None, dtype=object)
    for (i, j), number in np.ndenumerate(panel.values.to_numpy()):
        row, column = cell = panel.values.index[i], panel.values.columns[j]
        known = "missing" if math.isnan(number) else plain(float(number))
        text = f"{row}, {column}: {known} {_spread(panel.several, i, j)}".rstrip()
        urls[i, j] = figure.mark("\n".join([text, *seeds.get(cell, [])]), runs.get(cell, ""))
    return urls


def _seed_text(facts: Mapping[str, Any]) -> str:
    if facts["reason"]:
        return f"seed {facts['seed']}: missing, {facts['reason']}"
    text = f"seed {facts['seed']}: raw {facts['value']:.4g}, normalised {facts['normalised']:.3f}"
    uncut = facts["normalised_unclipped"]
    return text if uncut == facts["normalised"] else f"{text} (uncut {uncut:.3f})"


def _common_run(runs: pd.Series) -> str:
    """The run of all numbers; empty if there are several or none."""
    found = set(runs) - {""}
    return found.pop() if len(found) == 1 else ""
