"""Evaluations from the store as a tidy table, each value with the runs that it comes from.

Only finished evaluations of one scale, width, world and pretraining, at the last checkpoint, are
read. Where there are several of one model and seed the newest finished one is chosen, and every
fine-tuned model is set beside an evaluation of the very base that it started from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from worldrep.errors import StateError
from worldrep.names import NO_FT, TASK_NAMES
from worldrep.settings import FIELDS, SHARED_GROUPS
from worldrep.tracking import Store

SPLITS = ("standard", "atlantis", "multi")
VALUE_COLUMNS = ("model", "ft", "seed", "split", "task", "value", "run_id")
MANY_RUNS = 100_000


@dataclass(frozen=True)
class Evaluations:
    """What was read.

    values: one row per model, seed, split and task, with the columns VALUE_COLUMNS. A base that
    was pretrained several times with one seed occurs once for each of them, told by run_id.

    runs: one row per finished evaluation, indexed by run_id: model, ft, seed, model_run_id,
    base_run_id, ended, chosen, why (it was chosen or not), base_evaluation_id (the run that holds
    the base's values; empty if there is none) and base_fault (why there is none).

    notes: sentences about anything that a reader has to know.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def chosen(self) -> pd.DataFrame:
        return self.runs[self.runs["chosen"]]

    @property
    def bases(self) -> pd.DataFrame:
        return self.chosen[self.chosen["ft"] == NO_FT]

    @property
    def finetuned(self) -> pd.DataFrame:
        return self.chosen[self.chosen["ft"] != NO_FT]

    def only(self, fts: Iterable[str]) -> Evaluations:
        """The evaluations of some fine-tunings and of all bases."""
        kept = {NO_FT, *fts}
        values, runs = (table[table["ft"].isin(kept)] for table in (self.values, self.runs))
        return Evaluations(values, runs, self.notes)


def read_evaluations(
    store: Store, *, scale: str, width: str, world: str, pretrain: str
) -> Evaluations:
    """Read what the store knows of a pretraining's models. Raises StateError if it cannot be."""
    names = {"scale": scale, "width": width, "world": world, "pretrain": pretrain}
    found = [
        run
        for run in search(store, stage="evaluate", **names)
        if run.data.tags.get("worldrep.checkpoints", "last") == "last"
    ]
    usable = {run.info.run_id: run for run in found if _has_names(run)}
    lost = [run.info.run_id for run in found if run.info.run_id not in usable]
    notes = [f"evaluation {run_id} names no model or seed: left out" for run_id in lost]
    runs = _choose(_run_table(usable.values()))
    runs, base_notes = _with_bases(runs)
    chosen = [usable[run_id] for run_id in runs.index[runs["chosen"]]]
    notes += _duplicate_notes(runs, usable) + base_notes + _setting_notes(chosen)
    return Evaluations(_value_table(chosen), runs, tuple(notes))


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


def trained_models(store: Store, **names: str) -> dict[tuple[str, int], str]:
    """(model, seed) of every finished training with these tags -> the run id of the newest."""
    runs = [run for stage in ("pretrain", "finetune") for run in search(store, stage=stage, **names)]
    runs = sorted((run for run in runs if _has_names(run)), key=lambda run: run.info.end_time)
    return {
        (run.data.tags["worldrep.model"], int(run.data.tags["worldrep.seed"])): run.info.run_id
        for run in runs
    }


def evaluations_elsewhere(store: Store) -> dict[str, int]:
    """How many finished evaluations the experiment has, by what they are of."""
    keys = ("scale", "width", "world", "pretrain")
    kinds = Counter(
        ", ".join(f"{key} {run.data.tags.get(f'worldrep.{key}', 'unknown')}" for key in keys)
        for run in search(store, stage="evaluate")
    )
    return dict(sorted(kinds.items()))


def _has_names(run: Run) -> bool:
    tags = run.data.tags
    seed = tags.get("worldrep.seed", "")
    return {"worldrep.model", "worldrep.ft"} <= set(tags) and bool(re.fullmatch("[0-9]+", seed))


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
    columns = ["run_id", "run_name", "model", "ft", "seed", "model_run_id", "base_run_id", "ended"]
    table = pd.DataFrame(rows, columns=columns).set_index("run_id")
    return table.sort_values(["ended", "run_id"], ascending=False, kind="stable")


def _choose(runs: pd.DataFrame) -> pd.DataFrame:
    """Mark the newest evaluation of each fine-tuned model and seed, and of each pretrained base."""
    pretrained = runs["model_run_id"].where(runs["ft"] == NO_FT, "")
    groups = runs.groupby([runs["model"], runs["seed"], pretrained], sort=False)
    place = groups.cumcount()
    size = pd.Series(1, runs.index).groupby([runs["model"], runs["seed"], pretrained]).transform("sum")
    chosen = place == 0
    why = pd.Series("the only finished evaluation", runs.index)
    why = why.where(size == 1, "the newest of " + size.astype(str) + " finished evaluations")
    why = why.where(chosen, "an older evaluation of the same model and seed")
    return runs.assign(chosen=chosen, why=why)


def _with_bases(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Give every fine-tuned model the evaluation of its base, or the reason why there is none."""
    notes: dict[str, None] = {}
    ids, faults = [], []
    bases = runs[runs["chosen"] & (runs["ft"] == NO_FT)]
    for run in runs.itertuples():
        evaluation, fault, note = ("", "", "")
        if run.ft != NO_FT:
            evaluation, fault, note = _base_of(run, bases[bases["seed"] == run.seed])
        ids.append(evaluation)
        faults.append(fault)
        if note and run.chosen:
            notes[note] = None
    return runs.assign(base_evaluation_id=ids, base_fault=faults), list(notes)


def _base_of(run, bases: pd.DataFrame) -> tuple[str, str, str]:
    """Of one fine-tuned model: the evaluation of its base, what is wrong, what is to be noted.

    bases: chosen evaluations of bases with the same seed, the newest first.
    """
    if bases.empty:
        return "", "its base is not evaluated", ""
    if not run.base_run_id:
        note = f"{run.model} seed {run.seed} does not say which base it started from"
        return bases.index[0], "", f"{note}: the newest evaluation of its seed's base is used"
    own = bases[bases["model_run_id"] == run.base_run_id]
    if own.empty:
        others = ", ".join(sorted(bases["model_run_id"]))
        fault = f"its base (run {run.base_run_id}) is not evaluated, only another one ({others})"
        return "", fault, ""
    note = ""
    if len(bases) > 1:
        note = f"seed {run.seed} has {len(bases)} evaluated bases: each model is compared with its own"
    return own.index[0], "", note


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
    return pd.DataFrame(rows, columns=list(VALUE_COLUMNS))


def _duplicate_notes(runs: pd.DataFrame, found: Mapping[str, Run]) -> list[str]:
    """One sentence for each model and seed that was evaluated more than once."""
    notes = []
    for (model, seed), group in runs.groupby(["model", "seed"]):
        chosen = group.index[group["chosen"]]
        older = group.index[~group["chosen"]]
        if len(older):
            differing = _differences([found[run_id] for run_id in group.index], _ALL_SETTINGS)
            how = f"; they differ in {', '.join(differing)}" if differing else ""
            notes.append(
                f"{model} seed {seed} has {len(group)} finished evaluations: the newest is used "
                f"({', '.join(chosen)}), not {', '.join(older)}{how}"
            )
    return notes


_ALL_SETTINGS = tuple(name for name, spec in FIELDS.items() if spec.metadata["group"] != "name")
_SHARED = tuple(name for name in _ALL_SETTINGS if FIELDS[name].metadata["group"] in SHARED_GROUPS)


def _setting_notes(runs: list[Run]) -> list[str]:
    """One sentence for each setting in which models differ that are to be compared.

    World, rows and model are compared among all; the training among equally many trained tasks,
    which have equally many epochs.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        family = run.data.tags["worldrep.ft"].partition("-")[0]
        groups.setdefault("the bases" if family == NO_FT else f"{family} models", []).append(run)
    own = tuple(name for name in _ALL_SETTINGS if name not in _SHARED)
    compared = [("the models", runs, _SHARED)]
    compared += [(label, group, own) for label, group in groups.items()]
    notes = []
    for label, group, names in compared:
        for name, kinds in _differences(group, names).items():
            notes.append(f"{label} differ in {name}: {_in_words(kinds)}")
    return notes


def _differences(runs: Iterable[Run], names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Settings that are not the same in all runs: name -> value -> which models have it."""
    runs, differing = list(runs), {}
    for name in names:
        kinds: dict[str, list[str]] = {}
        for run in runs:
            value = run.data.params.get(f"cfg.{name}")
            if value is not None:
                tags = run.data.tags
                model = f"{tags['worldrep.model']} seed {tags['worldrep.seed']}"
                kinds.setdefault(value, []).append(model)
        if len(kinds) > 1:
            differing[name] = kinds
    return differing


def _in_words(kinds: Mapping[str, list[str]]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return ", ".join(
        f"{value} ({models[0] if len(models) == 1 else f'{len(models)} models'})"
        for value, models in ordered
    )
