"""Histograms: how a quantity is spread in each of a few groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.chart import GREY, Chart, Style, log_scale

BINS = 16
ROW = 0.03  # height of a group's row of markers, as a share of the axes


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Counts of the column `value` in common bins, a marker below for each row, and medians.

    log: a logarithmic axis, with bins of one ratio; reference: x of a dotted line.
    """

    value: str
    log: bool = False
    reference: float | None = None

    @property
    def below(self) -> float:
        return super().below + ROW * self.size[1] * len(self.styles)

    def edges(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """The bins' edges, ascending, for the rows of one facet, at least one with a value."""
        values = rows[self.value].dropna().to_numpy(dtype=float)
        bins = min(BINS, math.ceil(2 * math.sqrt(len(values))))
        if self.log:
            edges = np.exp(np.histogram_bin_edges(np.log(values), bins=bins))
            edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
            return edges  # with both ends in it, which exp(log(x)) may miss
        return np.histogram_bin_edges(values, bins=bins)

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        if rows[self.value].isna().all():
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
            return
        if self.log:
            log_scale(axes, "x")
        edges = self.edges(rows)
        groups = self.grouped(rows.dropna(subset=[self.value]))
        for i, (_, own, style) in enumerate(groups):
            found = own[self.value].to_numpy(dtype=float)
            if not len(found):
                continue
            counts, _ = np.histogram(found, bins=edges)
            axes.stairs(counts, edges, fill=True, color=style.colour, alpha=0.3)
            axes.stairs(counts, edges, color=style.colour, linewidth=1.3)
            axes.axvline(np.median(found), color=style.colour, linestyle=(0, (4, 2)), linewidth=1.3)
            below: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.scatter(
                [*found, np.median(found)], [*np.full(len(found), -ROW * (i + 0.7)), 1.0],
                s=15, marker=style.marker, facecolors="none", edgecolors=style.colour,
                linewidths=0.8, **below,
            )  # fmt: skip
        if self.reference is not None:
            axes.axvline(self.reference, color=GREY, linestyle=":", linewidth=1.6)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(axis="x", pad=4 + 72 * ROW * self.size[1] * len(groups), length=0)
        axes.set_ylim(bottom=0)

    def legend_line(self, style: Style) -> Line2D:
        return Line2D(
            [], [], color=style.colour, linestyle=(0, (4, 2)), linewidth=1.3,
            marker=style.marker, markersize=5, markerfacecolor="none",
        )  # fmt: skip
