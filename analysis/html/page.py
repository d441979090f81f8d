"""Results -> one self-contained HTML file: no network is needed to open it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from analysis.drawing.panels import Panel, Strip
from analysis.html.heatmaps import plot_panels, stem
from analysis.html.hover import Links
from analysis.html.plots import plot
from analysis.result import Part, Result

MANY_RUNS = 400  # rows of a table that a page shows


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


def _figures(parts: Iterable[Part], links: Links) -> Iterable[Figure]:
    """The figures of all parts; panels that differ in their seed alone share one."""
    single = [own for part in parts for own in _single(part)]
    panels: dict[str, list[Panel]] = {}
    for part in single:
        if isinstance(part, Panel):
            panels.setdefault(stem(part), []).append(part)
    for part in single:
        if not isinstance(part, Panel):
            yield _figure(part, plot(part, links))
        elif own := panels.pop(stem(part), []):
            yield _figure(own[-1], plot_panels(own, links))


def _single(part: Part) -> Sequence[Part]:
    return part.panels if isinstance(part, Strip) else (part,)


def _figure(part: Part, figure: go.Figure) -> Figure:
    data, height = in_script(figure.to_json()), int(figure.layout.height)
    return Figure(part.title, part.lines, part.notes, data, height)


def in_script(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def missing_by_command(results: Sequence[Result]) -> list[dict[str, Any]]:
    """command, how many values it fills, and of which analyses; what fills most first."""
    tables = [result.missing.assign(analysis=result.name) for result in results]
    if not tables:
        return []
    missing = pd.concat(tables)
    rows = [
        {
            "command": command,
            "n": len(own),
            "analyses": ", ".join(dict.fromkeys(own["analysis"])),
            "reason": own["reason"].iloc[0],
        }
        for command, own in missing.groupby("command", sort=False)
    ]
    return sorted(rows, key=lambda row: -row["n"])


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
    runs: Sequence[Mapping[str, Any]],
) -> str:
    """The page. facts: heading and where the numbers come from, by name."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("analysis.html") / "report.html.j2").read_text()
    )
    return template.render(
        facts=facts,
        sections=sections,
        missing=missing,
        runs=runs[:MANY_RUNS],
        n_runs=len(runs),
        plotly=get_plotlyjs(),
    )
