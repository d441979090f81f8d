"""Charts: a tidy table, the names of the columns to draw, and the words around the figure."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter, StrMethodFormatter

from analysis.figures.page import LETTER, MOST_MARKS, MarkedFigure, figure_of, for_collection

GREY = "#6b7280"
MARKERS = "os^DvPX*"
# Distinct with any kind of colour vision, and in grey (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a8a")


class Style(NamedTuple):
    """Colour and marker of a group."""

    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Fields of all charts; each subclass draws one kind of mark.

    Args:
        name: File name without ending.
        table: One row for each mark; it is written as the figure's CSV.
        lines: How to read the figure.
        group: Column that colours and markers distinguish.
        facet: Column that gives each of its values its own axes, `columns` of them in a row.
        size: Width and height of one facet's axes, inches, roughly.
        hover: Columns shown in the hover text of a mark; by default the first eight. A column
            `run_id` makes a mark a link.
        notes: Sentences below the figure.
        said: Lines that the command prints; by default the notes.
    """

    name: str
    title: str
    table: pd.DataFrame
    x_label: str = ""
    y_label: str = ""
    lines: tuple[str, ...] = ()
    group: str = ""
    facet: str = ""
    columns: int = 3
    size: tuple[float, float] = (6.4, 4.4)
    hover: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    panels: ClassVar[tuple[Any, ...]] = ()  # a chart has no matrices

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", self.said or self.notes)
        object.__setattr__(self, "hover", self.hover or tuple(self.table.columns[:8]))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {self.name: self.table}

    @property
    def styles(self) -> dict[Any, Style]:
        """The style of each group, in the order in which groups first occur.

        A categorical column has a fixed style for each category, so that figures agree.
        """
        found = self.table[self.group] if self.group else pd.Series([""])
        known = isinstance(found.dtype, pd.CategoricalDtype)
        styles, n = {}, len(COLOURS)
        for i, group in enumerate(found.cat.categories if known else found.unique()):
            if (found == group).any():
                styles[group] = Style(COLOURS[i % n], MARKERS[(i + i // n) % len(MARKERS)])
        return styles

    @property
    def facets(self) -> dict[Any, pd.DataFrame]:
        """The rows of each facet; without facets, all rows under an empty name."""
        if not self.facet:
            return {"": self.table}
        return dict(iter(self.table.groupby(self.facet, sort=False, observed=True)))

    def grouped(self, rows: pd.DataFrame) -> list[tuple[pd.DataFrame, Style]]:
        """The rows of each group, with its style."""
        if not self.group:
            return [(rows, self.styles[""])]
        return [(rows[rows[self.group] == g], style) for g, style in self.styles.items()]

    def urls(self, axes: Axes, rows: pd.DataFrame) -> list[str] | None:
        """Return the URLs that give marks their hover texts; None if the chart has too many."""
        if len(self.table) > MOST_MARKS:
            return None
        return for_collection(figure_of(axes).mark_rows(rows, self.hover))

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        """Draw the rows of one facet."""
        raise NotImplementedError

    def write_labels(self, axes: Axes, rows: pd.DataFrame) -> None:
        """Write texts beside the marks, when all marks have their place."""

    def legend_line(self, style: Style) -> Line2D:
        """The mark of a group in the legend."""
        return Line2D([], [], color=style.colour, marker=style.marker, linestyle="", markersize=6)

    @property
    def label_width(self) -> float:
        """Width of the labels of the y axis, inches."""
        return 0.75

    def draw(self, about: str) -> Figure:
        """Draw the figure. about: where the numbers come from, in small print."""
        facets, styles = self.facets, self.styles
        columns = min(self.columns, len(facets))
        rows = math.ceil(len(facets) / columns)
        width = columns * (self.size[0] + self.label_width + 0.3)
        if len(styles) > 1:
            width += 0.5 + LETTER * max(len(str(group)) for group in (*styles, self.group))
        height = rows * (self.size[1] + 0.9)
        figure = MarkedFigure(width, height, self.title, self.lines, self.notes, about)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (facet, own) in zip(grid, facets.items(), strict=False):
            self._label_axes(axes, facet)
            self.plot(axes, own, facet)
        for axes in grid[len(facets) :]:
            axes.remove()
        if len(styles) > 1:
            self._write_legend(grid[columns - 1])
        figure.settle()
        for axes, own in zip(figure.axes, facets.values(), strict=True):
            self.write_labels(axes, own)
        return figure

    def _label_axes(self, axes: Axes, facet: Any) -> None:
        axes.set_xlabel(self.x_label, fontsize=9.5)
        axes.set_ylabel(self.y_label, fontsize=9.5)
        axes.tick_params(labelsize=8.5, length=3)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        heading = textwrap.fill(str(facet), max(12, int(self.size[0] / 0.088)))
        axes.set_title(heading, fontsize=10, fontweight="bold", loc="left", pad=5)

    def _write_legend(self, axes: Axes) -> None:
        axes.legend(
            [self.legend_line(style) for style in self.styles.values()],
            [str(group) for group in self.styles],
            loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, alignment="left",
            frameon=False, fontsize=9, title=self.group.replace("_", " "),
            title_fontproperties={"size": 9.5, "weight": "bold"},
        )  # fmt: skip


class _PlainTicks(LogLocator):
    """Ticks at 1, 2 and 5 times powers of ten; over a wide range at the powers only."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        if vmin > 0 and vmax < 5 * vmin:
            return [tick for tick in AutoLocator().tick_values(vmin, vmax) if tick > 0]
        crowded = vmin <= 0 or vmax > 200 * vmin
        self.set_params(subs=(1.0,) if crowded else (1.0, 2.0, 5.0))
        return super().tick_values(vmin, vmax)


def log_scale(axes: Axes, which: str) -> None:
    """Make the x or y axis logarithmic, labelled with plain numbers."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(_PlainTicks())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())
