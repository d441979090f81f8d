"""Curves: a quantity over steps, one line for each series."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.figures.chart import GREY, Chart, Style, log_scale
from analysis.figures.page import MOST_MARKS, figure_of

MOST_MARKED = 16  # points of one line with markers


@dataclass(frozen=True, kw_only=True)
class Curves(Chart):
    """One line for each value of the column `series`.

    Args:
        x, y, series: Columns of the positions, and of the name of the line.
        log_y: Whether the y axis is logarithmic, or the facets in which it is. Such an axis leaves
            out values of 0.
        marks: Whether to draw markers, at some of the points if there are many.
        thick: Column of booleans: lines that stand out; the others are thin, without markers.
        across: Column of y values at which to draw a dashed line, such as chance.
    """

    x: str
    y: str
    series: str
    log_y: bool | frozenset[Any] = False
    marks: bool = True
    thick: str = ""
    across: str = ""

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        is_log = facet in self.log_y if isinstance(self.log_y, frozenset) else self.log_y
        if is_log:
            rows = rows[~(rows[self.y] <= 0)]
        for own, style in self.grouped(rows.dropna(subset=[self.x, self.y])):
            lines = [line.sort_values(self.x) for _, line in own.groupby(self.series, sort=False)]
            for line in lines:
                self._plot_line(axes, line, style)
            if self.marks and lines:
                marked = [line.iloc[:: max(1, len(line) // MOST_MARKED)] for line in lines]
                self._plot_marks(axes, pd.concat(marked), style)
        for level in rows[self.across].dropna().unique() if self.across else ():
            axes.axhline(level, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if (rows[self.x].dropna() % 1 == 0).all():  # steps and layers have no halves
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        if is_log:
            log_scale(axes, "y")

    def _plot_line(self, axes: Axes, line: pd.DataFrame, style: Style) -> None:
        width, alpha, order = 1.1, 0.85, 2
        if self.thick:
            width, alpha, order = (1.8, 1, 3) if line[self.thick].iloc[0] else (0.7, 0.5, 2)
        axes.plot(
            line[self.x], line[self.y], color=style.colour, url=self._line_url(axes, line),
            linewidth=width, alpha=alpha, zorder=order,
        )  # fmt: skip

    def _plot_marks(self, axes: Axes, points: pd.DataFrame, style: Style) -> None:
        if self.thick:
            points = points[points[self.thick].astype(bool)]
        look: dict[str, Any] = {"marker": style.marker, "color": style.colour, "linewidths": 0.5}
        urls = self.urls(axes, points)
        axes.scatter(points[self.x], points[self.y], s=12, zorder=3, urls=urls, **look)

    def _line_url(self, axes: Axes, line: pd.DataFrame) -> str | None:
        """The URL of a whole line, with the facts that all of its points share."""
        if self.table[self.series].nunique() * len(self.facets) > MOST_MARKS:
            return None
        same = [c for c in self.hover if c in line.columns and line[c].nunique(dropna=False) == 1]
        return figure_of(axes).mark_rows(line.iloc[:1], same)[0]

    def legend_line(self, style: Style) -> Line2D:
        return Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.3, markersize=5)
