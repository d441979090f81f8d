"""An analysis as a command: its options, and how it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from analysis.options import ALL, Options, parse_seeds
from analysis.record import publish
from analysis.result import Result
from analysis.store.source import Source
from worldrep.errors import one_sentence, unknown
from worldrep.names import PLAIN, STRATEGIES, WIDTHS
from worldrep.settings import SCALES, VARIANTS
from worldrep.tracking import Store, gc_disabled

IN_FORCE = "none"  # what stands for an experiment that was not named
SHARED = {
    "experiment": (IN_FORCE, "MLflow experiment; none: the one in force, or worldrep."),
    "scale": ("mini", f"Scale of the models: {', '.join(SCALES)}."),
    "width": ("base", f"Size of the models within the scale: {', '.join(WIDTHS)}."),
    "world": ("standard", f"Where Atlantis lies: {', '.join(VARIANTS)}."),
    "strategy": (PLAIN, f"By which models were fine-tuned: {', '.join(STRATEGIES)}."),
    "seeds": (ALL, "Seeds such as 1,2,3; all: every seed that the store has."),
    "out": ("figures/{name}", "Folder for figures and tables."),
}


def analysis_command(
    name: str,
    analyse: Callable[..., Result],
    *further: Callable[[Any], Any],
    **defaults: str,
) -> click.Command:
    """The command of an analysis: read the store, write and record the result, say what came out.

    analyse: (source, options, **what was typed for the further options) -> Result; defaults: of
    shared options, where this analysis has others. The command ends with exit code 2 for what the
    user typed, 1 for the state of the store or of a file.
    """

    @one_sentence
    @functools.wraps(analyse)
    def run(**typed: Any) -> None:
        options = take_options(typed)
        if options.width == ALL and defaults.get("width") != ALL:
            raise unknown("width", ALL, WIDTHS)
        with open_source(options) as source:
            publish(analyse(source, options, **typed), source.store, launched=True)

    return declare(run, name, *further, **defaults)


def declare(
    function: Callable[..., None],
    name: str,
    *further: Callable[[Any], Any],
    **defaults: str,
) -> click.Command:
    """A command with the options that all analyses share, and further ones."""
    no_log = click.option("--no-log", is_flag=True, help="Leave the store as it is.")
    declared: Any = no_log(function)
    for option in reversed(further):
        declared = option(declared)
    for key, (default, text) in reversed(SHARED.items()):
        typed = defaults.get(key, default.format(name=name))
        declared = click.option(f"--{key}", key, default=typed, show_default=True, help=text)(
            declared
        )
    return click.command(name, context_settings={"max_content_width": 100})(declared)


def take_options(typed: dict[str, Any]) -> Options:
    """Take the shared options out of what was typed. Raises InputError."""
    experiment, log = typed.pop("experiment"), not typed.pop("no_log")
    return Options(
        out=Path(typed.pop("out")),
        experiment=None if experiment == IN_FORCE else experiment,
        seeds=parse_seeds(typed.pop("seeds")),
        log=log,
        **{name: typed.pop(name) for name in ("scale", "width", "world", "strategy")},
    )


@contextmanager
def open_source(options: Options) -> Iterator[Source]:
    """What the options ask to read. Raises InputError or StateError when it is not there."""
    with gc_disabled():
        yield Source(Store.connect(options.experiment, create=False), options.strategy)
