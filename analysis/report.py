"""All analyses that the store supports, on one HTML page.

Each analysis is made from the store; one that the store cannot support says why.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import click
import pandas as pd

from analysis.cka import cka
from analysis.cka_generalization import cka_generalization
from analysis.command import analysis_command
from analysis.dynamics import dynamics
from analysis.exp1_heatmaps import exp1_heatmaps
from analysis.exp3_heatmaps import exp3_heatmaps
from analysis.forgetting import forgetting
from analysis.ft_heatmaps import ft_heatmaps
from analysis.options import ALL, Options
from analysis.predictors import predictors
from analysis.probes import probes
from analysis.reciprocity import reciprocity
from analysis.report_page import Links, Page
from analysis.result import Result
from analysis.seeds import seeds
from analysis.store.missing import missing_table
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.tracking import DEFAULT_EXPERIMENT

NAME = "report"
SERVER = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class Chapter:
    """One analysis of the report."""

    analyse: Callable[[Source, Options], Result]
    title: str
    about: str


def all_widths(source: Source, options: Options) -> Result:
    """exp3 for every width, whichever width the report is about."""
    return exp3_heatmaps(source, replace(options, width=ALL))


CHAPTERS = {
    "exp1_heatmaps": Chapter(
        exp1_heatmaps,
        "What is carried over",
        "Models fine-tuned on one task (ftwb1) and on two (ftwb2), tested on questions of all "
        "seven tasks about the new cities.",
    ),
    "reciprocity": Chapter(
        reciprocity, "Givers and takers", "Which tasks help the others, and which are helped."
    ),
    "predictors": Chapter(
        predictors,
        "Predicting several tasks",
        "How well the models of one task predict those of two.",
    ),
    "exp3_heatmaps": Chapter(
        all_widths,
        "Width",
        "The same matrices for models of each width, and side by side where there are several.",
    ),
    "ft_heatmaps": Chapter(
        ft_heatmaps,
        "Every fine-tuning",
        "All families, with warm-up rows (ftwb) and without (ft), and what the rows change.",
    ),
    "forgetting": Chapter(
        forgetting, "Forgetting", "What fine-tuning costs on the cities that the base knew."
    ),
    "probes": Chapter(
        probes,
        "Maps inside",
        "What a linear probe reads off the hidden states, and what they look like.",
    ),
    "cka": Chapter(
        cka,
        "Likeness of representations",
        "CKA between models pretrained on one task each, and between those of two and of three.",
    ),
    "cka_generalization": Chapter(
        cka_generalization,
        "Likeness and transfer",
        "Whether tasks with like representations carry over to each other.",
    ),
    "dynamics": Chapter(dynamics, "Learning", "Training and validation over steps."),
    "seeds": Chapter(seeds, "Seeds", "Spread over seeds, and how many of them a difference needs."),
}


def report(source: Source, options: Options, server: str = SERVER) -> Result:
    """Make the page.

    Args:
        source: The store.
        options: Which models the analyses are about.
        server: Address of the MLflow server for links to runs.

    Raises:
        StateError: The store supports no analysis at all.
        InputError: The server is not an address.
    """
    own, server = source.store.address, _checked(server)
    links = Links(own if own.startswith("http") else server, source.store.experiment_id)
    page = Page(links, f"{options.in_words}, experiment {source.store.experiment_name}")
    results: list[Result] = []
    faults: dict[str, Exception] = {}
    for name, chapter in CHAPTERS.items():
        try:
            result = chapter.analyse(source, options)
        except (StateError, InputError) as fault:  # other analyses may still be possible
            faults[name] = fault
            page.add_fault(name, chapter.title, chapter.about, str(fault))
        else:
            results.append(result)
            page.add(result, chapter.title, chapter.about)
    if not results:
        raise next(iter(faults.values()))
    html = page.render(_facts(source, options, results, links), results)
    absent = [f"{name}: {fault}" for name, fault in faults.items()]
    return _result(options, results, absent, html)


def _checked(server: str) -> str:
    if not server.startswith(("http://", "https://")):
        raise InputError(f"server={server!r} is not an address such as {SERVER}")
    return server


def _facts(
    source: Source, options: Options, results: Sequence[Result], links: Links
) -> dict[str, str]:
    """The heading and the source of the numbers."""
    used = pd.concat([result.runs_used for result in results])
    seeds_used = _seeds(results)
    return {
        "title": f"worldrep: {options.in_words}",
        "experiment": source.store.experiment_name,
        "store": source.store.address,
        "names": options.in_words,
        "seeds": ", ".join(map(str, seeds_used)),
        "newest": str(used["ended"].max()),
        "server": links.server,
        "study": study_command(options, seeds_used, source.store.experiment_name),
    }


def study_command(options: Options, seeds: Sequence[int], experiment: str) -> str:
    """Return the study that trains and evaluates the models of the page; empty if none does."""
    if options.world not in ("standard", "scattered"):
        return ""
    parameters = {"seeds": ",".join(map(str, seeds)), "scale": options.scale}
    if options.width in ("wide", "narrow"):
        worlds = {"worlds": options.world} if options.world != "standard" else {}
        parameters = {"name": "exp3", "widths": options.width, **worlds, **parameters}
    elif options.width == "base":
        name = "exp1" if options.world == "standard" else "exp6"
        parameters = {"name": name, **parameters}
    else:
        return ""
    typed = " ".join(f"-P {name}={value}" for name, value in parameters.items())
    own = experiment != DEFAULT_EXPERIMENT
    where = f" --experiment-name {shlex.quote(experiment)}" if own else ""
    return f"mlflow run . -e study {typed}{where} --env-manager local"


def _seeds(results: Sequence[Result]) -> list[int]:
    return sorted({seed for result in results for seed in result.seeds})


def _result(
    options: Options, results: Sequence[Result], absent: Sequence[str], page: str
) -> Result:
    used = pd.concat([result.runs_used for result in results])
    tables = [result.missing.assign(analysis=result.name) for result in results]
    return Result(
        name=NAME,
        options=options,
        seeds=_seeds(results),
        parts=(),
        missing=pd.concat([missing_table(), *tables]),
        runs_used=used[~used.index.duplicated()],
        caveats=[*absent, *dict.fromkeys(c for result in results for c in result.caveats)],
        statistics={result.name: result.all_statistics for result in results},
        pages={"report.html": page},
    )


main = analysis_command(
    NAME,
    report,
    click.option(
        "--server",
        default=SERVER,
        show_default=True,
        help="MLflow server for links to runs, if the store is not a server itself.",
    ),
)

if __name__ == "__main__":
    main()
