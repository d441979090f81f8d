"""Charts: a tidy table, the names of the columns to draw, and the words around the figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from analysis.figures.marks import MOST_MARKS, MarkedFigure, figure_of, for_collection
from analysis.figures.page import (
    COLOURS,
    EDGE,
    LETTER,
    MARKERS,
    foot_height,
    head_height,
    wrapped,
    wrapped_notes,
    write_foot,
    write_head,
)

LEFT, BELOW, BETWEEN, ABOVE = 0.75, 0.55, 0.35, 0.28  # margins of one facet's axes, inches
HEADING_LINE, HEADING_LETTER = 0.18, 0.088  # size of the facets' headings, inches
GREY = "#6b7280"
MOST_RATIO = 200  # of the ends of a logarithmic axis with ticks between powers of ten


@dataclass(frozen=True)
class Style:
    """Colour and marker of a group."""

    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Fields of all charts; each subclass draws one kind of mark.

    Args:
        name: File name without ending.
        lines: How to read the figure.
        table: One row for each mark; it is written as the figure's CSV.
        group: Column that colours and markers distinguish.
        facet: Column that gives each of its values its own axes, `columns` of them in a row.
        size: Width and height of one facet's axes, inches.
        hover: Columns shown in the hover text of a mark; all of the first eight if empty. A column
            `run_id` makes a mark a link.
        notes: Sentences below the figure.
        said: Lines that the command prints; by default the notes.
        statistics: Numbers for statistics.json, by name.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", self.said or self.notes)

    @property
    def which(self) -> str:
        """Empty: a chart shows all seeds."""
        return ""

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
        groups = list(found.cat.categories) if known else list(dict.fromkeys(found))
        occurring = set(found)
        return {
            group: Style(COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
            for i, group in enumerate(groups)
            if group in occurring
        }

    @property
    def facets(self) -> dict[Any, pd.DataFrame]:
        """The rows of each facet; without facets, all rows under an empty name."""
        if not self.facet:
            return {"": self.table}
        return {
            value: self.table[self.table[self.facet] == value]
            for value in dict.fromkeys(self.table[self.facet])
        }

    def grouped(self, rows: pd.DataFrame) -> list[tuple[Any, pd.DataFrame, Style]]:
        """The rows of each group, with its style."""
        if not self.group:
            return [("", rows, self.styles[""])]
        return [(g, rows[rows[self.group] == g], style) for g, style in self.styles.items()]

    @property
    def facts(self) -> tuple[str, ...]:
        """Columns shown in the hover texts."""
        return self.hover or tuple(self.table.columns[:8])

    def urls(self, axes: Axes, rows: pd.DataFrame) -> list[str] | None:
        """Return the URLs that give marks their hover texts; None if the chart has too many."""
        if len(self.table) > MOST_MARKS:
            return None
        return for_collection(figure_of(axes).mark_rows(rows, self.facts))

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        """Draw the rows of one facet."""
        raise NotImplementedError

    def legend_line(self, style: Style) -> Line2D:
        """The mark of a group in the legend."""
        return Line2D([], [], color=style.colour, marker=style.marker, linestyle="", markersize=6)

    @property
    def left(self) -> float:
        """Width of the labels of the y axis, inches."""
        return LEFT

    @property
    def below(self) -> float:
        """Height of the labels of the x axis, inches."""
        return BELOW

    def draw(self, about: str) -> Figure:
        """Draw the figure. about: where the numbers come from, in small print."""
        facets = self.facets
        columns = min(self.columns, len(facets))
        rows = math.ceil(len(facets) / columns)
        wide, high = self.size
        most = max(len(self._heading(facet)) for facet in facets)
        above = ABOVE + HEADING_LINE * (most - 1) if self.facet else 0.05
        step_x, step_y = wide + self.left + BETWEEN, high + self.below + above
        legend = self._legend_width()
        width = EDGE + columns * step_x + legend
        lines = wrapped(self.lines, width)
        notes = wrapped_notes([("", note) for note in self.notes], width)
        head, foot = head_height(lines) + 0.1, foot_height(notes)
        height = head + rows * step_y + foot
        figure = MarkedFigure(width, height)
        for i, (facet, own) in enumerate(facets.items()):
            row, column = divmod(i, columns)
            x = EDGE + column * step_x + self.left
            y = height - head - row * step_y - above - high
            axes = figure.add_axes((x / width, y / height, wide / width, high / height))
            self._dress(axes, facet)
            self.plot(axes, own, facet)
        if legend:
            self._legend(figure, (width - legend) / width, (height - head) / height)
        write_head(figure, self.title, lines)
        write_foot(figure, notes, about)
        return figure

    def _dress(self, axes: Axes, facet: Any) -> None:
        axes.set_xlabel(self.x_label, fontsize=9.5)
        axes.set_ylabel(self.y_label, fontsize=9.5)
        axes.tick_params(labelsize=8.5, length=3)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if self.facet:
            title = "\n".join(self._heading(facet))
            axes.set_title(title, fontsize=10, fontweight="bold", loc="left", pad=5)

    def _heading(self, facet: Any) -> list[str]:
        """The name of a facet, wrapped to its width."""
        return textwrap.wrap(str(facet), max(12, int(self.size[0] / HEADING_LETTER))) or [""]

    def _legend_width(self) -> float:
        if len(self.styles) < 2:
            return 0.0
        longest = max(len(str(group)) for group in (*self.styles, self.group))
        return 0.55 + LETTER * longest

    def _legend(self, figure: Figure, x: float, y: float) -> None:
        handles = [self.legend_line(style) for style in self.styles.values()]
        legend = figure.legend(
            handles,
            [str(group) for group in self.styles],
            loc="upper left",
            bbox_to_anchor=(x, y),
            fontsize=9,
            frameon=False,
            title=self.group.replace("_", " "),
            title_fontsize=9.5,
            alignment="left",
            borderaxespad=0.0,
        )
        legend.get_title().set_fontweight("bold")


class _PlainTicks(LogLocator):
    """Ticks at 1, 2 and 5 times powers of ten; over a wide range at the powers only."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        crowded = vmin <= 0 or vmax / vmin > MOST_RATIO
        self.set_params(subs=(1.0,) if crowded else (1.0, 2.0, 5.0))
        return super().tick_values(vmin, vmax)


def log_scale(axes: Axes, which: str) -> None:
    """Make the x or y axis logarithmic, labelled with plain numbers."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(_PlainTicks())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())
