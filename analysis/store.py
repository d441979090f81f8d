"""Evaluations from the store as a tidy table, each value with the run that it comes from.

Only finished evaluations of one scale, width, world and pretraining, at the last checkpoint, are
read. Where there are several of one model and seed the newest finished one is chosen, and every
fine-tuned model is set beside an evaluation of the very base that it started from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.caveats import base_caveats, duplicate_caveats, setting_caveats
from worldrep.errors import StateError
from worldrep.names import NO_FT, TASK_NAMES
from worldrep.tracking import Store

SPLITS = ("standard", "atlantis", "multi")
VALUE_COLUMNS = ["model", "ft", "seed", "split", "task", "value", "run_id"]
RUN_COLUMNS = ["run_id", "run_name", "model", "ft", "seed", "model_run_id", "base_run_id", "ended"]
MANY_RUNS = 100_000


@dataclass(frozen=True)
class Evaluations:
    """What was read.

    values: one row per model, seed, split and task, with the columns VALUE_COLUMNS. A base that
    was pretrained several times with one seed occurs once for each of them, told by run_id.

    runs: one row per finished evaluation, indexed by run_id: RUN_COLUMNS, chosen, why (it was
    chosen or not), base_evaluation_id (the run that holds the base's values; empty if there is
    none) and base_fault (why there is none).

    sources: run id -> the run itself.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    sources: Mapping[str, Run]

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
        duplicates = duplicate_caveats(self.runs, self.sources)
        return [*duplicates, *base_caveats(self.runs), *setting_caveats(chosen)]

    def of_seeds(self, seeds: Collection[int]) -> Evaluations:
        """The evaluations of these seeds alone."""
        values, runs = (table[table["seed"].isin(seeds)] for table in (self.values, self.runs))
        return Evaluations(values, runs, self.sources)


def read_evaluations(
    store: Store, fts: Collection[str], only: Collection[str] | None = None, **names: str
) -> Evaluations:
    """Read the evaluations of some fine-tunings, and of their bases.

    only: run ids to which the choice is limited; names: what they have in common: scale, width,
    world, pretrain. Raises StateError when the store cannot be read.
    """
    found = {
        run.info.run_id: run
        for run in search(store, stage="evaluate", **names)
        if run.data.tags.get("worldrep.checkpoints", "last") == "last"
        and run.data.tags.get("worldrep.ft") in (NO_FT, *fts)
        and is_named(run)
        and (only is None or run.info.run_id in only)
    }
    runs = _with_bases(_choose(_run_table(found.values())))
    chosen = [found[run_id] for run_id in runs.index[runs["chosen"]]]
    return Evaluations(_value_table(chosen), runs, found)


def search(store: Store, **tags: str) -> list[Run]:
    """Finished runs of the store's experiment with all these tags (without prefix)."""
    terms = [f"tags.`worldrep.{name}` = '{value}'" for name, value in tags.items()]
    terms.append("attributes.status = 'FINISHED'")
    try:
        return mlflow.search_runs(
            [store.experiment_id],
            filter_string=" and ".join(terms),
            max_results=MANY_RUNS,
            output_format="list",
        )
    except MlflowException as fault:
        raise StateError(f"cannot read the MLflow store at {store.uri}: {fault}") from None


def is_named(run: Run) -> bool:
    """Whether a run says which model and which seed it is about."""
    return "worldrep.model" in run.data.tags and run.data.tags.get("worldrep.seed", "").isdecimal()


def evaluations_elsewhere(store: Store) -> dict[str, int]:
    """How many finished evaluations the experiment has, by what they are of."""
    keys = ("scale", "width", "world", "pretrain")
    kinds = Counter(
        ", ".join(f"{key} {run.data.tags.get(f'worldrep.{key}', 'unknown')}" for key in keys)
        for run in search(store, stage="evaluate")
    )
    return dict(sorted(kinds.items()))


def _run_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per evaluation, the newest first."""
    rows = [
        {
            "run_id": run.info.run_id,
            "run_name": run.info.run_name,
            "model": run.data.tags["worldrep.model"],
            "ft": run.data.tags["worldrep.ft"],
            "seed": int(run.data.tags["worldrep.seed"]),
            "model_run_id": run.data.tags.get("worldrep.model_run_id", ""),
            "base_run_id": run.data.tags.get("worldrep.base_run_id", ""),
            "ended": pd.Timestamp(run.info.end_time or 0, unit="ms", tz="UTC"),
        }
        for run in runs
    ]
    table = pd.DataFrame(rows, columns=RUN_COLUMNS).set_index("run_id")
    return table.sort_values(["ended", "run_id"], ascending=False)


def _choose(runs: pd.DataFrame) -> pd.DataFrame:
    """Mark the newest evaluation of each fine-tuned model and seed, and of each pretrained base."""
    pretrained = runs["model_run_id"].where(runs["ft"] == NO_FT, "")
    groups = runs["model"].groupby([runs["model"], runs["seed"], pretrained], sort=False)
    size, chosen = groups.transform("size"), groups.cumcount() == 0
    why = "the newest of " + size.astype(str) + " finished evaluations"
    why = why.where(size > 1, "the only finished evaluation")
    why = why.where(chosen, "not used: an older evaluation of the same model and seed")
    return runs.assign(chosen=chosen, why=why)


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

    bases: chosen evaluations of bases with the same seed, the newest first.
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


def _value_table(runs: Iterable[Run]) -> pd.DataFrame:
    rows = [
        (tags["worldrep.model"], tags["worldrep.ft"], int(tags["worldrep.seed"]), split, task,
         run.data.metrics[f"{split}/{task}/mean"], run.info.run_id)
        for run in runs
        for tags in (run.data.tags,)
        for split in SPLITS
        for task in TASK_NAMES
        if f"{split}/{task}/mean" in run.data.metrics
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=VALUE_COLUMNS)
