"""Points: one quantity against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from analysis.figures.chart import GREY, Chart, log_scale
from analysis.figures.labels import label_points

SMALL = 10.0  # markers of this size or less have no white edge: it would cover others


@dataclass(frozen=True, kw_only=True)
class Scatter(Chart):
    """One point for each row.

    x, y: columns; z: third column, which only a page shows; label: column of short texts beside
    the points; error: columns of the two half-widths, where there are any; towards: columns of the
    place that a line leads to from each point; fit: slope and intercept of a line; identity: draw
    y = x; equal: one unit is as long on both axes; log_x,
    log_y: logarithmic axes; x_limits, y_limits: of every facet, instead of its own points'; faint:
    column that says which points are drawn small and pale, behind the others; front: column that
    says which points are ringed and joined, in the order of x.
    """

    x: str
    y: str
    z: str = ""
    label: str = ""
    error: tuple[str, str] = ("", "")
    towards: tuple[str, str] = ("", "")
    fit: tuple[float, float] | None = None
    identity: bool = False
    equal: bool = False
    log_x: bool = False
    log_y: bool = False
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    faint: str = ""
    front: str = ""
    marker_size: float = 26.0

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        shown = rows.dropna(subset=[self.x, self.y])
        if shown.empty:
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
            return
        faint = shown[self.faint].astype(bool) if self.faint else pd.Series(False, shown.index)
        for _, own, style in self.grouped(shown):
            pale = faint.reindex(own.index)
            axes.scatter(
                own.loc[pale, self.x], own.loc[pale, self.y], s=self.marker_size / 3,
                marker=style.marker, color=style.colour, alpha=0.45, linewidths=0, zorder=1.8,
            )  # fmt: skip
            self._plot_group(axes, own[~pale], style.colour, style.marker)
        if self.front:
            self._plot_front(axes, shown[shown[self.front].astype(bool)])
        if self.equal:
            axes.set_aspect("equal", adjustable="datalim")
        self._scale(axes)
        self._plot_lines(axes)
        if self.label:
            texts = shown[self.label].astype(str)
            label_points(axes, shown[self.x], shown[self.y], texts, self._strokes(shown))

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
            linewidths=0.6 if self.towards[0] or self.marker_size > SMALL else 0, zorder=2.5,
        )  # fmt: skip

    def _strokes(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """The ends x, y, x, y of the error bars."""
        x, y = rows[self.x].to_numpy(dtype=float), rows[self.y].to_numpy(dtype=float)
        dx, dy = (
            rows[column].to_numpy(dtype=float) if column else np.full(len(rows), np.nan)
            for column in self.error
        )
        along, up = (x - dx, y, x + dx, y), (x, y - dy, x, y + dy)
        return np.concatenate([np.column_stack(along), np.column_stack(up)])

    def _plot_front(self, axes: Axes, rows: pd.DataFrame) -> None:
        points = rows.sort_values(self.x)
        style: dict[str, Any] = {"color": "black", "linewidth": 0.9, "zorder": 2.2}
        axes.plot(points[self.x], points[self.y], linestyle=(0, (4, 3)), **style)
        size = 5 * self.marker_size
        rings: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.1}
        axes.scatter(points[self.x], points[self.y], s=size, zorder=3, **rings)

    def _scale(self, axes: Axes) -> None:
        for which, is_log in (("x", self.log_x), ("y", self.log_y)):
            if is_log:
                log_scale(axes, which)
        axes.autoscale_view()
        if self.x_limits:
            axes.set_xlim(*self.x_limits)
        if self.y_limits:
            axes.set_ylim(*self.y_limits)

    def _plot_lines(self, axes: Axes) -> None:
        if not (self.identity or self.fit):
            return
        limits = np.array(axes.get_xlim())
        high = np.array(axes.get_ylim())
        style: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "zorder": 1.5}
        if self.identity:
            both = np.array([min(limits[0], high[0]), max(limits[1], high[1])])
            axes.plot(both, both, linestyle=(0, (4, 3)), **style)
        if self.fit:
            slope, intercept = self.fit
            axes.plot(limits, slope * limits + intercept, **style)
        axes.set_xlim(*limits)
        axes.set_ylim(*high)
