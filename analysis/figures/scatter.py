"""Scatter plots: one quantity against another, with labels that do not overlap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from analysis.figures.chart import GREY, Chart, Style, log_scale
from analysis.figures.page import MOST_MARKS

SMALL = 10.0  # markers up to this size have no white edge, which would cover others
DIRECTIONS = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1], [1, 0], [-1, 0], [0, 1], [0, -1]])
REACHES = (5.0, 10.0, 16.0, 24.0, 34.0, 48.0)  # distances of a label from its point, in pt
POINT = np.array([4.0, 4.0])  # half the size of a mark, in pt
FONT = 7.5
DASHES = (0, (4, 3))


@dataclass(frozen=True, kw_only=True)
class Scatter(Chart):
    """One point for each row.

    Args:
        x, y: Columns of the positions.
        label: Column of short texts beside the points.
        error: Columns of the half-widths of horizontal and vertical error bars.
        towards: Columns x and y of the end of a line from each point.
        fit: Slope and intercept of a line.
        identity: Whether to draw the line y = x.
        equal: Whether one unit has the same length on both axes.
        log_x, log_y: Whether an axis is logarithmic.
        x_limits, y_limits: Limits of every facet; by default those of its own points.
        faint: Column of booleans: points to draw small and pale, below the others.
        front: Column of booleans: points to circle and to join in the order of x.
    """

    x: str
    y: str
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
        for own, style in self.grouped(shown):
            self._plot_group(axes, own, style)
        if self.front:
            self._plot_front(axes, shown[shown[self.front].astype(bool)].sort_values(self.x))
        if self.equal:
            axes.set_aspect("equal", adjustable="datalim")
        for which in ["x"] * self.log_x + ["y"] * self.log_y:
            log_scale(axes, which)
        axes.autoscale_view()
        # Limits at equal scales must be free to grow (auto=None).
        axes.set_xlim(self.x_limits or axes.get_xlim(), auto=None)
        axes.set_ylim(self.y_limits or axes.get_ylim(), auto=None)
        self._plot_lines(axes)

    def _plot_points(
        self, axes: Axes, rows: pd.DataFrame, at: tuple[str, str], style: Style, **look: Any
    ) -> None:
        """Draw points with hover texts; so many that they have none are an image in an SVG file."""
        look = {"s": self.marker_size, "marker": style.marker, **look}
        urls, many = self.urls(axes, rows), len(self.table) > MOST_MARKS
        axes.scatter(rows[at[0]], rows[at[1]], urls=urls, rasterized=many, **look)

    def _plot_group(self, axes: Axes, rows: pd.DataFrame, style: Style) -> None:
        """Draw faint points, then the others with their error bars and the ends of their lines."""
        colour, at = style.colour, (self.x, self.y)
        faint = rows[self.faint].astype(bool) if self.faint else pd.Series(False, rows.index)
        look: dict[str, Any] = {"s": self.marker_size / 3, "alpha": 0.45, "zorder": 1.8}
        self._plot_points(axes, rows[faint], at, style, color=colour, linewidths=0, **look)
        rows = rows[~faint]
        bars = {k: rows[c] for k, c in zip(("xerr", "yerr"), self.error, strict=True) if c}
        if bars:
            look = {"ecolor": colour, "elinewidth": 0.8, "alpha": 0.5}
            axes.errorbar(rows[self.x], rows[self.y], fmt="none", **bars, **look)
        face, edge, width = colour, "white", 0.6 if self.marker_size > SMALL else 0
        if self.towards[0]:
            lines = rows[[*at, *self.towards]].to_numpy(dtype=float).reshape(-1, 2, 2)
            axes.add_collection(LineCollection([*lines], colors=colour, linewidths=0.6, alpha=0.7))
            self._plot_points(axes, rows, self.towards, style, color=colour, linewidths=0.6)
            face, edge, width = "white", colour, 0.6
        look = {"facecolors": face, "edgecolors": edge, "linewidths": width, "zorder": 2.5}
        self._plot_points(axes, rows, at, style, **look)

    def _plot_front(self, axes: Axes, points: pd.DataFrame) -> None:
        x, y = points[self.x], points[self.y]
        axes.plot(x, y, color="black", linewidth=0.9, zorder=2.2, linestyle=DASHES)
        rings: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.1}
        axes.scatter(x, y, s=5 * self.marker_size, zorder=3, **rings)

    def _plot_lines(self, axes: Axes) -> None:
        """Draw the diagonal and the fit, which do not change the limits."""
        x, y = np.array(axes.get_xlim()), np.array(axes.get_ylim())
        style: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "zorder": 1.5}
        if self.identity:
            both = [min(x[0], y[0]), max(x[1], y[1])]
            axes.plot(both, both, linestyle=DASHES, **style)
        if self.fit:
            axes.plot(x, self.fit[0] * x + self.fit[1], **style)
        axes.set_xlim(*x, auto=None)
        axes.set_ylim(*y, auto=None)

    def write_labels(self, axes: Axes, rows: pd.DataFrame) -> None:
        """Write each label beside its point, at the nearest place where it covers least."""
        if not self.label:
            return
        shown = rows.dropna(subset=[self.x, self.y])
        points = shown[[self.x, self.y]].to_numpy(dtype=float)
        scale = 72 / axes.figure.dpi
        places = axes.transData.transform(points) * scale
        frame = np.array(axes.bbox.extents) * scale
        taken = [_around(place, POINT) for place in places]
        for point, place, text in zip(points, places, shown[self.label].astype(str), strict=True):
            if not text:
                continue
            half = np.array([0.29 * FONT * len(text), 0.5 * FONT])
            offsets = [d * (half + reach) for reach in REACHES for d in DIRECTIONS]
            costs = [_cost(_around(place + o, half), np.array(taken), frame) for o in offsets]
            offset = offsets[int(np.argmin(costs))]
            taken.append(_around(place + offset, half))
            axes.annotate(
                text, point, offset, textcoords="offset points", fontsize=FONT, ha="center",
                va="center", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": "#9ca3af", "linewidth": 0.5},
            )  # fmt: skip


def _around(centre: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([centre - half, centre + half])


def _cost(
    box: NDArray[np.float64], taken: NDArray[np.float64], frame: NDArray[np.float64]
) -> float:
    """The area that a box shares with those taken, and what leaves the frame."""
    shared = np.minimum(box[2:], taken[:, 2:]) - np.maximum(box[:2], taken[:, :2])
    outside = max(*(frame[:2] - box[:2]), *(box[2:] - frame[2:]), 0)
    return float(shared.clip(0).prod(axis=1).sum() + 50 * outside)
