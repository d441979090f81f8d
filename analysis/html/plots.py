"""Charts as plotly figures: the same data as on paper, with what is behind each point."""

from __future__ import annotations

import math
import textwrap
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.drawing.chart import Chart, Style
from analysis.drawing.curves import Curves
from analysis.drawing.histogram import BINS, Histogram
from analysis.drawing.intervals import Intervals
from analysis.drawing.scatter import Scatter
from analysis.html.hover import Links, escaped, hover_text, hover_texts

GREY = "#6b7280"
SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
    "P": "cross", "X": "x", "*": "star",
}  # fmt: skip
SOLID_SYMBOLS = {
    "circle",
    "square",
    "diamond",
    "cross",
    "x",
}  # those that exist in three dimensions
FACET_HEIGHT, LINE_HEIGHT, AROUND = 330, 26, 110
FEW_NAMES = 30  # a logarithmic axis that spans more names powers of ten alone
MOST_LABELS = 15  # with more they would cover each other; the mouse shows them
PAGE_LETTERS = 105  # of an axis title, over the whole width
FONT = {"family": "system-ui, sans-serif", "size": 13}


@singledispatch
def plot(part: Any, links: Links) -> go.Figure:
    """The figure of a part."""
    raise NotImplementedError(type(part).__name__)


@plot.register
def _(chart: Scatter, links: Links) -> go.Figure:
    if chart.z:
        return _solid(chart, links)
    figure, places = _facets(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        shown = rows.dropna(subset=[chart.x, chart.y])
        for group, own, style in chart.grouped(shown):
            for trace in _points(chart, own, style, links):
                figure.add_trace(legend.entry(trace, group), **places[facet])
        for trace in _lines(chart, shown):
            figure.add_trace(trace, **places[facet])
    _axes(figure, chart, log_x=chart.log_x, log_y=chart.log_y)
    if chart.x_limits and not chart.log_x:
        figure.update_xaxes(range=chart.x_limits)
    if chart.y_limits and not chart.log_y:
        figure.update_yaxes(range=chart.y_limits)
    return figure


def _points(chart: Scatter, rows: pd.DataFrame, style: Style, links: Links) -> list[go.Scatter]:
    """The points of one group, and the lines that lead from them."""
    if rows.empty:
        return []
    traces = []
    if chart.towards[0]:
        x, y = (
            np.column_stack([rows[a], rows[b], np.full(len(rows), np.nan)]).ravel()
            for a, b in zip((chart.x, chart.y), chart.towards, strict=True)
        )
        line = {"color": style.colour, "width": 1}
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", opacity=0.6))
    faint = rows[chart.faint].astype(bool) if chart.faint else pd.Series(False, rows.index)
    front = rows[chart.front].astype(bool) if chart.front else pd.Series(False, rows.index)
    marker = {
        "color": style.colour,
        "symbol": SYMBOLS[style.marker],
        "size": np.where(faint, 5, 9).tolist(),
        "opacity": np.where(faint, 0.45, 0.95).tolist(),
        "line": {"width": np.where(front, 2.5, 0.5).tolist(),
                 "color": np.where(front, "black", "white").tolist()},
    }  # fmt: skip
    bars = {
        f"error_{side}": {"type": "data", "array": rows[column], "thickness": 1, "width": 0}
        for side, column in zip("xy", chart.error, strict=True)
        if column
    }
    texts = {}
    if chart.label and len(chart.table) <= MOST_LABELS:
        texts = {"text": [escaped(text) for text in rows[chart.label]]}
    traces.append(
        go.Scatter(
            x=rows[chart.x],
            y=rows[chart.y],
            marker=marker,
            mode="markers+text" if chart.label else "markers",
            textposition="top center",
            textfont={"size": 10},
            **texts,
            **bars,
            **_behind(chart, rows, links),
        )  # fmt: skip
    )
    return traces


def _behind(chart: Chart, rows: pd.DataFrame, links: Links) -> dict[str, Any]:
    """What the mouse shows of each row, and where a click leads."""
    runs = rows["run_id"] if "run_id" in rows.columns else [""] * len(rows)
    return {
        "hovertext": hover_texts(rows, chart.hover or tuple(chart.table.columns[:8])),
        "hoverinfo": "text",
        "customdata": [links.of(run_id) for run_id in runs],
    }


def _behind_line(chart: Curves, line: pd.DataFrame, links: Links) -> dict[str, Any]:
    """The same of a whole curve: what all of its points have in common is written once."""
    known = [column for column in chart.hover if column in line.columns]
    common = [
        c for c in known if c not in (chart.x, chart.y) and line[c].nunique(dropna=False) == 1
    ]
    text = hover_text({column: line[column].iloc[0] for column in common})
    point = f"{escaped(chart.x)}: <b>%{{x:,}}</b><br>{escaped(chart.y)}: <b>%{{y:.4g}}</b>"
    run_id = line["run_id"].iloc[0] if "run_id" in line.columns else ""
    return {"hovertemplate": f"{text}<br>{point}<extra></extra>", "meta": links.of(run_id)}


def _lines(chart: Scatter, rows: pd.DataFrame) -> list[go.Scatter]:
    """The line that is fitted, and the one on which both quantities are equal."""
    x, y = rows[chart.x].to_numpy(dtype=float), rows[chart.y].to_numpy(dtype=float)
    if not len(x):
        return []
    ends = np.array([x.min(), x.max()])
    found = []
    if chart.fit:
        found.append((ends, chart.fit[0] * ends + chart.fit[1], "solid"))
    if chart.identity:
        both = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        found.append((both, both, "dash"))
    return [
        go.Scatter(
            x=a, y=b, mode="lines", line={"color": GREY, "width": 1.5, "dash": dash},
            hoverinfo="skip", showlegend=False,
        )
        for a, b, dash in found
    ]  # fmt: skip


def _solid(chart: Scatter, links: Links) -> go.Figure:
    """Three dimensions that can be turned, one model at a time chosen from a list."""
    figure = go.Figure()
    counts: list[tuple[Any, int, int]] = []
    for facet, rows in chart.facets.items():
        before = len(figure.data)
        for group, own, style in chart.grouped(rows.dropna(subset=[chart.x, chart.y, chart.z])):
            symbol = SYMBOLS[style.marker]
            marker = {
                "size": 4,
                "color": style.colour,
                "symbol": symbol if symbol in SOLID_SYMBOLS else "circle",
            }
            figure.add_trace(
                go.Scatter3d(
                    x=own[chart.x], y=own[chart.y], z=own[chart.z], mode="markers",
                    marker=marker, name=escaped(group), visible=not counts,
                    **_behind(chart, own, links),
                )
            )  # fmt: skip
        counts.append((facet, before, len(figure.data)))
    if len(counts) > 1:
        choose(figure, {str(facet): range(a, b) for facet, a, b in counts})
    titles = dict(zip("xyz", (chart.x, chart.y, chart.z), strict=True))
    figure.update_scenes({f"{axis}axis_title": text for axis, text in titles.items()})
    figure.update_layout(height=560, font=FONT, margin={"l": 10, "r": 10, "t": 60, "b": 10})
    return figure


def choose(figure: go.Figure, traces: dict[str, range], above: int = 8) -> None:
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


@plot.register
def _(chart: Curves, links: Links) -> go.Figure:
    figure, places = _facets(chart)
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
    _axes(figure, chart, log_x=chart.log_x)
    return figure


@plot.register
def _(chart: Intervals, links: Links) -> go.Figure:
    figure, places = _facets(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        for group, own, style in chart.grouped(rows):
            if chart.parts:
                rings = own[[chart.label, chart.parts]].explode(chart.parts).dropna()
                marker = {"symbol": "circle-open", "color": style.colour, "size": 6}
                figure.add_trace(
                    go.Scatter(x=rings[chart.parts], y=rings[chart.label].astype(str),
                               mode="markers", marker=marker, hoverinfo="skip", showlegend=False),
                    **places[facet],
                )  # fmt: skip
            bars = {}
            if chart.low:
                value = own[chart.value]
                ends = {"array": own[chart.high] - value, "arrayminus": value - own[chart.low]}
                bars = {"error_x": {"type": "data", "symmetric": False, "width": 3, **ends}}
            trace = go.Scatter(
                x=own[chart.value], y=own[chart.label].astype(str), mode="markers",
                marker={"color": style.colour, "symbol": SYMBOLS[style.marker], "size": 10},
                **bars, **_behind(chart, own, links),
            )  # fmt: skip
            figure.add_trace(legend.entry(trace, group), **places[facet])
        if chart.reference is not None:
            figure.add_vline(chart.reference, line={"color": GREY, "width": 1}, **places[facet])
    labels = list(dict.fromkeys(chart.table[chart.label].astype(str)))
    _axes(figure, chart, log_x=chart.log)
    if chart.x_limits and not chart.log:
        figure.update_xaxes(range=chart.x_limits)
    figure.update_yaxes(
        categoryorder="array", categoryarray=labels[::-1], automargin=True, tickson="labels"
    )
    rows = math.ceil(len(chart.facets) / chart.columns)
    figure.update_layout(height=rows * (AROUND + LINE_HEIGHT * max(4, len(labels))))
    return figure


@plot.register
def _(chart: Histogram, links: Links) -> go.Figure:
    figure, places = _facets(chart)
    legend = Legend(chart)
    for facet, rows in chart.facets.items():
        values = rows[chart.value].dropna().to_numpy(dtype=float)
        if not len(values):
            continue
        scaled = np.log10(values) if chart.log else values
        edges = np.histogram_bin_edges(scaled, bins=BINS)
        middles, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
        for group, own, style in chart.grouped(rows.dropna(subset=[chart.value])):
            found = own[chart.value].to_numpy(dtype=float)
            counts, _ = np.histogram(np.log10(found) if chart.log else found, bins=edges)
            texts = [f"{a:.4g} to {b:.4g}: <b>{n}</b>" for a, b, n in
                     zip(*_ends(edges, chart.log), counts, strict=True)]  # fmt: skip
            x = 10**middles if chart.log else middles
            widths = np.diff(10**edges) if chart.log else width
            bar = go.Bar(
                x=x, y=counts, width=widths, marker_color=style.colour, opacity=0.5,
                hovertext=texts, hoverinfo="text",
            )  # fmt: skip
            figure.add_trace(legend.entry(bar, group), **places[facet])
        if chart.reference is not None:
            figure.add_vline(chart.reference, line={"color": GREY, "dash": "dot"}, **places[facet])
    figure.update_layout(barmode="overlay")
    _axes(figure, chart, log_x=chart.log)
    return figure


def _ends(edges: np.ndarray, is_log: bool) -> tuple[np.ndarray, np.ndarray]:
    shown = 10**edges if is_log else edges
    return shown[:-1], shown[1:]


def _facets(chart: Chart) -> tuple[go.Figure, dict[Any, dict[str, int]]]:
    """An empty figure, and the row and column of each facet."""
    facets = list(chart.facets)
    columns = min(chart.columns, len(facets))
    rows = math.ceil(len(facets) / columns)
    titles = [_broken(facet, columns) for facet in facets] if chart.facet else None
    space = {"vertical_spacing": 0.28 / rows, "horizontal_spacing": 0.22 / columns}
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, **space)
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        height=AROUND + FACET_HEIGHT * rows,
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"size": 12}},
        legend={"title": escaped(chart.group.replace("_", " "))},
    )
    figure.update_annotations(font_size=13)
    places = {
        facet: {"row": i // columns + 1, "col": i % columns + 1} for i, facet in enumerate(facets)
    }
    return figure, places


def _broken(text: object, columns: int) -> str:
    """A title in lines that fit into one of so many columns."""
    return "<br>".join(map(escaped, textwrap.wrap(str(text), PAGE_LETTERS // columns)))


class Legend:
    """Makes traces belong to their group's entry in the legend, of which there is one."""

    def __init__(self, chart: Chart) -> None:
        self._grouped, self._named = bool(chart.group), set[str]()

    def entry(self, trace: Any, group: Any) -> Any:
        """The trace, under the name of its group."""
        name = escaped(group)
        shown = self._grouped and name not in self._named
        self._named.add(name)
        return trace.update(name=name, legendgroup=name, showlegend=shown)


def _axes(figure: go.Figure, chart: Chart, *, log_x: bool = False, log_y: bool = False) -> None:
    title = _broken(chart.x_label, min(chart.columns, len(chart.facets)))
    figure.update_xaxes(title={"text": title, "standoff": 8, "font": {"size": 12}})
    for axis in figure.select_yaxes(col=1):
        axis.title = {"text": _broken(chart.y_label, 2), "font": {"size": 12}}
    if log_x:
        figure.update_xaxes(type="log")
    if log_y:
        figure.update_yaxes(type="log")


def _log_axis(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic axis that names powers of ten, and 2 and 5 times these if it is short."""
    there = values[values > 0]
    long = len(there) > 0 and there.max() / there.min() > FEW_NAMES
    return {"type": "log", "dtick": 1 if long else "D2"}
