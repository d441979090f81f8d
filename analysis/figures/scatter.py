"""Scatter plots: one quantity against another, with labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from analysis.figures.chart import GREY, Chart, log_scale
from analysis.figures.marks import MOST_MARKS

SMALL = 10.0  # markers up to this size have no white edge, which would cover others
DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, 1], [1, -1], [-1, -1]])
REACHES = (5.0, 10.0, 16.0, 24.0, 34.0, 48.0)  # distances of a label from its point, in pt
POINT = 4.0  # half the width of a mark, in pt
STROKE = 0.8  # half the width of a line, in pt
SIZE = 7.5


@dataclass(frozen=True, kw_only=True)
class Scatter(Chart):
    """One point for each row.

    Args:
        x: Column of the horizontal position.
        y: Column of the vertical position.
        z: Column of a third quantity, shown in the hover text only.
        label: Column of short texts beside the points.
        error: Columns of the half-widths of horizontal and vertical error bars.
        towards: Columns x and y of the end of a line from each point.
        fit: Slope and intercept of a line.
        identity: Whether to draw the line y = x.
        equal: Whether one unit has the same length on both axes.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is logarithmic.
        x_limits: Limits of every facet; by default those of its own points.
        y_limits: The same for y.
        faint: Column of booleans: points to draw small and pale, below the others.
        front: Column of booleans: points to circle and to join in the order of x.
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

    @property
    def facts(self) -> tuple[str, ...]:
        return (*super().facts, self.z) if self.z else super().facts

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
                **self._marks(axes, own[pale]),
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

    def _marks(self, axes: Axes, rows: pd.DataFrame) -> dict[str, Any]:
        """Hover texts of points; points too many for them become an image in an SVG file."""
        return {"urls": self.urls(axes, rows), "rasterized": len(self.table) > MOST_MARKS}

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
                ends[:, 0], ends[:, 1], s=self.marker_size, marker=marker, color=colour,
                linewidths=0.6, **self._marks(axes, rows),
            )  # fmt: skip
            face = "white"
        edge = colour if self.towards[0] else "white"
        axes.scatter(
            x, y, s=self.marker_size, marker=marker, facecolors=face, edgecolors=edge,
            linewidths=0.6 if self.towards[0] or self.marker_size > SMALL else 0, zorder=2.5,
            **self._marks(axes, rows),
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


def label_points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    texts: Sequence[str],
    strokes: NDArray[np.float64] | None = None,
) -> None:
    """Write each text beside its point, where it covers least; the axes' limits must be set.

    Args:
        axes: The axes with the points.
        x: Positions of the points.
        y: The same for y.
        texts: Labels; a point with an empty one is kept free only.
        strokes: (n, 4), ends x, y, x, y of horizontal or vertical lines to keep free, such as error
            bars; NaN for none.
    """
    scale = 72 / axes.figure.dpi
    places = axes.transData.transform(np.column_stack([x, y])) * scale
    frame = np.array(axes.bbox.extents) * scale
    taken = [_around(place, POINT, POINT) for place in places]
    if strokes is not None:
        ends = strokes[np.isfinite(strokes).all(axis=1)].reshape(-1, 2)
        lines = axes.transData.transform(ends).reshape(-1, 4) * scale
        taken += (lines + [-STROKE, -STROKE, STROKE, STROKE]).tolist()
    for point, place, text in zip(zip(x, y, strict=True), places, texts, strict=True):
        if not text:
            continue
        half = np.array([0.29 * SIZE * len(text), 0.5 * SIZE])
        offset = _freest(place, half, np.array(taken), frame)
        taken.append(_around(place + offset, *half))
        far = np.abs(offset).max() > half.max() + REACHES[1]
        line = {"arrowstyle": "-", "color": "#9ca3af", "linewidth": 0.5} if far else None
        axes.annotate(
            text,
            point,  # in data units, as pixels depend on the file's resolution
            xytext=(offset[0], offset[1]),
            textcoords="offset points",
            fontsize=SIZE,
            ha="center",
            va="center",
            arrowprops=line,
            annotation_clip=False,
        )


def _freest(
    place: NDArray[np.float64],
    half: NDArray[np.float64],
    taken: NDArray[np.float64],
    frame: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The nearest offset at which a text of this half size covers least."""
    offsets = [
        direction * (half + reach * (np.abs(direction).sum() ** -0.5))
        for reach in REACHES
        for direction in DIRECTIONS
    ]
    costs = [_cost(_around(place + offset, *half), taken, frame) for offset in offsets]
    return offsets[int(np.argmin(costs))]


def _around(centre: NDArray[np.float64], half_width: float, half_height: float) -> list[float]:
    x, y = centre
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _cost(box: list[float], taken: NDArray[np.float64], frame: NDArray[np.float64]) -> float:
    """The area that a box shares with those taken, and what leaves the frame."""
    left, low, right, high = box
    wide = np.minimum(right, taken[:, 2]) - np.maximum(left, taken[:, 0])
    tall = np.minimum(high, taken[:, 3]) - np.maximum(low, taken[:, 1])
    covered = (wide.clip(0) * tall.clip(0)).sum()
    outside = max(frame[0] - left, frame[1] - low, right - frame[2], high - frame[3], 0)
    return float(covered + 50 * outside)
