"""Which models are trained, and which of them are what their names stand for today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.reading.source import Source
from worldrep.errors import InputError
from worldrep.names import parse_model
from worldrep.studies import Definition, expand
from worldrep.tracking import StoredRun

STAGES = ("pretrain", "finetune")


@dataclass(frozen=True)
class Training:
    """A finished training; current: a command that names its model would reuse it."""

    run: StoredRun
    current: bool


Trainings = Mapping[str, Training]  # by run id


def read_trainings(source: Source, *, scale: str, world: str, **names: str) -> dict[str, Training]:
    """Finished trainings of one scale and world, the newest first.

    names: further tags that they have in common, such as width and pretrain. One is current if its
    fingerprint is that of its model today: of the settings, rows, base and version that the name
    stands for.
    """
    runs = [
        run
        for stage in STAGES
        for run in source.runs(stage=stage, scale=scale, world=world, **names)
    ]
    current = _current_fingerprints(runs, scale, world)
    return {run.id: Training(run, run.fingerprint in current) for run in runs}


def _current_fingerprints(runs: list[StoredRun], scale: str, world: str) -> set[str]:
    """Fingerprints that the trained models have if they are trained by their names alone."""
    models = tuple(dict.fromkeys(run.tag("model") for run in runs if _is_known(run)))
    seeds = tuple(dict.fromkeys(int(run.tag("seed")) for run in runs))
    if not models:
        return set()
    asked = Definition(
        "current", models, seeds=seeds, worlds=(world,), scale=scale, steps=("train",)
    )
    return set(expand(asked).steps)


def _is_known(run: StoredRun) -> bool:
    """Whether this version knows the model's name."""
    try:
        parse_model(run.tag("model"))
    except InputError:
        return False
    return True
