"""All analyses that the store supports, on one HTML page that needs no network and no other file.

Each analysis is made from the store; one that the store cannot support says why.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment

from analysis.cka import cka
from analysis.cka_generalization import cka_generalization
from analysis.command import AUTO, NAMES, analysis_command
from analysis.dynamics import dynamics
from analysis.exp1_heatmaps import FAMILIES as exp1_families
from analysis.exp1_heatmaps import exp1_heatmaps
from analysis.exp3_heatmaps import exp3_heatmaps
from analysis.figures.heatmap import Panel, Strip, draw_seeds
from analysis.figures.svg import svg_of
from analysis.forgetting import forgetting
from analysis.ft_heatmaps import ft_heatmaps
from analysis.options import ALL, Options
from analysis.predictors import predictors
from analysis.probes import probes
from analysis.reciprocity import reciprocity
from analysis.result import Part, Result
from analysis.seeds import seeds
from analysis.store.missing import missing_table
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.text import plain

NAME = "report"
SERVER = "http://127.0.0.1:5000"
MANY_RUNS = 400  # rows of the table of runs
MANY_REASONS = 3


class Chapter(NamedTuple):
    """One analysis of the report.

    repeats: whether the first chapter, at the report's width, has all that the result has.
    """

    analyse: Callable[[Source, Options], Result]
    title: str
    about: str
    repeats: Callable[[Result, str], bool] = lambda result, width: False


def _has_one_width(result: Result, width: str) -> bool:
    return set(result.tables["values"]["width"]) == {width}


def _has_families_of_exp1(result: Result, width: str) -> bool:
    found = result.tables["values"].dropna(subset="value")["ft"]
    return set(found.str.partition("-")[0]) <= set(exp1_families)


_CHAPTERS = (
    Chapter(exp1_heatmaps, "Transfer", "Models fine-tuned on one task and on two, on all seven."),
    Chapter(
        reciprocity, "Transfer by task", "Which tasks improve the others, and which are improved."
    ),
    Chapter(predictors, "Predicting several tasks", "How well models of one predict those of two."),
    Chapter(
        exp3_heatmaps, "Width", "The matrices of each width, and side by side.", _has_one_width
    ),
    Chapter(
        ft_heatmaps,
        "Every fine-tuning",
        "With warm-up rows (ftwb) and without (ft).",
        _has_families_of_exp1,
    ),
    Chapter(forgetting, "Forgetting", "What fine-tuning costs on the cities that the base knew."),
    Chapter(probes, "Linear probe", "City positions predicted from the hidden states."),
    Chapter(cka, "Similarity", "CKA between representations of models with 1 to 3 tasks."),
    Chapter(cka_generalization, "Similarity and transfer", "Do similar tasks transfer more?"),
    Chapter(dynamics, "Learning", "Training and validation over steps."),
    Chapter(seeds, "Seeds", "Spread over seeds, and how many of them a difference needs."),
)
CHAPTERS = {chapter.analyse.__name__: chapter for chapter in _CHAPTERS}


@dataclass
class Drawings:
    """The figures of a page as SVG.

    runs: URL prefix to which a run id is appended; about: footer.
    """

    runs: str
    about: str
    n: int = 0

    def of(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        """Yield each figure, and those of its single seeds for a collapsed section below it."""
        by_seed = seed_panels(parts)
        for part in shown_parts(parts):
            svg = self._svg(part.draw(self.about))
            found = [by_seed.get(panel.stem, []) for panel in part.panels]
            below = [self._seeds(panels) for panels in found if len(panels) > 1]
            yield {"title": part.title, "svg": svg, "seeds": below}

    def _seeds(self, panels: Sequence[Panel]) -> str:
        title = panels[0].title.removesuffix(f", seed {panels[0].seed}")
        return self._svg(draw_seeds(panels, f"{title}, each seed", self.about))

    def _svg(self, figure: Any) -> str:
        self.n += 1
        svg = svg_of(figure, f"f{self.n}", self.runs)
        gc.collect(0)  # figures are large and hold references to themselves
        return svg


def report(source: Source, options: Options, server: str = SERVER) -> Result:
    """Return the result with the page. server: address of the MLflow server for links to runs.

    Raises StateError if the store supports no analysis, InputError if server is not a URL.
    """
    if not server.startswith(("http://", "https://")):
        raise InputError(f"server={server!r} is not an address such as {SERVER}")
    store = source.store
    server = store.address if store.address.startswith("http") else server
    runs = f"{server.rstrip('/')}/#/experiments/{store.experiment_id}/runs/"
    drawings = Drawings(runs, f"{options.in_words}, experiment {store.experiment_name}")
    sections = {name: _section(name, source, options, drawings) for name in CHAPTERS}
    whole = _joined(options, sections)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    template = environment.from_string(
        (files("analysis") / "report.html.j2").read_text(encoding="utf-8")
    )
    typed = {command: " && ".join(chain) for command, chain in whole.commands.items()}
    absent = whole.missing.assign(command=whole.missing["command"].map(typed))
    used = whole.runs_used.reset_index().sort_values(["seed", "model", "run_name"])
    page = template.render(
        whole=whole, options=options, store=store, server=server, address=runs, chapters=CHAPTERS,
        sections=sections, missing=count_missing(absent, "command"),
        lost=count_missing(absent, "reason"), runs=used[:MANY_RUNS].to_dict("records"),
    )  # fmt: skip
    return replace(whole, pages={"report.html": page})


def _shown(value: Any) -> Any:
    """Return what the page shows of a value: texts of a store without acting characters."""
    return plain(value) if type(value) is str else value


def _section(name: str, source: Source, options: Options, drawings: Drawings) -> dict[str, Any]:
    """The result of an analysis and its drawings, or the fault that prevents it."""
    width = options.width
    if name == "exp3_heatmaps":
        options = replace(options, width=ALL)
    try:
        result = CHAPTERS[name].analyse(source, options)
    except (StateError, InputError) as fault:  # other analyses may still be possible
        return {"fault": fault}
    if CHAPTERS[name].repeats(result, width):
        return {"fault": NothingThere(f"the chapter {_CHAPTERS[0].title!r} has all of it")}
    return {"result": result, "drawings": [*drawings.of(result.parts)]}


def _joined(options: Options, sections: Mapping[str, dict[str, Any]]) -> Result:
    """Combine the results into one. Raises the first error if every analysis failed."""
    faults = {name: section["fault"] for name, section in sections.items() if "fault" in section}
    results = [section["result"] for section in sections.values() if "result" in section]
    if not results:
        raise next(iter(faults.values()))
    absent = [f"{name}: {fault}" for name, fault in faults.items()]
    used = pd.concat([result.runs_used for result in results])
    tables = [result.missing.assign(analysis=result.name) for result in results]
    return Result(
        name=NAME, options=options,
        seeds=sorted({seed for result in results for seed in result.seeds}), parts=(),
        missing=pd.concat([missing_table(), *tables]), runs_used=used[~used.index.duplicated()],
        caveats=[*absent, *dict.fromkeys(c for result in results for c in result.caveats)],
        statistics={result.name: result.all_statistics for result in results},
    )  # fmt: skip


def seed_panels(parts: Sequence[Part]) -> dict[str, list[Panel]]:
    """Return the matrices of single seeds by the name that they share."""
    found: dict[str, list[Panel]] = {}
    for panel in (panel for part in parts for panel in part.panels):
        if panel.seed is not None:
            found.setdefault(panel.stem, []).append(panel)
    return found


def shown_parts(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with a figure of their own: no single seeds, no matrix twice.

    A matrix that stands beside others in a strip is not shown alone.
    """
    shown = [part for part in parts if all(panel.seed is None for panel in part.panels)]
    beside = {p.stem for part in shown if isinstance(part, Strip) for p in part.panels}
    return [part for part in shown if not isinstance(part, Panel) or part.stem not in beside]


def count_missing(missing: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    """Return the missing values grouped by `key`, most frequent first.

    `command`: values that a command computes; `reason`: values that no command computes.
    """
    missing = missing[["command", "reason", "analysis"]].fillna("")
    own = missing[(missing["command"] != "") == (key == "command")]
    counts = own.groupby(own[key].rename("key"), sort=False).agg(
        n=("analysis", "size"),
        analyses=("analysis", lambda names: ", ".join(names.unique())),
        reason=("reason", _first_reasons),
        command=("command", "first"),
    )
    return counts.sort_values("n", ascending=False, kind="stable").to_dict("records")


def _first_reasons(reasons: pd.Series) -> str:
    found = [*reasons.unique()]
    more = [f"and {len(found) - MANY_REASONS} more"] if len(found) > MANY_REASONS else []
    return "; ".join(found[:MANY_REASONS] + more)


main = analysis_command(
    NAME,
    report,
    dict.fromkeys(NAMES, AUTO),
    server="MLflow server for links to runs, if the store is not a server itself.",
)

if __name__ == "__main__":
    main()
