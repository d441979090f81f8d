"""Curves as plotly figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.curves import Curves
from analysis.html.axes import GREY, SYMBOLS, Legend, facets_of, label_axes
from analysis.html.hover import Links, escaped, hover_text

FEW_NAMES = 30  # a logarithmic axis that spans more names powers of ten alone


def plot_curves(chart: Curves, links: Links) -> go.Figure:
    """A line for each series."""
    figure, places = facets_of(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        for group, own, style in chart.grouped(rows.dropna(subset=[chart.x, chart.y])):
            for _, line in own.groupby(chart.series, sort=False):
                line = line.sort_values(chart.x)
                pale = bool(chart.thick) and not line[chart.thick].iloc[0]
                trace = go.Scatter(
                    x=line[chart.x].to_numpy(),
                    y=line[chart.y].to_numpy(dtype="float32"),
                    mode="lines+markers" if chart.marks and not pale else "lines",
                    line={"color": style.colour, "width": 1 if pale else 2},
                    opacity=0.5 if pale else 0.9,
                    marker={"symbol": SYMBOLS[style.marker], "size": 5},
                    **_behind_line(chart, line, links),
                )
                figure.add_trace(legend.entry(trace, group), **places[facet])
        if chart.across:
            for level in rows[chart.across].dropna().unique():
                figure.add_hline(level, line={"color": GREY, "dash": "dash"}, **places[facet])
        if chart.is_log(facet):
            values = rows[chart.y].to_numpy(dtype=float)
            figure.update_yaxes(**_log_axis(values), **places[facet])
    label_axes(figure, chart)
    return figure


def _behind_line(chart: Curves, line: pd.DataFrame, links: Links) -> dict[str, Any]:
    """What the mouse shows of a whole curve: what its points have in common is written once."""
    known = [column for column in chart.hover if column in line.columns]
    common = [
        c for c in known if c not in (chart.x, chart.y) and line[c].nunique(dropna=False) == 1
    ]
    text = hover_text({column: line[column].iloc[0] for column in common})
    point = f"{escaped(chart.x)}: <b>%{{x:,}}</b><br>{escaped(chart.y)}: <b>%{{y:.4g}}</b>"
    run_id = line["run_id"].iloc[0] if "run_id" in line.columns else ""
    return {"hovertemplate": f"{text}<br>{point}<extra></extra>", "meta": links.of(run_id)}


def _log_axis(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic axis that names powers of ten, and 2 and 5 times these if it is short."""
    there = values[values > 0]
    long = len(there) > 0 and there.max() / there.min() > FEW_NAMES
    return {"type": "log", "dtick": 1 if long else "D2"}
