"""What trainings logged: their curves as a tidy table, each point with its run.

If a model and seed have several trainings, one whose fingerprint matches the current code and
settings is preferred, then the newest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd

from analysis.store.caveats import currency_caveats, duplicate_caveats, setting_caveats
from analysis.store.missing import MISSING_COLUMNS, missing
from analysis.store.selection import Trained, choose, family_of, run_table
from analysis.store.source import Source
from worldrep.data.sets import maker_of, training_sets
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.settings import FIELDS, from_dict, parse_value
from worldrep.studies.report import training_tokens
from worldrep.tracking import StoredRun
from worldrep.tracking.runs import CITIES
from worldrep.training.feed import Schedule

CURVE = ["run_id", "split", "task"]
RUN_FACTS = ["model", "family", "stage", "seed"]


@dataclass(frozen=True)
class TrainingCurves:
    """What was read.

    Attributes:
        runs: The finished trainings, by run_id: columns of `choose`, family, stage, val_rows,
            tokens_per_step (estimated, about 1% off).
        points: One row per point: run_id, split, task, step, value, RUN_FACTS, tokens. split is
            "loss" (task is empty) or that of a validation suite.
        missing: Models and curves that the store lacks: MISSING_COLUMNS.
        caveats: How the trainings were chosen, and how they differ.
    """

    runs: pd.DataFrame
    points: pd.DataFrame
    missing: pd.DataFrame
    caveats: list[str]


def read_curves(
    source: Source, trained: Trained, models: Sequence[ModelName], seeds: Collection[int]
) -> TrainingCurves:
    """Read the curves of these models and seeds, as far as they are trained."""
    wanted = pd.DataFrame(product(seeds, map(str, models)), columns=["seed", "model"])
    keys = set(wanted.itertuples(index=False, name=None))
    found = {
        run_id: run
        for run_id, run in trained.runs.items()
        if (int(run.tag("seed")), run.tag("model")) in keys
    }
    runs = choose(_run_table(source, found.values(), trained), "training")
    chosen = wanted.merge(runs[runs["chosen"]].reset_index(), on=["seed", "model"])
    order = {str(model): place for place, model in enumerate(models)}
    chosen = chosen.sort_values("model", key=lambda names: names.map(order), kind="stable")
    used = [found[run_id] for run_id in chosen["run_id"]]
    curves = _wanted_curves(used)
    points = _read_points(source, found, curves)
    points = points.merge(chosen[["run_id", *RUN_FACTS, "tokens_per_step"]], "left")
    points["tokens"] = points["step"] * points.pop("tokens_per_step")
    caveats = [
        *duplicate_caveats(runs, "training", found),
        *currency_caveats(runs),
        *_setting_caveats(used),
    ]
    absent = _missing(trained, wanted, chosen, curves, points)
    return TrainingCurves(runs, points, absent, caveats)


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
        if settings.cities != "none":  # the file of its settings may be on another machine
            digest = run.tag("world_digest")
            if digest not in cities:
                cities[digest] = str(source.path(run.id, CITIES))
            settings = replace(settings, cities=cities[digest])
        rows = sum(rows.rows for rows in training_sets(settings, maker_of(settings).world))
        return training_tokens(settings) / Schedule.of(settings, rows).steps
    except (InputError, StateError):
        return math.nan


def _wanted_curves(runs: Iterable[StoredRun]) -> pd.DataFrame:
    """The curves that trainings should have, with seed, model and name of the metric."""
    rows = []
    for run in runs:
        learns_atlantis = run.tag("stage") == "finetune" or run.tag("world") == "with_atlantis"
        splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
        suites = [
            (split, task, f"val/{split}/{task}/mean") for split in splits for task in TASK_NAMES
        ]
        facts = run.id, int(run.tag("seed")), run.tag("model")
        rows += [(*facts, *curve) for curve in (("loss", "", "train/loss"), *suites)]
    return pd.DataFrame(rows, columns=["run_id", "seed", "model", "split", "task", "metric"])


def _read_points(
    source: Source, runs: Mapping[str, StoredRun], curves: pd.DataFrame
) -> pd.DataFrame:
    rows = [
        (curve.run_id, curve.split, curve.task, step, value)
        for curve in curves.itertuples()
        if curve.metric in runs[curve.run_id].metrics
        for step, value in source.curve(curve.run_id, curve.metric)
    ]
    return pd.DataFrame(rows, columns=[*CURVE, "step", "value"])


def _missing(
    trained: Trained,
    wanted: pd.DataFrame,
    chosen: pd.DataFrame,
    curves: pd.DataFrame,
    points: pd.DataFrame,
) -> pd.DataFrame:
    """Models without a training, and curves that a training lacks."""

    def train(row: Any) -> str:
        return trained.commands.train(parse_model(row.model), row.seed)

    def untrained(row: Any) -> tuple[str, str]:
        return "the model is not trained", train(row)

    def unlogged(row: Any) -> tuple[str, str]:
        reason = f"training {row.run_id} has no curve {row.metric}"
        return reason, trained.commands.again(row.run_id, train(row))

    models = missing(wanted.assign(task=""), chosen, ["seed", "model"], untrained)
    tables = models, missing(curves, points, CURVE, unlogged)
    return pd.concat(tables, ignore_index=True).assign(matrix="curves")[MISSING_COLUMNS]


def _setting_caveats(runs: Sequence[StoredRun]) -> list[str]:
    """Differences in settings within each family, and in the cities among all models.

    Models of other families are trained differently on purpose.
    """
    families: dict[str, list[StoredRun]] = {}
    worlds: dict[str, str] = {}  # digest -> a model
    for run in runs:
        families.setdefault(family_of(parse_model(run.tag("model"))), []).append(run)
        if run.tag("world_digest"):
            name = f"{run.tag('model')} seed {run.tag('seed')}"
            worlds.setdefault(run.tag("world_digest"), name)
    caveats = [caveat for group in families.values() for caveat in setting_caveats(group)]
    if len(worlds) > 1:
        caveats.append(f"not all models have the same cities: {' and '.join(worlds.values())}")
    return list(dict.fromkeys(caveats))
