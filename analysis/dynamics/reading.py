"""What trainings logged: their curves as a tidy table, each point with its run.

If a model and seed have several trainings, one whose fingerprint matches the current code and
settings is preferred, then the newest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from analysis.store.missing import (
    MISSING_COLUMNS,
    currency_caveats,
    duplicate_caveats,
    setting_caveats,
)
from analysis.store.selection import Trained, choose, family_of, run_table
from analysis.store.source import Source
from worldrep.data.sets import maker_of, training_sets
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.settings import FIELDS, NO_CITIES, from_dict, parse_value
from worldrep.studies.report import training_tokens
from worldrep.tracking import StoredRun
from worldrep.tracking.runs import CITIES
from worldrep.training.feed import Schedule

CURVE = ["run_id", "split", "task"]
RUN_FACTS = ["model", "family", "stage", "seed"]


@dataclass(frozen=True)
class TrainingCurves:
    """What was read.

    runs: the finished trainings, by run_id: columns of `choose`, family, stage, val_rows,
    tokens_per_step (estimated, about 1% off); points: one row per point: run_id, split ("loss", or
    that of a validation suite), task (empty for the loss), step, value, RUN_FACTS, tokens; missing:
    models and curves that the store lacks; caveats: how trainings were chosen, and how they differ.
    """

    runs: pd.DataFrame
    points: pd.DataFrame
    missing: pd.DataFrame
    caveats: list[str]


def read_curves(
    source: Source, trained: Trained, models: Sequence[ModelName], seeds: Collection[int]
) -> TrainingCurves:
    """Read the curves of these models and seeds, as far as they are trained."""
    names, commands = [*map(str, models)], trained.commands
    wanted = pd.DataFrame(product(seeds, names), columns=["seed", "model"])
    wanted["command"] = [commands.train(model, seed) for seed, model in product(seeds, models)]
    found = {
        run_id: run
        for run_id, run in trained.runs.items()
        if int(run.tag("seed")) in seeds and run.tag("model") in names
    }
    runs = choose(_run_table(source, found.values(), trained), "training")
    wanted = wanted.merge(runs[runs["chosen"]].reset_index(), "left", ["seed", "model"])
    untrained = wanted[wanted["run_id"].isna()].assign(reason="the model is not trained", task="")
    chosen = wanted.dropna(subset=["run_id"])
    chosen = chosen.sort_values("model", key=lambda own: own.map(names.index), kind="stable")
    points, lacking = _read_points(source, [found[run_id] for run_id in chosen["run_id"]])
    points = points.merge(chosen[["run_id", *RUN_FACTS, "tokens_per_step"]], "left")
    points["tokens"] = points["step"] * points.pop("tokens_per_step")
    lacking = lacking.merge(chosen[["run_id", "seed", "model", "command"]])
    lacking["command"] = [*map(commands.again, lacking["run_id"], lacking["command"])]
    missing = pd.concat([untrained, lacking], ignore_index=True).assign(matrix="curves")
    caveats = [
        *duplicate_caveats(runs, "training", found),
        *currency_caveats(runs),
        *_setting_caveats(chosen, found),
    ]
    return TrainingCurves(runs, points, missing[MISSING_COLUMNS], caveats)


def _run_table(source: Source, runs: Collection[StoredRun], trained: Trained) -> pd.DataFrame:
    cities: dict[str, str] = {}
    return run_table(runs, trained.current).assign(
        family=[family_of(parse_model(run.tag("model"))) for run in runs],
        stage=[run.tag("stage") for run in runs],
        val_rows=[float(run.params.get("cfg.val_rows", math.nan)) for run in runs],
        tokens_per_step=[_tokens_per_step(source, run, cities) for run in runs],
    )


def _tokens_per_step(source: Source, run: StoredRun, cities: dict[str, str]) -> float:
    """Estimate the tokens of a mean step, from the lengths of a sample of the training's rows.

    NaN if the run does not have all settings. cities: world digest -> file, which is filled.
    """
    typed = {name: run.params[f"cfg.{name}"] for name in FIELDS if f"cfg.{name}" in run.params}
    try:
        settings = from_dict({name: parse_value(name, text) for name, text in typed.items()})
        if settings.cities != NO_CITIES:  # the file of its settings may be on another machine
            digest = run.tag("world_digest")
            if digest not in cities:
                cities[digest] = str(source.path(run.id, CITIES))
            settings = replace(settings, cities=cities[digest])
        rows = sum(rows.rows for rows in training_sets(settings, maker_of(settings).world))
        return training_tokens(settings) / Schedule.of(settings, rows).steps
    except (InputError, StateError):
        return math.nan


def _read_points(source: Source, runs: Iterable[StoredRun]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points (CURVE, step, value), and the curves that trainings lack (run_id, task, reason)."""
    rows, lacking = [], []
    for run in runs:
        learns_atlantis = run.tag("stage") == "finetune" or run.tag("world") == "with_atlantis"
        splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
        for split, task in (("loss", ""), *product(splits, TASK_NAMES)):
            metric = f"val/{split}/{task}/mean" if task else "train/loss"
            curve = source.curve(run.id, metric) if metric in run.metrics else []
            rows += [(run.id, split, task, step, value) for step, value in curve]
            if not curve:
                lacking.append((run.id, task, f"training {run.id} has no curve {metric}"))
    return (
        pd.DataFrame(rows, columns=[*CURVE, "step", "value"]),
        pd.DataFrame(lacking, columns=["run_id", "task", "reason"]),
    )


def _setting_caveats(chosen: pd.DataFrame, found: Mapping[str, StoredRun]) -> list[str]:
    """Differences in settings within each family, and in the cities among all models.

    Models of other families are trained differently on purpose.
    """
    caveats = [
        caveat
        for _, own in chosen.groupby("family", sort=False)["run_id"]
        for caveat in setting_caveats([found[run_id] for run_id in own])
    ]
    names = chosen["model"] + " seed " + chosen["seed"].astype(str)
    worlds = chosen["run_id"].map(lambda run_id: found[run_id].tag("world_digest"))
    names = names[(worlds != "") & ~worlds.duplicated()]
    if len(names) > 1:
        caveats.append(f"not all models have the same cities: {' and '.join(names)}")
    return list(dict.fromkeys(caveats))
