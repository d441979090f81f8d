"""Intervals as plotly figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.intervals import LOG_MARGIN, WIDEST, Intervals
from analysis.html.axes import GREY, SYMBOLS, Legend, behind, facets_of, label_axes
from analysis.html.hover import Links, escaped

LINE_HEIGHT, SHARED_LINE_HEIGHT = 26, 34
REACH = 0.25  # of groups that share a line, from its middle
MARGIN = 0.06
FEWEST_LINES, LEGEND_LINE = 3, 26
LETTER, BEFORE = 7, 24  # pixels of a label's letter, and around it


def plot_intervals(chart: Intervals, links: Links) -> go.Figure:
    """A line for each label; groups that share labels are shifted apart."""
    facets = chart.facets
    shared = any(_is_shared(chart, rows) for rows in facets.values())
    most = max(FEWEST_LINES, *(rows[chart.label].nunique() for rows in facets.values()))
    longest = max((len(str(label)) for label in chart.table[chart.label]), default=0)
    high = most * (SHARED_LINE_HEIGHT if shared else LINE_HEIGHT)
    if len(facets) <= chart.columns:
        high = max(high, LEGEND_LINE * (len(chart.styles) + 2))
    figure, places = facets_of(chart, high, BEFORE + LETTER * longest)
    legend = Legend(chart)
    for facet, rows in facets.items():
        lines = {label: i for i, label in enumerate(dict.fromkeys(rows[chart.label]))}
        groups = chart.grouped(rows)
        reach = REACH if _is_shared(chart, rows) else 0.0
        shifts = np.linspace(-reach, reach, len(groups))
        for (group, own, style), shift in zip(groups, shifts, strict=True):
            y = own[chart.label].map(lines).to_numpy(dtype=float) + shift
            if chart.parts:
                figure.add_trace(
                    legend.member(_rings(own[chart.parts], y, style.colour), group),
                    **places[facet],
                )
            trace = go.Scatter(
                x=own[chart.value], y=y, mode="markers",
                marker={"color": style.colour, "symbol": SYMBOLS[style.marker], "size": 10},
                error_x=_bars(chart, own), **behind(chart, own, links),
            )  # fmt: skip
            figure.add_trace(legend.entry(trace, group), **places[facet])
        if chart.reference is not None:
            figure.add_vline(chart.reference, line={"color": GREY, "width": 1}, **places[facet])
        figure.update_yaxes(
            tickvals=list(lines.values()),
            ticktext=[escaped(label) for label in lines],
            range=[len(lines) - 0.4, -0.6],
            automargin=True,
            zeroline=False,
            **places[facet],
        )
        figure.update_xaxes(range=_range(chart, rows), zeroline=False, **places[facet])
    label_axes(figure, chart, log_x=chart.log)
    return figure


def _is_shared(chart: Intervals, rows: pd.DataFrame) -> bool:
    """Whether a label belongs to more than one group."""
    return bool(chart.group) and rows.groupby(chart.label)[chart.group].nunique().max() > 1


def _rings(parts: pd.Series, y: np.ndarray, colour: str) -> go.Scatter:
    """The single values behind each row."""
    x = [value for values in parts for value in values]
    marker = {"symbol": "circle-open", "color": colour, "size": 6}
    heights = np.repeat(y, [len(values) for values in parts])
    return go.Scatter(x=x, y=heights, mode="markers", marker=marker, hoverinfo="skip")


def _bars(chart: Intervals, rows: pd.DataFrame) -> dict[str, object]:
    """From the lower to the upper end; on a logarithmic axis every lower one is above 0."""
    if not chart.low:
        return {}
    value, low, high = (
        rows[column].to_numpy(dtype=float) for column in (chart.value, chart.low, chart.high)
    )
    low = np.where(low <= 0, value / 1e3, low) if chart.log else low
    ends = {"array": high - value, "arrayminus": value - low}
    return {"type": "data", "symmetric": False, "width": 3, **ends}


def _range(chart: Intervals, rows: pd.DataFrame) -> list[float] | None:
    """The same limits as on paper, where very wide intervals are cut; exponents of a log axis."""
    if chart.x_limits:
        return list(np.log10(chart.x_limits)) if chart.log else list(chart.x_limits)
    parts = rows[chart.parts].explode() if chart.parts else pd.Series(dtype=float)
    line = pd.Series([] if chart.reference is None else [chart.reference], dtype=float)
    found = pd.concat([rows[chart.value], parts, line]).astype(float).dropna()
    if found.empty:
        return None
    if chart.log:
        return list(np.log10([found.min() / LOG_MARGIN, found.max() * LOG_MARGIN]))
    ends = [rows[column].astype(float) for column in (chart.low, chart.high) if column]
    drawn = pd.concat([found, *ends])
    margin = MARGIN * (drawn.max() - drawn.min())
    reach = WIDEST * max(found.max() - found.min(), 1e-9)
    low = max(drawn.min() - margin, found.min() - reach)
    return [low, min(drawn.max() + margin, found.max() + reach)]
