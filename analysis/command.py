"""Command line of an analysis: shared options, reading, publishing and exit codes."""

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from analysis.options import ALL, Options, parse_seeds
from analysis.result import Result, publish
from analysis.store.source import Source
from worldrep.errors import one_sentence, unknown
from worldrep.names import PLAIN, STRATEGIES, WIDTHS
from worldrep.settings import SCALES, VARIANTS
from worldrep.tracking import Store, gc_disabled

AUTO = "auto"  # the scale, width or world of most runs in the store
NAMES = ("scale", "width", "world")
STAGES = ("evaluate", "extract", "pretrain")  # whose runs are counted
SHARED: dict[str, tuple[Any, str]] = {
    "experiment": (None, "MLflow experiment; default: the active one, or worldrep."),
    "scale": ("mini", f"Scale of the models: {', '.join(SCALES)}."),
    "width": ("base", f"Size of the models within the scale: {', '.join(WIDTHS)}."),
    "world": ("standard", f"Where Atlantis lies: {', '.join(VARIANTS)}."),
    "strategy": (PLAIN, f"Strategy of fine-tuning: {', '.join(STRATEGIES)}."),
    "seeds": (ALL, "Seeds such as 1,2,3; all: every seed in the store."),
    "out": ("figures/{name}", "Folder for figures and tables."),
}


def analysis_command(
    name: str,
    analyse: Callable[..., Result],
    defaults: Mapping[str, str] = MappingProxyType({}),
    **further: str,
) -> click.Command:
    """Make the command of an analysis, which reads the store and publishes the result.

    analyse: called with a source, the options and the values of the further options; defaults: of
    shared options; further: help of each further option, a parameter of `analyse` with a default.
    """

    @one_sentence
    @functools.wraps(analyse)
    def run(no_log: bool, **typed: Any) -> None:
        shared = {option: typed.pop(option) for option in SHARED}
        if shared["width"] == ALL and defaults.get("width") != ALL:
            raise unknown("width", ALL, WIDTHS)
        if shared["experiment"] == "none":  # as `mlflow run` passes it
            shared["experiment"] = None
        open_names = [key for key in NAMES if shared[key] == defaults.get(key) == AUTO]
        shared |= {key: SHARED[key][0] for key in open_names}
        parsed = {"seeds": parse_seeds(shared["seeds"]), "out": Path(shared["out"])}
        options = Options(**shared | parsed, log=not no_log)
        with open_source(options) as source:
            if open_names:
                options = with_most_runs(source, options, open_names)
            publish(analyse(source, options, **typed), source.store, launched=True)

    command: Any = click.option("--no-log", is_flag=True, help="Do not record a run.")(run)
    shown = {key: (defaults.get(key, value), text) for key, (value, text) in SHARED.items()}
    parameters = inspect.signature(analyse).parameters
    shown |= {key: (parameters[key].default, text) for key, text in further.items()}
    for key, (default, text) in reversed(shown.items()):
        value = default.format(name=name) if isinstance(default, str) else default
        command = click.option(f"--{key}", default=value, show_default=True, help=text)(command)
    about = sys.modules[analyse.__module__].__doc__
    return click.command(name, help=about, context_settings={"max_content_width": 100})(command)


def with_most_runs(source: Source, options: Options, names: Collection[str]) -> Options:
    """Return the options with those values of some names that most runs of the store have.

    Prints which they are, and what else there is.
    """
    kept = {key: value for key, value in options.names.items() if key not in names}
    runs = [run for stage in STAGES for run in source.runs(stage=stage, **kept)]
    kinds = Counter(tuple(run.tag(key) for key in NAMES) for run in runs)
    known = [kind for kind, _ in kinds.most_common() if _are_known(kind)]
    if not known:
        return options
    found: list[dict[str, Any]] = [dict(zip(NAMES, kind, strict=True)) for kind in known]
    every = [replace(options, **own) for own in found]
    others = "; ".join(other.in_words for other in every[1:])
    click.echo(f"{every[0].in_words}{f' (the store also has: {others})' if others else ''}")
    return every[0]


def _are_known(kind: tuple[str, ...]) -> bool:
    allowed = zip(kind, (SCALES, WIDTHS, VARIANTS), strict=True)
    return all(value in names for value, names in allowed)


@contextmanager
def open_source(options: Options) -> Iterator[Source]:
    """Open the experiment of the options. Raises InputError or StateError if it is not there."""
    with gc_disabled():
        yield Source(Store.connect(options.experiment, create=False), options.strategy)
