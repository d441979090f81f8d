"""Histograms as plotly figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.chart import Style
from analysis.figures.histogram import Histogram
from analysis.html.axes import GREY, SYMBOLS, Legend, behind, facets_of, label_axes
from analysis.html.hover import Links

ROW = 0.06  # height of a group's row of markers, as a share of the highest bar
TICKS = 6


def plot_histogram(chart: Histogram, links: Links) -> go.Figure:
    """Bars of the same bins as on paper, a marker below for each row, and dashed medians."""
    figure, places = facets_of(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        shown = rows.dropna(subset=[chart.value])
        if shown.empty:
            continue
        edges = chart.edges(shown)
        groups = [(g, own, style) for g, own, style in chart.grouped(shown) if len(own)]
        top = max(np.histogram(own[chart.value], bins=edges)[0].max() for _, own, _ in groups)
        for i, (group, own, style) in enumerate(groups):
            bars = _bars(own[chart.value].to_numpy(dtype=float), edges, style)
            figure.add_trace(legend.entry(bars, group), **places[facet])
            for trace in (
                _median(float(own[chart.value].median()), top, style),
                _markers(chart, own, -ROW * top * (i + 0.7), style, links),
            ):
                figure.add_trace(legend.member(trace, group), **places[facet])
        if chart.reference is not None:
            figure.add_vline(chart.reference, line={"color": GREY, "dash": "dot"}, **places[facet])
        figure.update_yaxes(
            range=[-ROW * top * (len(groups) + 0.4), 1.1 * top],
            tickvals=list(range(0, top + 1, math.ceil(top / TICKS))),
            **places[facet],
        )
    figure.update_layout(barmode="overlay")
    label_axes(figure, chart, log_x=chart.log)
    return figure


def _bars(found: np.ndarray, edges: np.ndarray, style: Style) -> go.Bar:
    counts, _ = np.histogram(found, bins=edges)
    texts = [
        f"{low:.4g} to {high:.4g}: <b>{n}</b>"
        for low, high, n in zip(edges, edges[1:], counts, strict=False)
    ]
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges),
        marker_color=style.colour, opacity=0.5, hovertext=texts, hoverinfo="text",
    )  # fmt: skip


def _median(median: float, top: int, style: Style) -> go.Scatter:
    look: dict[str, Any] = {"color": style.colour, "width": 1.5, "dash": "dash"}
    text = f"median: <b>{median:.4g}</b>"
    x, y = [median, median], [0, 1.08 * top]
    return go.Scatter(x=x, y=y, mode="lines", line=look, hovertext=text, hoverinfo="text")


def _markers(
    chart: Histogram, rows: pd.DataFrame, height: float, style: Style, links: Links
) -> go.Scatter:
    symbol = f"{SYMBOLS[style.marker]}-open"
    return go.Scatter(
        x=rows[chart.value], y=np.full(len(rows), height), mode="markers",
        marker={"symbol": symbol, "color": style.colour, "size": 7},
        **behind(chart, rows, links),
    )  # fmt: skip
