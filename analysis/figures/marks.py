"""What the marks of a figure stand for: their hover texts, and the runs that they link to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MARK = "mark:"
MOST_MARKS = 500  # marks of one chart with a hover text; more would make its file too large


class MarkedFigure(Figure):
    """A figure that knows what its marks stand for. width, height: inches."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height))
        FigureCanvasAgg(self)
        self.marks: list[tuple[str, str]] = []

    def mark(self, text: str, run_id: object = "") -> str:
        """Register a hover text and the run behind it, and return the URL for the artist."""
        self.marks.append((text, run_id if isinstance(run_id, str) else ""))
        return f"{MARK}{len(self.marks) - 1}"

    def mark_rows(self, rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
        """Register a mark for each row, with the facts in `columns`, and return the URLs."""
        known = [column for column in columns if column in rows.columns]
        runs = rows["run_id"] if "run_id" in rows.columns else [""] * len(rows)
        facts = rows[known].to_dict("records")
        return [self.mark(hover_text(own), run) for own, run in zip(facts, runs, strict=True)]


def figure_of(axes: Axes) -> MarkedFigure:
    """Return the figure of some axes."""
    assert isinstance(axes.figure, MarkedFigure)
    return axes.figure


def for_collection(urls: Sequence[str]) -> list[str] | None:
    """Return URLs in the form that `set_urls` of a collection needs."""
    if len(urls) == 1:
        return [*urls, *urls]  # matplotlib ignores a single one
    return list(urls) or None


def hover_text(facts: Mapping[str, Any]) -> str:
    """Return one line for each fact that is known, such as `seed: 1`; without the run's id."""
    known = {name: value for name, value in facts.items() if name != "run_id" and _known(value)}
    return "\n".join(f"{name.replace('_', ' ')}: {plain(value)}" for name, value in known.items())


def plain(value: object) -> str:
    """Return a value as text, numbers with four significant digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _known(value: object) -> bool:
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return not missing


def facts_by_cell(details: pd.DataFrame | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return (row, column) -> the facts of each seed. details: rows of `improvement_cells`."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    if details is not None:
        for facts in details.to_dict("records"):
            found.setdefault((facts["ft"], facts["task"]), []).append(facts)
    return found


def seed_text(facts: Mapping[str, Any]) -> str:
    """Return the raw and the normalised value of one seed in a line."""
    if facts["reason"]:
        return f"seed {facts['seed']}: missing, {facts['reason']}"
    text = f"seed {facts['seed']}: raw {facts['value']:.4g}, normalised {facts['normalised']:.3f}"
    uncut = facts["normalised_unclipped"]
    return text if uncut == facts["normalised"] else f"{text} (uncut {uncut:.3f})"


def common_run(facts: Sequence[Mapping[str, Any]]) -> str:
    """Return the run behind all facts; empty if there are several or none."""
    runs = {own["run_id"] for own in facts if own["run_id"]}
    return runs.pop() if len(runs) == 1 else ""
