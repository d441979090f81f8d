"""Scatters as plotly figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.chart import Style
from analysis.figures.scatter import Scatter
from analysis.html.axes import GREY, SYMBOLS, Legend, behind, facets_of, label_axes
from analysis.html.hover import Links, escaped

MARGIN = 0.06  # around the points, in ranges of them
MOST_LABELS = 15  # with more they would cover each other; the mouse shows them


def plot_scatter(chart: Scatter, links: Links) -> go.Figure:
    """Points, and the lines among them."""
    figure, places = facets_of(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        shown = rows.dropna(subset=[chart.x, chart.y])
        for group, own, style in chart.grouped(shown):
            if own.empty:
                continue
            if chart.towards[0]:
                for trace in _towards(chart, own, style, links):
                    figure.add_trace(legend.member(trace, group), **places[facet])
            faint = own[chart.faint].astype(bool) if chart.faint else pd.Series(False, own.index)
            if faint.any():
                trace = _faint(chart, own[faint], style, links)
                figure.add_trace(legend.member(trace, group), **places[facet])
            trace = _points(chart, own[~faint], style, links)
            figure.add_trace(legend.entry(trace, group), **places[facet])
        for trace in _lines(chart, shown):
            figure.add_trace(trace, **places[facet])
        if chart.identity and len(shown):  # whose line is longer than the points need
            figure.update_xaxes(range=_range(shown[chart.x], chart.log_x), **places[facet])
            figure.update_yaxes(range=_range(shown[chart.y], chart.log_y), **places[facet])
    label_axes(figure, chart, log_x=chart.log_x, log_y=chart.log_y)
    if chart.x_limits and not chart.log_x:
        figure.update_xaxes(range=chart.x_limits)
    if chart.y_limits and not chart.log_y:
        figure.update_yaxes(range=chart.y_limits)
    if chart.equal:
        for axis in figure.select_yaxes():
            axis.update(scaleanchor=axis.anchor, scaleratio=1)
    return figure


def _points(chart: Scatter, rows: pd.DataFrame, style: Style, links: Links) -> go.Scatter:
    """The points of one group; open where a line leads on from them."""
    symbol, edge = SYMBOLS[style.marker], "white"
    if chart.towards[0]:
        symbol, edge = f"{symbol}-open", style.colour
    marker = {
        "color": style.colour,
        "symbol": symbol,
        "size": 7 if chart.towards[0] else 9,
        "opacity": 0.95,
        "line": {"width": 0.5, "color": edge},
    }  # fmt: skip
    bars = {
        f"error_{side}": {"type": "data", "array": rows[column], "thickness": 1, "width": 0}
        for side, column in zip("xy", chart.error, strict=True)
        if column
    }
    labels: dict[str, Any] = {"mode": "markers"}
    if chart.label and (chart.table[chart.label] != "").sum() <= MOST_LABELS:
        labels = {"mode": "markers+text", "text": [escaped(text) for text in rows[chart.label]]}
    return go.Scatter(
        x=rows[chart.x],
        y=rows[chart.y],
        marker=marker,
        textposition="top center",
        textfont={"size": 10},
        **labels,
        **bars,
        **behind(chart, rows, links),
    )


def _faint(chart: Scatter, rows: pd.DataFrame, style: Style, links: Links) -> go.Scatter:
    """Small and pale, behind the others."""
    marker = {"color": style.colour, "symbol": SYMBOLS[style.marker], "size": 5, "opacity": 0.45}
    x, y = rows[chart.x], rows[chart.y]
    return go.Scatter(x=x, y=y, mode="markers", marker=marker, **behind(chart, rows, links))


def _towards(chart: Scatter, rows: pd.DataFrame, style: Style, links: Links) -> list[go.Scatter]:
    """The lines that lead from the points, and the filled markers at their ends."""
    x, y = (
        np.column_stack([rows[a], rows[b], np.full(len(rows), np.nan)]).ravel()
        for a, b in zip((chart.x, chart.y), chart.towards, strict=True)
    )
    line = {"color": style.colour, "width": 1}
    marker = {"color": style.colour, "symbol": SYMBOLS[style.marker], "size": 6}
    return [
        go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", opacity=0.6),
        go.Scatter(
            x=rows[chart.towards[0]],
            y=rows[chart.towards[1]],
            mode="markers",
            marker=marker,
            **behind(chart, rows, links),
        ),
    ]


def _lines(chart: Scatter, rows: pd.DataFrame) -> list[go.Scatter]:
    """The front, the line that is fitted, and the one on which both quantities are equal."""
    x, y = rows[chart.x].to_numpy(dtype=float), rows[chart.y].to_numpy(dtype=float)
    if not len(x):
        return []
    ends = np.array([x.min(), x.max()])
    found = []
    if chart.front:
        front = rows[rows[chart.front].astype(bool)].sort_values(chart.x)
        rings = {"symbol": "circle-open", "size": 17, "line": {"width": 1.5}}
        line = {"color": "black", "width": 1.2, "dash": "dash"}
        own = go.Scatter(x=front[chart.x], y=front[chart.y], line=line, marker=rings)
        found.append(own.update(mode="lines+markers"))
    if chart.fit:
        line = {"color": GREY, "width": 1.5}
        fitted = chart.fit[0] * ends + chart.fit[1]
        found.append(go.Scatter(x=ends, y=fitted, line=line, mode="lines"))
    if chart.identity:
        both = [min(x.min(), y.min()), max(x.max(), y.max())]
        line = {"color": GREY, "width": 1.5, "dash": "dash"}
        found.append(go.Scatter(x=both, y=both, line=line, mode="lines"))
    return [trace.update(hoverinfo="skip", showlegend=False) for trace in found]


def _range(values: pd.Series, is_log: bool) -> list[float]:
    """An axis for these values alone; exponents of a logarithmic one."""
    numbers = values.to_numpy(dtype=float)
    numbers = np.log10(numbers) if is_log else numbers
    margin = MARGIN * max(numbers.max() - numbers.min(), 1e-9)
    return [numbers.min() - margin, numbers.max() + margin]
