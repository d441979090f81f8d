"""Evaluations from the store as a tidy table, each value with the run that it comes from.

Only finished evaluations of one scale, width, world and pretraining, at the last checkpoint, are
read. Where there are several of one model and seed, one of the model as its name stands today is
preferred, then the newest; and every fine-tuned model is set beside an evaluation of the very base
that it started from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.store.caveats import (
    base_caveats,
    currency_caveats,
    duplicate_caveats,
    setting_caveats,
    weak_base_caveats,
)
from analysis.store.commands import Commands
from analysis.store.runs import choose, run_table
from analysis.store.source import Source
from analysis.store.trainings import Trained
from worldrep.names import NO_FT, TASK_NAMES
from worldrep.tracking import StoredRun

SPLITS = ("standard", "atlantis", "multi")
VALUE_COLUMNS = ["model", "ft", "seed", "split", "task", "value", "run_id"]


@dataclass(frozen=True)
class Evaluations:
    """What was read.

    values: one row per model, seed, split and task, with the columns VALUE_COLUMNS. A base that
    was pretrained several times with one seed occurs once for each of them, told by run_id.

    runs: one row per finished evaluation, indexed by run_id: as of `choose`, base_evaluation_id
    (the run that holds the base's values; empty if there is none) and base_fault (why there is
    none).

    sources: run id -> the run itself.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    sources: Mapping[str, StoredRun]

    @property
    def bases(self) -> pd.DataFrame:
        return self.runs[self.runs["chosen"] & (self.runs["ft"] == NO_FT)]

    @property
    def finetuned(self) -> pd.DataFrame:
        return self.runs[self.runs["chosen"] & (self.runs["ft"] != NO_FT)]

    @property
    def caveats(self) -> list[str]:
        """Sentences about what a reader of the numbers has to know."""
        chosen = [self.sources[run_id] for run_id in self.runs.index[self.runs["chosen"]]]
        return [
            *duplicate_caveats(self.runs, "evaluation", self.sources),
            *currency_caveats(self.runs),
            *base_caveats(self.runs),
            *weak_base_caveats(self.sources[run_id] for run_id in self.bases.index),
            *setting_caveats(chosen),
        ]

    def of_seeds(self, seeds: Collection[int]) -> Evaluations:
        """The evaluations of these seeds alone."""
        values, runs = (table[table["seed"].isin(seeds)] for table in (self.values, self.runs))
        return Evaluations(values, runs, self.sources)

    def gap(self, run_id: str, names: Iterable[str], commands: Commands) -> tuple[str, str]:
        """Why numbers of an evaluation are missing, and the command that makes them."""
        again = commands.evaluate_run(self.runs["model_run_id"][run_id])
        reason = f"evaluation {run_id} has no number {', '.join(names)}"
        return reason, commands.again(run_id, again)


def read_evaluations(
    source: Source,
    trained: Trained,
    fts: Collection[str],
    only: Collection[str] | None = None,
    **names: str,
) -> Evaluations:
    """Read the evaluations of some fine-tunings, and of their bases.

    only: run ids to which the choice is limited; names: what they have in common: scale, width,
    world, pretrain. Raises StateError when the store cannot be read.
    """
    found = {
        run.id: run
        for run in source.runs(stage="evaluate", **names)
        if run.tag("checkpoints") in ("", "last")
        and run.tag("ft") in (NO_FT, *fts)
        and (only is None or run.id in only)
    }
    runs = _with_bases(_choose(run_table(found.values(), trained.current)))
    chosen = [found[run_id] for run_id in runs.index[runs["chosen"]]]
    return Evaluations(_value_table(chosen), runs, found)


def _choose(runs: pd.DataFrame) -> pd.DataFrame:
    """Mark one evaluation of each fine-tuned model and seed, and of each pretrained base."""
    runs = runs.assign(pretrained=runs["model_run_id"].where(runs["ft"] == NO_FT, ""))
    chosen = choose(runs, "evaluation", keys=("model", "seed", "pretrained"))
    return chosen.drop(columns="pretrained")


def _with_bases(runs: pd.DataFrame) -> pd.DataFrame:
    """Give every fine-tuned model the evaluation of its base, or the reason why there is none."""
    bases = runs[runs["chosen"] & (runs["ft"] == NO_FT)]
    found = [
        ("", "") if run.ft == NO_FT else _base_of(run, bases[bases["seed"] == run.seed])
        for run in runs.itertuples()
    ]
    ids, faults = zip(*found, strict=True) if found else ((), ())
    return runs.assign(base_evaluation_id=list(ids), base_fault=list(faults))


def _base_of(run: Any, bases: pd.DataFrame) -> tuple[str, str]:
    """The evaluation of a fine-tuned model's base, or what is wrong.

    bases: chosen evaluations of bases with the same seed, the one to prefer first.
    """
    if bases.empty:
        return "", "its base is not evaluated"
    if not run.base_run_id:  # it does not say; a caveat does
        return bases.index[0], ""
    own = bases[bases["model_run_id"] == run.base_run_id]
    if own.empty:
        others = ", ".join(sorted(bases["model_run_id"]))
        return "", f"its base (run {run.base_run_id}) is not evaluated, only another one ({others})"
    return own.index[0], ""


def _value_table(runs: Iterable[StoredRun]) -> pd.DataFrame:
    rows = [
        (run.tag("model"), run.tag("ft"), int(run.tag("seed")), split, task,
         run.metrics[f"{split}/{task}/mean"], run.id)
        for run in runs
        for split in SPLITS
        for task in TASK_NAMES
        if f"{split}/{task}/mean" in run.metrics
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=VALUE_COLUMNS)
