"""Curves: a quantity over steps, one line for each series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from analysis.drawing.chart import Chart, Style


@dataclass(frozen=True, kw_only=True)
class Curves(Chart):
    """One line for each value of the column `series`.

    x, y: columns; log_x, log_y: logarithmic axes; marks: draw a marker at every point; across:
    column of y values at which a dashed line is drawn in each facet (such as chance).
    """

    x: str
    y: str
    series: str
    log_x: bool = False
    log_y: bool | frozenset[Any] = False  # or the facets that are
    marks: bool = True
    across: str = ""

    def is_log(self, facet: Any) -> bool:
        return facet in self.log_y if isinstance(self.log_y, frozenset) else self.log_y

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        for _, own, style in self.grouped(rows.dropna(subset=[self.x, self.y])):
            for _, line in own.groupby(self.series, sort=False):
                line = line.sort_values(self.x)
                marker = style.marker if self.marks else None
                axes.plot(
                    line[self.x], line[self.y], color=style.colour, marker=marker,
                    markersize=3.5, linewidth=1.1, alpha=0.85,
                )  # fmt: skip
        if self.across:
            for level in rows[self.across].dropna().unique():
                axes.axhline(level, color="#6b7280", linewidth=1.0, linestyle=(0, (4, 3)))
        if self.log_x:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if self.is_log(facet):
            axes.set_yscale("log")

    def legend_line(self, style: Style) -> Line2D:
        return Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.3, markersize=5)
