"""Histograms: how a quantity is spread in each of a few groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.drawing.chart import Chart, Style

BINS = 16


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Counts of the column `value` in common bins, a stroke below for each row, and medians."""

    value: str

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        values = rows[self.value].dropna().to_numpy(dtype=float)
        if not len(values):
            axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
            return
        edges = np.histogram_bin_edges(values, bins=BINS)
        for _, own, style in self.grouped(rows.dropna(subset=[self.value])):
            found = own[self.value].to_numpy(dtype=float)
            if not len(found):
                continue
            counts, _ = np.histogram(found, bins=edges)
            axes.stairs(counts, edges, fill=True, color=style.colour, alpha=0.3)
            axes.stairs(counts, edges, color=style.colour, linewidth=1.3)
            axes.axvline(np.median(found), color=style.colour, linestyle=(0, (4, 2)), linewidth=1.3)
            axes.plot(
                found, np.full(len(found), -0.02), "|", color=style.colour, markersize=7,
                transform=axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(axis="x", pad=8)

    def legend_line(self, style: Style) -> Line2D | Patch:  # type: ignore[override]
        return Patch(facecolor=style.colour, edgecolor=style.colour, alpha=0.5)
