"""Curves: a quantity over steps, one line for each series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, EngFormatter, LogLocator, MaxNLocator

from analysis.figures.chart import Chart, Style, log_scale

MOST_MARKS = 16  # markers on one line


@dataclass(frozen=True, kw_only=True)
class Curves(Chart):
    """One line for each value of the column `series`.

    x, y: columns; log_y: a logarithmic axis, on which values of 0 are not drawn; marks: draw
    a marker at every point, or at some of them where there are many; thick: column of booleans:
    those lines stand out, and the others are thin and without markers; across: column of y values
    at which a dashed line is drawn in each facet (such as chance).
    """

    x: str
    y: str
    series: str
    log_y: bool | frozenset[Any] = False  # or the facets that are
    marks: bool = True
    thick: str = ""
    across: str = ""

    def is_log(self, facet: Any) -> bool:
        return facet in self.log_y if isinstance(self.log_y, frozenset) else self.log_y

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        for _, own, style in self.grouped(rows.dropna(subset=[self.x, self.y])):
            for _, line in own.groupby(self.series, sort=False):
                line = line.sort_values(self.x)
                if self.is_log(facet):
                    line = line[line[self.y] > 0]
                axes.plot(line[self.x], line[self.y], color=style.colour, **self._look(line, style))
        if self.across:
            for level in rows[self.across].dropna().unique():
                axes.axhline(level, color="#6b7280", linewidth=1.0, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if (rows[self.x].dropna() % 1 == 0).all():  # steps, layers: no halves between them
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        if self.is_log(facet):
            _log_y(axes)

    def _look(self, line: pd.DataFrame, style: Style) -> dict[str, Any]:
        """Width and markers of one line."""
        if self.thick and not line[self.thick].iloc[0]:
            return {"linewidth": 0.7, "alpha": 0.5}
        look: dict[str, Any] = {"linewidth": 1.1, "alpha": 0.85}
        if self.thick:
            look = {"linewidth": 1.8, "zorder": 3}
        if self.marks:
            every = max(1, len(line) // MOST_MARKS)
            look |= {"marker": style.marker, "markersize": 3.5, "markevery": every}
        return look

    def legend_line(self, style: Style) -> Line2D:
        return Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.3, markersize=5)


def _log_y(axes: Axes) -> None:
    """A logarithmic y axis with neither too many nor too few numbers."""
    log_scale(axes, "y")
    low, high = axes.get_ylim()
    if high / low > 1000:
        axes.yaxis.set_major_locator(LogLocator())
    elif high / low < 5:
        axes.yaxis.set_major_locator(AutoLocator())
