"""Results -> one self-contained HTML file: no network is needed to open it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from analysis.figures.curves import Curves
from analysis.figures.histogram import Histogram
from analysis.figures.intervals import Intervals
from analysis.figures.scatter import Scatter
from analysis.html.curves import plot_curves
from analysis.html.heatmaps import Sheet, in_places, plot_sheet
from analysis.html.histogram import plot_histogram
from analysis.html.hover import Links
from analysis.html.intervals import plot_intervals
from analysis.html.scatter import plot_scatter
from analysis.html.solid import CHOICE, WORDS, plot_solid
from analysis.result import Part, Result

MANY_RUNS = 400  # rows of a table that a page shows
MANY_REASONS = 3
PLOTS: dict[type, Callable[[Any, Links], go.Figure]] = {
    Curves: plot_curves,
    Histogram: plot_histogram,
    Intervals: plot_intervals,
    Scatter: plot_scatter,
    Sheet: plot_sheet,
}


@dataclass(frozen=True)
class Figure:
    """A plotly figure with the words around it. data: its JSON, safe within a script element."""

    title: str
    lines: Sequence[str]
    notes: Sequence[str]
    data: str
    height: int


@dataclass(frozen=True)
class Section:
    """One analysis. fault: why there is none."""

    name: str
    title: str
    about: str
    figures: Sequence[Figure] = ()
    said: Sequence[str] = ()
    caveats: Sequence[str] = ()
    n_missing: int = 0
    n_runs: int = 0
    fault: str = ""


def section_of(result: Result, title: str, about: str, links: Links) -> Section:
    """Everything that an analysis came to."""
    return Section(
        name=result.name,
        title=title,
        about=about,
        figures=list(_figures(result.parts, links)),
        said=list(dict.fromkeys(line for part in result.parts for line in part.said)),
        caveats=result.caveats,
        n_missing=len(result.missing),
        n_runs=len(result.runs_used),
    )


def _figures(parts: Sequence[Part], links: Links) -> Iterable[Figure]:
    """The figures of all parts, as they stand on the page."""
    for part in in_places(parts):
        if isinstance(part, Scatter) and part.z:
            words = (WORDS, CHOICE) if len(part.facets) > 1 else (WORDS,)
            yield _figure(part, (*part.lines, *words), plot_solid(part, links))
        else:
            yield _figure(part, part.lines, PLOTS[type(part)](part, links))


def _figure(part: Part | Sheet, lines: Sequence[str], figure: go.Figure) -> Figure:
    data, height = in_script(figure.to_json()), int(figure.layout.height)
    return Figure(part.title, lines, part.notes, data, height)


def in_script(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def missing_by_command(results: Sequence[Result]) -> list[dict[str, Any]]:
    """command, how many values it fills, of which analyses, and why; what fills most first."""
    missing = _missing(results)
    return _counted(missing[missing["command"] != ""], "command")


def missing_for_good(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The same for each reason of the values that no command can fill."""
    missing = _missing(results)
    return _counted(missing[missing["command"] == ""], "reason")


def _missing(results: Sequence[Result]) -> pd.DataFrame:
    tables = [result.missing.assign(analysis=result.name) for result in results]
    columns = ["command", "reason", "analysis"]
    found = pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)
    return found.fillna("")


def _counted(missing: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    """The rows of each command or reason as one."""
    rows = [
        {
            key: name,
            "n": len(own),
            "analyses": ", ".join(dict.fromkeys(own["analysis"])),
            "reason": _joined(list(dict.fromkeys(own["reason"]))),
        }
        for name, own in missing.groupby(key, sort=False)
    ]
    return sorted(rows, key=lambda row: -row["n"])


def _joined(reasons: Sequence[str]) -> str:
    """Up to three reasons, and how many more there are."""
    more = len(reasons) - MANY_REASONS
    return "; ".join(reasons[:MANY_REASONS]) + (f"; and {more} more" if more > 0 else "")


def runs_table(results: Sequence[Result], links: Links) -> list[dict[str, Any]]:
    """The runs behind all numbers, each once, with its address."""
    tables = [result.runs_used.reset_index() for result in results]
    if not tables:
        return []
    used = pd.concat(tables).drop_duplicates("run_id").sort_values(["seed", "model", "run_name"])
    keys = ["run_id", "run_name", "model", "seed", "why", "ended"]
    return [facts | {"link": links.of(facts["run_id"])} for facts in used[keys].to_dict("records")]


def render(
    facts: Mapping[str, Any],
    sections: Sequence[Section],
    missing: Sequence[Mapping[str, Any]],
    lost: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    facts: heading and where the numbers come from, by name; missing, lost: what a command can fill,
    and what none can.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("analysis.html") / "report.html.j2").read_text()
    )
    return template.render(
        facts=facts,
        sections=sections,
        missing=missing,
        lost=lost,
        runs=runs[:MANY_RUNS],
        n_runs=len(runs),
        plotly=get_plotlyjs(),
    )
