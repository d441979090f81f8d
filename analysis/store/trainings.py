"""Which models are trained, and which trainings are what their models' names stand for today."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from analysis.options import Options
from analysis.store.commands import Commands
from analysis.store.models import known_model
from analysis.store.runs import STAGES, choose, run_table
from analysis.store.source import Source
from worldrep.studies import Definition, expand
from worldrep.tracking import StoredRun


@dataclass(frozen=True)
class Trained:
    """Finished trainings, and the commands for what they leave to be done.

    runs: by run id, the newest first of each stage; current: ids of those that a command which
    names their model would reuse; standing: (model, seed) -> id of the training that stands for it.
    """

    runs: Mapping[str, StoredRun]
    current: Collection[str]
    standing: Mapping[tuple[str, int], str]
    commands: Commands

    @classmethod
    def read(cls, source: Source, options: Options, **names: str) -> Trained:
        """Trainings of the scale, width and world of the options.

        names: further tags that they have in common, such as pretrain. One is current if its
        fingerprint is that of its model today: of the settings, rows, base and version that the
        name stands for. Raises StateError when the store cannot be read.
        """
        found = [
            run for stage in STAGES for run in source.runs(stage=stage, **options.names, **names)
        ]
        fingerprints = _current_fingerprints(found, options)
        current = frozenset(run.id for run in found if run.fingerprint in fingerprints)
        table = choose(run_table(found, current), "training")
        standing = {
            (str(run.model), int(run.seed)): str(run.Index)
            for run in table[table["chosen"]].itertuples()
        }
        commands = Commands.of(source, options, standing, current)
        return cls({run.id: run for run in found}, current, standing, commands)


def _current_fingerprints(runs: Sequence[StoredRun], options: Options) -> set[str]:
    """Fingerprints that the trained models have if they are trained by their names alone."""
    models = tuple(dict.fromkeys(run.tag("model") for run in runs if known_model(run.tag("model"))))
    seeds = tuple(dict.fromkeys(int(run.tag("seed")) for run in runs))
    if not models:
        return set()
    asked = Definition(
        "current",
        models,
        seeds=seeds,
        worlds=(options.world,),
        scale=options.scale,
        steps=("train",),
    )
    return set(expand(asked).steps)
