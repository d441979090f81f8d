"""Scatters of three quantities as plotly figures that can be turned."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.figures.scatter import Scatter
from analysis.html.axes import FONT, HOVER_BOX, SYMBOLS, behind, choose
from analysis.html.hover import Links, escaped

IN_THREE = {"circle", "square", "diamond"}  # symbols that every font has
EYE = {"x": 1.5, "y": 1.5, "z": 1.1}
WORDS = "Here the third component is shown too: turn it with the mouse."
CHOICE = "One model at a time: the headings are the entries of the list."


def plot_solid(chart: Scatter, links: Links) -> go.Figure:
    """One facet at a time, chosen from a list."""
    figure, ranges = go.Figure(), {}
    for facet, rows in chart.facets.items():
        before = len(figure.data)
        for group, own, style in chart.grouped(rows.dropna(subset=[chart.x, chart.y, chart.z])):
            symbol = SYMBOLS[style.marker]
            marker = {
                "size": 4,
                "color": style.colour,
                "symbol": symbol if symbol in IN_THREE else "circle",
            }
            figure.add_trace(
                go.Scatter3d(
                    x=own[chart.x], y=own[chart.y], z=own[chart.z], mode="markers",
                    marker=marker, name=escaped(group), **behind(chart, own, links),
                )
            )  # fmt: skip
        ranges[str(facet)] = range(before, len(figure.data))
    if len(ranges) > 1:
        choose(figure, ranges)
    titles = dict(zip("xyz", (chart.x, chart.y, chart.z), strict=True))
    figure.update_scenes(
        {f"{axis}axis_title": escaped(text) for axis, text in titles.items()},
        aspectmode="data" if chart.equal else "auto",
        camera={"eye": EYE},
    )
    margin = {"l": 10, "r": 10, "t": 60, "b": 10}
    figure.update_layout(height=560, font=FONT, margin=margin, hoverlabel=HOVER_BOX)
    return figure
