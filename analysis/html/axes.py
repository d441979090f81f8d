"""What all plotly figures have: facets, axes, a legend, a list, and what the mouse finds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.chart import Chart
from analysis.html.hover import Links, escaped, hover_texts

GREY = "#6b7280"
SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
    "P": "cross", "X": "x", "*": "star",
}  # fmt: skip
FACET_HEIGHT, ONLY_FACET_HEIGHT = 245, 330
ABOVE, BELOW, BETWEEN_ROWS = 50, 60, 90
PAGE_WIDTH, LEGEND_WIDTH = 1100, 170  # of a window that is not wide
PAGE_LETTERS = 105  # of an axis title, over the whole width
FONT = {"family": "system-ui, sans-serif", "size": 13}
HOVER_BOX = {"align": "left", "bgcolor": "white", "font": {"size": 12}}

Places = dict[Any, dict[str, int]]


def facets_of(
    chart: Chart, high: float | None = None, labels: float | None = None
) -> tuple[go.Figure, Places]:
    """An empty figure, and the row and column of each facet.

    high: pixels of each facet's axes; labels: of the names left of the axes, where they are long.
    """
    facets = list(chart.facets)
    columns = min(chart.columns, len(facets))
    rows = math.ceil(len(facets) / columns)
    titles = [broken(facet, columns) for facet in facets] if chart.facet else None
    high = high or (ONLY_FACET_HEIGHT if rows == 1 else FACET_HEIGHT)
    inner = rows * high + (rows - 1) * BETWEEN_ROWS
    aside = 0.22 / columns
    if labels is not None:
        aside = min(0.8 / columns, labels / max(1, PAGE_WIDTH - labels - LEGEND_WIDTH))
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        vertical_spacing=BETWEEN_ROWS / inner if rows > 1 else 0,
        horizontal_spacing=aside,
    )
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        height=ABOVE + inner + BELOW,
        margin={"l": 60, "r": 20, "t": ABOVE, "b": BELOW},
        hoverlabel=HOVER_BOX,
        legend={"title": escaped(chart.group.replace("_", " "))},
    )
    figure.update_annotations(font_size=13)
    places = {
        facet: {"row": i // columns + 1, "col": i % columns + 1} for i, facet in enumerate(facets)
    }
    return figure, places


def broken(text: object, columns: int) -> str:
    """A title in lines that fit into one of so many columns."""
    return "<br>".join(map(escaped, textwrap.wrap(str(text), PAGE_LETTERS // columns)))


def label_axes(
    figure: go.Figure, chart: Chart, *, log_x: bool = False, log_y: bool = False
) -> None:
    """The chart's names of the axes, and which of them are logarithmic."""
    title = broken(chart.x_label, min(chart.columns, len(chart.facets)))
    figure.update_xaxes(title={"text": title, "standoff": 8, "font": {"size": 12}})
    for axis in figure.select_yaxes(col=1):
        axis.title = {"text": broken(chart.y_label, 2), "font": {"size": 12}}
    if log_x:
        figure.update_xaxes(type="log")
    if log_y:
        figure.update_yaxes(type="log")


class Legend:
    """Makes traces belong to their group's entry in the legend, of which there is one."""

    def __init__(self, chart: Chart) -> None:
        self._grouped, self._named = bool(chart.group), set[str]()

    def entry(self, trace: Any, group: Any) -> Any:
        """The trace that stands for its group in the legend, if it is the first to do so."""
        name = escaped(group)
        shown = self._grouped and name not in self._named
        self._named.add(name)
        return trace.update(name=name, legendgroup=name, showlegend=shown)

    def member(self, trace: Any, group: Any) -> Any:
        """A trace that comes and goes with its group."""
        return trace.update(legendgroup=escaped(group), showlegend=False)


def behind(chart: Chart, rows: pd.DataFrame, links: Links) -> dict[str, Any]:
    """What the mouse shows of each row, and where a click leads."""
    runs = rows["run_id"] if "run_id" in rows.columns else [""] * len(rows)
    return {
        "hovertext": hover_texts(rows, chart.hover or tuple(chart.table.columns[:8])),
        "hoverinfo": "text",
        "customdata": [links.of(run_id) for run_id in runs],
    }


def choose(figure: go.Figure, traces: Mapping[str, range], above: int = 8) -> None:
    """A list, so many pixels above the axes, from which one set of traces is chosen."""
    total = len(figure.data)
    for i, trace in enumerate(figure.data):
        trace.visible = i in next(iter(traces.values()))
    buttons = [
        {
            "label": escaped(name),
            "method": "restyle",
            "args": [{"visible": [i in shown for i in range(total)]}],
        }
        for name, shown in traces.items()
    ]
    place = {"x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "pad": {"b": above}}
    figure.update_layout(updatemenus=[{"buttons": buttons, "direction": "down", **place}])
