"""Points: one quantity against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from analysis.drawing.chart import GREY, Chart
from analysis.drawing.labels import label_points


@dataclass(frozen=True, kw_only=True)
class Scatter(Chart):
    """One point for each row.

    x, y: columns; z: third column, which only a page shows; label: column of short texts beside
    the points; error: columns of the two half-widths, where there are any; towards: columns of the
    place that a line leads to from each point; fit: slope and intercept of a line; identity: draw
    y = x; zero: draw the lines x = 0 and y = 0; equal: one unit is as long on both axes.
    """

    x: str
    y: str
    z: str = ""
    label: str = ""
    error: tuple[str, str] = ("", "")
    towards: tuple[str, str] = ("", "")
    fit: tuple[float, float] | None = None
    identity: bool = False
    zero: bool = False
    equal: bool = False
    marker_size: float = 26.0

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        shown = rows.dropna(subset=[self.x, self.y])
        if shown.empty:
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
            return
        for _, own, style in self.grouped(shown):
            self._plot_group(axes, own, style.colour, style.marker)
        if self.equal:
            axes.set_aspect("equal", adjustable="datalim")
        axes.autoscale_view()
        self._plot_lines(axes)
        if self.label:
            label_points(axes, shown[self.x], shown[self.y], shown[self.label].astype(str))

    def _plot_group(self, axes: Axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
        x, y = rows[self.x].to_numpy(dtype=float), rows[self.y].to_numpy(dtype=float)
        bars = {
            side: rows[column].to_numpy(dtype=float)
            for side, column in zip(("xerr", "yerr"), self.error, strict=True)
            if column
        }
        if bars:
            axes.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5, **bars)
        face = colour
        if self.towards[0]:
            ends = rows[list(self.towards)].to_numpy(dtype=float)
            lines = np.stack([np.column_stack([x, y]), ends], axis=1)
            axes.add_collection(LineCollection([*lines], colors=colour, linewidths=0.6, alpha=0.7))
            axes.scatter(
                ends[:, 0],
                ends[:, 1],
                s=self.marker_size,
                marker=marker,
                color=colour,
                linewidths=0.6,
            )
            face = "white"
        edge = colour if self.towards[0] else "white"
        axes.scatter(
            x, y, s=self.marker_size, marker=marker, facecolors=face, edgecolors=edge,
            linewidths=0.6, zorder=2.5,
        )  # fmt: skip

    def _plot_lines(self, axes: Axes) -> None:
        limits = np.array(axes.get_xlim())
        high = np.array(axes.get_ylim())
        style: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "zorder": 1.5}
        if self.zero:
            axes.axhline(0, **style)
            axes.axvline(0, **style)
        if self.identity:
            both = np.array([min(limits[0], high[0]), max(limits[1], high[1])])
            axes.plot(both, both, linestyle=(0, (4, 3)), **style)
        if self.fit:
            slope, intercept = self.fit
            axes.plot(limits, slope * limits + intercept, **style)
        axes.set_xlim(*limits)
        axes.set_ylim(*high)
