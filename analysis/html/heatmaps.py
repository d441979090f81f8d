"""Heatmaps as plotly figures: side by side as on paper, each seed to be chosen from a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.heatmap import MANY_COLUMNS
from analysis.figures.kinds import Kind
from analysis.figures.panels import MEAN, Panel, Strip
from analysis.html.axes import FONT, HOVER_BOX, choose
from analysis.html.hover import Links, escaped, hover_text
from analysis.result import Part

STOPS = 21
ROW_HEIGHT, SMALL_ROW_HEIGHT, LEAST_HEIGHT, LIST_HEIGHT = 28, 15, 20, 45
CELL_WIDTH, NARROW_CELL_WIDTH, BAR_WIDTH, LETTER, BETWEEN = 80, 43, 180, 6.5, 14
DETAILS = ["seed", "value", "normalised", "normalised_unclipped", "reason", "run_id"]
CHOICE = "The list has each seed on its own."


@dataclass
class Sheet:
    """Heatmaps in one place of the page.

    stems: of the panels side by side; part: whose title and words stand there; choices: `seed 1` or
    `mean over seeds` -> stem -> panel.
    """

    stems: tuple[str, ...]
    part: Panel | Strip
    choices: dict[str, dict[str, Panel]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.part.title

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self.part.lines, CHOICE) if len(self.choices) > 1 else self.part.lines

    @property
    def notes(self) -> tuple[str, ...]:
        return self.part.notes

    def add(self, part: Panel | Strip) -> None:
        """Take in the panels of a part, and its words."""
        self.part = part
        for panel in _panels(part):
            self.choices.setdefault(panel.which, {})[_stem(panel)] = panel


def in_places(parts: Iterable[Part]) -> list[Part | Sheet]:
    """The parts as they stand on the page: every panel in one sheet, a strip's where there is one.

    A sheet stands where the first of its panels would.
    """
    parts, found = list(parts), list[Part | Sheet]()
    strips = [_stems(part) for part in parts if isinstance(part, Strip)]
    rows = {stem: stems for stems in strips for stem in stems}
    known: dict[tuple[str, ...], Sheet] = {}
    for part in parts:
        if not isinstance(part, (Panel, Strip)):
            found.append(part)
            continue
        stems = rows.get(_stems(part)[0], _stems(part))
        if stems not in known:
            known[stems] = Sheet(stems, part)
            found.append(known[stems])
        known[stems].add(part)
    return found


def _stems(part: Panel | Strip) -> tuple[str, ...]:
    return tuple(_stem(panel) for panel in _panels(part))


def _panels(part: Panel | Strip) -> Sequence[Panel]:
    return part.panels if isinstance(part, Strip) else (part,)


def _stem(panel: Panel) -> str:
    return panel.stem or panel.name


def plot_sheet(sheet: Sheet, links: Links) -> go.Figure:
    """One figure: the mean over seeds first, the seeds to be chosen."""
    count = len(sheet.stems)
    space = {"horizontal_spacing": 0.02} if count > 1 else {}
    figure = make_subplots(rows=1, cols=count, shared_yaxes=True, **space)
    ranges: dict[str, range] = {}
    for which in sorted(sheet.choices, key=lambda which: which != MEAN):
        before = len(figure.data)
        for column, stem in enumerate(sheet.stems, start=1):
            if panel := sheet.choices[which].get(stem):
                bar = _bar_below(figure, column) if count > 1 else {"title": {"side": "right"}}
                for trace in _traces(panel, links, bar):
                    figure.add_trace(trace, row=1, col=column)
        ranges[which] = range(before, len(figure.data))
    if len(ranges) > 1:
        choose(figure, ranges, above=62 if count == 1 else 120)
    _dress(figure, sheet)
    return figure


def _dress(figure: go.Figure, sheet: Sheet) -> None:
    """Sizes, and what is above the columns."""
    known = {stem: panel for own in sheet.choices.values() for stem, panel in own.items()}
    panels = [known[stem] for stem in sheet.stems]
    rows, columns = panels[0].values.shape
    dense, alone = columns > MANY_COLUMNS, len(panels) == 1
    high = SMALL_ROW_HEIGHT if dense else ROW_HEIGHT
    wide = SMALL_ROW_HEIGHT if dense else CELL_WIDTH if alone else NARROW_CELL_WIDTH
    above = (110 if alone else 170) - (0 if len(sheet.choices) > 1 else LIST_HEIGHT)
    below = 20 if alone else 70
    longest = max(len(panels[0].kind.frame.row_label(row)) for row in panels[0].values.index)
    labels = LETTER * longest + BETWEEN * len(panels)
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        height=above + LEAST_HEIGHT + high * rows + below,
        width=max(760, labels + (BAR_WIDTH if alone else 0) + wide * columns * len(panels)),
        margin={"l": 20, "r": 20, "t": above, "b": below},
        hoverlabel=HOVER_BOX,
    )
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_xaxes(side="top", automargin=True, showgrid=False)
    for i, panel in enumerate(panels, start=1):
        heading = "" if alone else f"<b>{escaped(panel.heading)}</b><br>"
        title = {"text": heading + escaped(panel.kind.frame.columns), "font": {"size": 12}}
        figure.update_xaxes(title=title, row=1, col=i)


def _bar_below(figure: go.Figure, column: int) -> dict[str, Any]:
    """A bar of colours below one of several columns."""
    axis = next(figure.select_xaxes(row=1, col=column))
    start, end = axis.domain
    return {
        "orientation": "h",
        "x": (start + end) / 2,
        "len": end - start,
        "y": 0,
        "yanchor": "top",
        "title": {"side": "bottom"},
    }


def _traces(panel: Panel, links: Links, bar: dict[str, Any]) -> list[go.Heatmap]:
    """The cells that are there, and behind them in grey those that are missing."""
    values, kind = panel.values, panel.kind
    x = [escaped(column) for column in values.columns]
    y = [escaped(kind.frame.row_label(row)) for row in values.index]
    numbers = values.to_numpy(dtype=float)
    missing = np.isnan(numbers)
    size = 10 if "orientation" in bar else 12
    texts, addresses = _behind(panel, links)
    shown = _written(panel, numbers)
    gaps = go.Heatmap(
        x=x, y=y, z=np.where(missing, 0.0, np.nan), colorscale=[[0, "#d1d5db"], [1, "#d1d5db"]],
        showscale=False, xgap=1, ygap=1, hoverinfo="text",
        hovertext=np.where(missing, texts, ""),
        text=np.where(missing, "missing", ""),
        texttemplate="%{text}" if values.shape[1] <= MANY_COLUMNS else None,
        textfont={"size": size - 1},
    )  # fmt: skip
    low, high = kind.limits
    label = {"text": escaped(kind.label), "font": {"size": 11}} | bar["title"]
    cells = go.Heatmap(
        x=x, y=y, z=numbers, zmin=low, zmax=high, colorscale=_colours(kind), xgap=1, ygap=1,
        colorbar={"thickness": 14} | bar | {"title": label},
        text=shown, texttemplate="%{text}", textfont={"size": size},
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
        texts[place] = f"<b>T</b>&#8201;{written}" if marked[place] and written else written
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
