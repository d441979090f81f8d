"""Which seeds an analysis is drawn for, or the sentence that says why there is nothing to draw."""

from __future__ import annotations

from analysis.options import Options
from analysis.store import Evaluations, evaluations_elsewhere
from worldrep.errors import StateError
from worldrep.tracking import Store


def choose_seeds(
    evaluations: Evaluations, options: Options, store: Store
) -> tuple[tuple[int, ...], list[str]]:
    """The seeds that were asked for, else all with a fine-tuned model; and caveats about them.

    Raises StateError when no seed has both a base and a fine-tuned model.
    """
    based = set(evaluations.bases["seed"])
    tuned = set(evaluations.finetuned["seed"])
    asked = set(options.seeds) or tuned
    if not asked & based & tuned:
        raise StateError(_why_nothing(evaluations, options, store))
    left_out = sorted(based - tuned - asked)
    caveats = [f"seed {seed} is left out: only its base is evaluated" for seed in left_out]
    caveats += [f"seed {seed} has no evaluated base" for seed in sorted(asked - based)]
    caveats += [f"seed {seed} has no fine-tuned model" for seed in sorted(asked - tuned)]
    return tuple(sorted(asked)), caveats


def _why_nothing(evaluations: Evaluations, options: Options, store: Store) -> str:
    where = f"experiment {store.experiment_name!r} of the store at {store.uri}"
    kind = ", ".join(f"{name} {value}" for name, value in options.names.items())
    if evaluations.runs.empty:
        others = evaluations_elsewhere(store)
        known = "; ".join(f"{count} of {name}" for name, count in others.items())
        has = f"it has {known}" if known else "it has none at all; `mlflow run .` makes some"
        return f"{where} has no finished evaluation of {kind}: {has}"
    found = "; ".join(
        f"{what} of seeds {', '.join(map(str, sorted(set(table['seed'])))) or 'none'}"
        for what, table in (
            ("bases", evaluations.bases),
            ("fine-tuned models", evaluations.finetuned),
        )
    )
    asked = f" for seeds {', '.join(map(str, options.seeds))}" if options.seeds else ""
    return f"{where} lacks a base and a model fine-tuned from it{asked} ({kind}): it has {found}"
