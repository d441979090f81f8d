"""Results -> one HTML page that needs no network and no other file.

The page holds the same figures that the analyses save, as inline SVG.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment

from analysis.figures.heatmap import Panel, Strip, draw_seeds
from analysis.figures.svg import css, svg_of
from analysis.result import Part, Result

MANY_RUNS = 400  # rows of the table of runs
MANY_REASONS = 3
SEED = "seed "  # how `which` of a single seed begins


@dataclass(frozen=True)
class Links:
    """Addresses of runs: of an MLflow server, and of the experiment with this id."""

    server: str
    experiment_id: str

    def of(self, run_id: str) -> str:
        """Return the address of a run."""
        return f"{self.server.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"


@dataclass(frozen=True)
class Drawing:
    """A figure as SVG, and one for each matrix whose single seeds are folded below it."""

    title: str
    svg: str
    seeds: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """One analysis. fault: why it could not be made."""

    name: str
    title: str
    about: str
    drawings: Sequence[Drawing] = ()
    said: Sequence[str] = ()
    caveats: Sequence[str] = ()
    n_missing: int = 0
    n_runs: int = 0
    fault: str = ""


@dataclass
class Page:
    """Collects the sections of a page, whose figures share their CSS classes."""

    links: Links
    about: str
    sections: list[Section] = field(default_factory=list)
    _styles: dict[str, str] = field(default_factory=dict)
    _n_figures: int = 0

    def add(self, result: Result, title: str, about: str) -> None:
        """Add the section of an analysis."""
        section = Section(
            name=result.name,
            title=title,
            about=about,
            drawings=list(self._drawings(result.parts)),
            said=list(dict.fromkeys(line for part in result.parts for line in part.said)),
            caveats=result.caveats,
            n_missing=len(result.missing),
            n_runs=len(result.runs_used),
        )
        self.sections.append(section)

    def add_fault(self, name: str, title: str, about: str, fault: str) -> None:
        """Add the section of an analysis that could not be made."""
        self.sections.append(Section(name, title, about, fault=fault))

    def render(self, facts: Mapping[str, Any], results: Sequence[Result]) -> str:
        """Return the page as HTML. facts: the heading and the source of the numbers, by name."""
        template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            (files("analysis") / "report.html.j2").read_text()
        )
        runs = runs_table(results, self.links)
        return template.render(
            facts=facts,
            css=css(self._styles),
            sections=self.sections,
            missing=missing_by_command(results),
            lost=missing_for_good(results),
            runs=runs[:MANY_RUNS],
            n_runs=len(runs),
        )

    def _drawings(self, parts: Sequence[Part]) -> Iterator[Drawing]:
        seeds = seed_panels(parts)
        for part in shown_parts(parts):
            stems = [panel.stem for panel in panels_in(part)]
            svg = self._svg(part.draw(self.about))
            below = [self._seeds(own) for stem in stems if len(own := seeds.get(stem, [])) > 1]
            yield Drawing(part.title, svg, below)

    def _seeds(self, panels: Sequence[Panel]) -> str:
        title = panels[0].title.removesuffix(f", {panels[0].which}")
        return self._svg(draw_seeds(panels, f"{title}, each seed", self.about))

    def _svg(self, figure: Any) -> str:
        self._n_figures += 1
        svg = svg_of(figure, f"f{self._n_figures}", self.links.of, self._styles)
        gc.collect(0)  # figures are large and hold references to themselves
        return svg


def panels_in(part: Part) -> Sequence[Panel]:
    """Return the matrices of a part; none for a chart."""
    if isinstance(part, Strip):
        return part.panels
    return [part] if isinstance(part, Panel) else []


def seed_panels(parts: Sequence[Part]) -> dict[str, list[Panel]]:
    """Return the matrices of single seeds by the name that they share."""
    found: dict[str, list[Panel]] = {}
    for part in parts:
        for panel in panels_in(part):
            if panel.which.startswith(SEED):
                found.setdefault(panel.stem, []).append(panel)
    return found


def shown_parts(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with a figure of their own: no single seeds, no matrix twice.

    A matrix that stands beside others in a strip is not shown alone.
    """
    shown = [part for part in parts if not any(p.which.startswith(SEED) for p in panels_in(part))]
    beside = {p.stem for part in shown if isinstance(part, Strip) for p in part.panels}
    return [part for part in shown if not isinstance(part, Panel) or part.stem not in beside]


def missing_by_command(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return each command with the number of values that it fills, largest first."""
    missing = _missing(results)
    return _counted(missing[missing["command"] != ""], "command")


def missing_for_good(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the same for each reason of values that no command can fill."""
    missing = _missing(results)
    return _counted(missing[missing["command"] == ""], "reason")


def _missing(results: Sequence[Result]) -> pd.DataFrame:
    tables = [result.missing.assign(analysis=result.name) for result in results]
    columns = ["command", "reason", "analysis"]
    found = pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)
    return found.fillna("")


def _counted(missing: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    """One row for each command or reason."""
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
    more = len(reasons) - MANY_REASONS
    return "; ".join(reasons[:MANY_REASONS]) + (f"; and {more} more" if more > 0 else "")


def runs_table(results: Sequence[Result], links: Links) -> list[dict[str, Any]]:
    """Return the runs behind all numbers, each once, with its address."""
    tables = [result.runs_used.reset_index() for result in results]
    if not tables:
        return []
    used = pd.concat(tables).drop_duplicates("run_id").sort_values(["seed", "model", "run_name"])
    keys = ["run_id", "run_name", "model", "seed", "why", "ended"]
    return [facts | {"link": links.of(facts["run_id"])} for facts in used[keys].to_dict("records")]
