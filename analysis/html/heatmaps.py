"""Heatmaps as plotly figures: the matrices of all seeds in one place, chosen from a list."""

from __future__ import annotations

import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.drawing.heatmap import MANY_COLUMNS, Kind
from analysis.drawing.panels import Panel
from analysis.html.hover import Links, escaped, hover_text
from analysis.html.plots import FONT, choose
from analysis.reading.cells import DETAILS

STOPS = 21
ROW_HEIGHT, SMALL_ROW_HEIGHT, AROUND = 28, 15, 190
OF_SEED = re.compile(r"_(?:seed\d+|aggregate)$")


def stem(panel: Panel) -> str:
    """What the panels of all seeds, and of their mean, have in common."""
    return OF_SEED.sub("", panel.name)


def plot_panels(panels: Sequence[Panel], links: Links) -> go.Figure:
    """One figure of panels of one stem: the mean over seeds first, the seeds to be chosen."""
    ordered = sorted(panels, key=lambda panel: not panel.name.endswith("_aggregate"))
    figure, ranges = go.Figure(), {}
    for panel in ordered:
        before = len(figure.data)
        figure.add_traces(_traces(panel, links))
        ranges[_which(panel)] = range(before, len(figure.data))
    if len(ranges) > 1:
        choose(figure, ranges, above=62)
    rows, columns = ordered[0].values.shape
    dense = columns > MANY_COLUMNS
    high = SMALL_ROW_HEIGHT if dense else ROW_HEIGHT
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        height=AROUND + high * rows,
        width=max(760, 420 + (high if dense else 80) * columns),
        margin={"l": 20, "r": 20, "t": 110, "b": 20},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"size": 12}},
    )
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_xaxes(side="top", showgrid=False, title=ordered[0].kind.frame.columns)
    return figure


def _which(panel: Panel) -> str:
    """What sets a panel apart from the others of its stem."""
    seed = panel.name.rpartition("_seed")[2]
    return f"seed {seed}" if seed.isdecimal() else "mean over seeds"


def _traces(panel: Panel, links: Links) -> list[go.Heatmap]:
    """The cells that are there, and behind them in grey those that are missing."""
    values, kind = panel.values, panel.kind
    x = [escaped(column) for column in values.columns]
    y = [escaped(kind.frame.row_label(row)) for row in values.index]
    numbers = values.to_numpy(dtype=float)
    missing = np.isnan(numbers)
    texts, addresses = _behind(panel, links)
    shown = _written(panel, numbers)
    gaps = go.Heatmap(
        x=x, y=y, z=np.where(missing, 0.0, np.nan), colorscale=[[0, "#d1d5db"], [1, "#d1d5db"]],
        showscale=False, xgap=1, ygap=1, hoverinfo="text",
        hovertext=np.where(missing, texts, ""),
        text=np.where(missing, "missing", ""),
        texttemplate="%{text}" if values.shape[1] <= MANY_COLUMNS else None,
    )  # fmt: skip
    low, high = kind.limits
    cells = go.Heatmap(
        x=x, y=y, z=numbers, zmin=low, zmax=high, colorscale=_colours(kind), xgap=1, ygap=1,
        colorbar={
            "title": {"text": escaped(kind.label), "side": "right", "font": {"size": 11}},
            "thickness": 14,
        },
        text=shown, texttemplate="%{text}", textfont={"size": 12},
        hovertext=texts, hoverinfo="text", customdata=addresses, hoverongaps=False,
    )  # fmt: skip
    return [gaps, cells]


def _colours(kind: Kind) -> list[tuple[float, str]]:
    colours = matplotlib.colormaps[kind.colours]
    stops = np.linspace(0, 1, STOPS)
    return [(float(stop), matplotlib.colors.to_hex(colours(stop))) for stop in stops]


def _written(panel: Panel, numbers: np.ndarray) -> np.ndarray:
    """The number in each cell, after a T where the model was trained on the task."""
    texts = np.empty(numbers.shape, dtype=object)
    frame = panel.kind.frame
    marked = frame.masks(panel.values)[frame.marked] if frame.marked else np.zeros(numbers.shape)
    dense = numbers.shape[1] > MANY_COLUMNS
    for place, number in np.ndenumerate(numbers):
        written = "" if dense or np.isnan(number) else panel.kind.write(number)
        texts[place] = f"<b>T</b>&nbsp;{written}" if marked[place] and written else written
    return texts


def _behind(panel: Panel, links: Links) -> tuple[np.ndarray, np.ndarray]:
    """What the mouse shows of each cell, and where a click leads: to the run, if it is one."""
    shape = panel.values.shape
    texts, addresses = np.empty(shape, dtype=object), np.empty(shape, dtype=object)
    found = _by_cell(panel.details)
    for (i, row), (j, column) in (
        (a, b) for a in enumerate(panel.values.index) for b in enumerate(panel.values.columns)
    ):
        number = panel.values.iat[i, j]
        facts = {"row": row, "column": column, "value": number}
        details = found.get((row, column), [])
        texts[i, j] = hover_text(facts | details[0]) if len(details) == 1 else hover_text(facts)
        if len(details) > 1:
            texts[i, j] += "".join(f"<br>{_in_a_line(own)}" for own in details)
        runs = {own["run_id"] for own in details if own["run_id"]}
        addresses[i, j] = links.of(runs.pop()) if len(runs) == 1 else ""
    return texts, addresses


def _by_cell(details: pd.DataFrame | None) -> dict[tuple[str, str], list[dict]]:
    """(row, column) -> what is known of it, for each seed."""
    found: dict[tuple[str, str], list[dict]] = {}
    if details is not None:
        for facts in details[["ft", "task", *DETAILS]].to_dict("records"):
            found.setdefault((facts.pop("ft"), facts.pop("task")), []).append(facts)
    return found


def _in_a_line(facts: dict) -> str:
    """One seed's values of a cell that is a mean."""
    if facts["reason"]:
        return f"seed {facts['seed']}: missing, {escaped(facts['reason'])}"
    return f"seed {facts['seed']}: raw {facts['value']:.4g}, normalised {facts['normalised']:.3f}"
