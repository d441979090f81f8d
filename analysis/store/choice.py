"""Which seeds an analysis is drawn for, or why there is nothing to draw."""

from __future__ import annotations

from analysis.options import Options
from analysis.store.evaluations import Evaluations
from analysis.store.source import Source
from worldrep.errors import StateError


class NothingThere(StateError):
    """The store can be read, and has nothing of the kind that is asked for."""


def choose_seeds(
    evaluations: Evaluations, options: Options, source: Source
) -> tuple[tuple[int, ...], list[str]]:
    """The seeds that were asked for, else all with a fine-tuned model; and caveats about them.

    Raises NothingThere when no seed has both a base and a fine-tuned model.
    """
    based = set(evaluations.bases["seed"])
    tuned = set(evaluations.finetuned["seed"])
    asked = set(options.seeds) or tuned
    if not asked & based & tuned:
        raise NothingThere(_why_nothing(evaluations, options, source))
    left_out = sorted(based - tuned - asked)
    caveats = [f"seed {seed} is left out: only its base is evaluated" for seed in left_out]
    caveats += [f"seed {seed} has no evaluated base" for seed in sorted(asked - based)]
    caveats += [f"seed {seed} has no fine-tuned model" for seed in sorted(asked - tuned)]
    return tuple(sorted(asked)), caveats


def nothing_of(kind: str, stage: str, options: Options, source: Source) -> NothingThere:
    """The store has no finished run of a stage that would do. kind: what was looked for."""
    known = source.held(stage)
    has = f"it has {known}" if known else "it has none at all; `mlflow run .` makes some"
    return NothingThere(f"{source.place} has no {kind} of {options.in_words}: {has}")


def _why_nothing(evaluations: Evaluations, options: Options, source: Source) -> str:
    if evaluations.runs.empty:
        return str(nothing_of("finished evaluation", "evaluate", options, source))
    found = "; ".join(
        f"{what} of seeds {', '.join(map(str, sorted(set(table['seed'])))) or 'none'}"
        for what, table in (
            ("bases", evaluations.bases),
            ("fine-tuned models", evaluations.finetuned),
        )
    )
    asked = f" for seeds {', '.join(map(str, options.seeds))}" if options.seeds else ""
    return (
        f"{source.place} lacks a base and a model fine-tuned from it{asked} "
        f"({options.in_words}): it has {found}"
    )
