"""Interval plots: for each name a value and its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from analysis.figures.chart import GREY, Chart, Style, log_scale

LETTER = 0.068  # width of a letter of a label, inches
LOG_MARGIN = 1.5  # factor by which a logarithmic axis exceeds the values
WIDEST = 0.75  # part of the values' range by which intervals may exceed it
SMALLEST_RANGE = 0.01  # of an axis, relative to the value


@dataclass(frozen=True, kw_only=True)
class Intervals(Chart):
    """One row of the axes for each value of the column `label`, from the top.

    Groups that share a label are drawn next to each other within its row.

    Args:
        label: Column of the names.
        value: Column of the values.
        low, high: Columns of the ends of the intervals, if the table has them; NaN for none.
        parts: Column of tuples of the single values, such as one for each seed, drawn as rings.
        reference: Position of a vertical line.
        x_limits: Limits of every facet; by default those of its own values.
        log: Whether the x axis is logarithmic, for values that are all positive. A lower end that
            is not is drawn to the edge of the axes.
    """

    label: str = "label"
    value: str = "mean"
    low: str = "low"
    high: str = "high"
    parts: str = ""
    reference: float | None = None
    x_limits: tuple[float, float] | None = None
    log: bool = False

    @property
    def label_width(self) -> float:
        return 0.3 + LETTER * max(map(len, self.table[self.label].astype(str)), default=0)

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        if self.log:
            log_scale(axes, "x")
        places = {label: i for i, label in enumerate(rows[self.label].unique())}
        groups = self.grouped(rows)
        shared = rows.groupby(self.label)[self.group].nunique().max() > 1 if self.group else False
        shifts = np.linspace(-0.25, 0.25, len(groups)) if shared else np.zeros(len(groups))
        if self.reference is not None:
            axes.axvline(self.reference, color=GREY, linewidth=1.0)
        for (own, style), shift in zip(groups, shifts, strict=True):
            self._plot_group(axes, own, own[self.label].map(places).astype(float) + shift, style)
        axes.set_yticks(range(len(places)), [str(label) for label in places], fontsize=9)
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.margins(x=0.06)
        self._limit(axes, rows)

    def _plot_group(self, axes: Axes, rows: pd.DataFrame, y: pd.Series, style: Style) -> None:
        """Draw intervals, rings and values at the heights y."""
        value = rows[self.value].astype(float)
        if self.low in rows:
            low, high = rows[self.low].astype(float), rows[self.high].astype(float)
            low = low.mask(low <= 0, value / 1e3) if self.log else low
            axes.hlines(y, low, high, color=style.colour, linewidth=1.6, alpha=0.8)
        if self.parts:
            rings = rows.assign(y=y)[[self.parts, "y"]].explode(self.parts).astype(float)
            look: dict[str, Any] = {"facecolors": "none", "linewidths": 0.7, "alpha": 0.8}
            axes.scatter(rings[self.parts], rings["y"], s=14, edgecolors=style.colour, **look)
        look = {"color": style.colour, "marker": style.marker, "zorder": 3}
        axes.scatter(value, y, s=34, urls=self.urls(axes, rows), **look)

    def _limit(self, axes: Axes, rows: pd.DataFrame) -> None:
        """Cut intervals that would hide the values, as those over two seeds do."""
        if self.x_limits:
            margin = 0.03 * (self.x_limits[1] - self.x_limits[0])
            axes.set_xlim(self.x_limits[0] - margin, self.x_limits[1] + margin)
            if self.x_limits[1] >= 1000:
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            return
        columns = [rows[c].explode() for c in (self.value, self.parts) if c]
        found = pd.concat([*columns, pd.Series([self.reference])]).astype(float).dropna()
        if found.empty:
            return
        least, most = found.min(), found.max()
        if self.log:
            axes.set_xlim(least / LOG_MARGIN, most * LOG_MARGIN)
            return
        # A single value keeps a range in which its digits can be told.
        reach = WIDEST * max(most - least, SMALLEST_RANGE * abs(most), 1e-9)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, least - reach), min(high, most + reach))
