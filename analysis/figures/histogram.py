"""Histograms of a quantity, by group."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.chart import GREY, Chart, Style, log_scale
from analysis.figures.page import figure_of

BINS = 16
ROW = 0.03  # height of a group's row of markers, in shares of the axes
DASHES = (0, (4, 2))


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Counts of the column `value` in common bins, with a marker for each row and the medians.

    Args:
        value: Column of the values.
        log: Whether the x axis is logarithmic; all bins then have the same ratio.
        reference: Position of a dotted line.
    """

    value: str
    log: bool = False
    reference: float | None = None

    def edges(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Return the ascending edges of the bins for rows with at least one value."""
        values = rows[self.value].dropna().to_numpy(dtype=float)
        bins = min(BINS, math.ceil(2 * math.sqrt(len(values))))
        if self.log and np.ptp(values):
            return np.geomspace(values.min(), values.max(), bins + 1)
        return np.histogram_bin_edges(values, bins)

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        if rows[self.value].isna().all():
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
            return
        if self.log:
            log_scale(axes, "x")
        edges = self.edges(rows)
        groups = self.grouped(rows.dropna(subset=[self.value]))
        for i, (own, style) in enumerate(groups):
            if len(own):
                self._plot_group(axes, own, style, edges, -ROW * (i + 0.7))
        if self.reference is not None:
            axes.axvline(self.reference, color=GREY, linestyle=":", linewidth=1.6)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(axis="x", pad=4 + 72 * ROW * self.size[1] * len(groups), length=0)
        axes.set_ylim(bottom=0)

    def _plot_group(
        self, axes: Axes, rows: pd.DataFrame, style: Style, edges: NDArray[np.float64], y: float
    ) -> None:
        """Draw bars, median, and markers at a height y in shares of the axes."""
        figure, found = figure_of(axes), rows[self.value].to_numpy(dtype=float)
        colour = style.colour
        drawn: Any = axes.hist(found, [*edges], color=colour, alpha=0.3)
        for n, low, high, bar in zip(drawn[0], edges, edges[1:], drawn[2], strict=False):
            bar.set_url(figure.mark(f"{low:.4g} to {high:.4g}: {n:.0f}"))
        axes.stairs(drawn[0], edges, color=colour, linewidth=1.3)
        median = float(np.median(found))
        url = figure.mark(f"median: {median:.4g}")
        axes.axvline(median, color=colour, url=url, linestyle=DASHES, linewidth=1.3)
        look: dict[str, Any] = {
            "s": 15, "marker": style.marker, "linewidths": 0.8, "facecolors": "none",
            "edgecolors": colour, "transform": axes.get_xaxis_transform(), "clip_on": False,
        }  # fmt: skip
        axes.scatter(found, np.full(len(found), y), urls=self.urls(axes, rows), **look)
        axes.scatter([median], [1.0], **look)
