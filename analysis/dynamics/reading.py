"""What trainings logged: their curves as a tidy table, each point with its run.

If a model and seed have several trainings, one whose fingerprint matches the current code and
settings is preferred, then the newest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
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
from worldrep.settings import FIELDS, Settings, from_dict, parse_value
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
    """Read the curves of these models and seeds, as far as they are trained.

    Raises:
        StateError: If the store does not answer.
    """
    wanted = list(product(seeds, map(str, models)))
    found = {
        run_id: run
        for run_id, run in trained.runs.items()
        if (int(run.tag("seed")), run.tag("model")) in wanted
    }
    runs = choose(_run_table(source, found.values(), trained), "training")
    chosen = runs[runs["chosen"]]
    order = {str(model): place for place, model in enumerate(models)}
    chosen = chosen.assign(place=chosen["model"].map(order)).sort_values(["place", "seed"])
    have = set(zip(chosen["seed"], chosen["model"], strict=True))
    why, train = "the model is not trained", trained.commands.train
    missing: list[tuple[object, ...]] = [
        ("curves", seed, model, "", why, train(parse_model(model), seed))
        for seed, model in wanted
        if (seed, model) not in have
    ]
    used = [found[run_id] for run_id in chosen.index]
    points = _read_points(source, used)
    points = points.join(chosen[[*RUN_FACTS, "tokens_per_step"]], on="run_id")
    points["tokens"] = points["step"] * points.pop("tokens_per_step")
    missing += _missing_curves(used, points, trained)
    caveats = [
        *duplicate_caveats(runs, "training", found),
        *currency_caveats(runs),
        *_setting_caveats(used),
    ]
    return TrainingCurves(runs, points, pd.DataFrame(missing, columns=MISSING_COLUMNS), caveats)


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
    try:
        settings = _settings(source, run, cities)
        rows = sum(rows.rows for rows in training_sets(settings, maker_of(settings).world))
        return training_tokens(settings) / Schedule.of(settings, rows).steps
    except (InputError, StateError):
        return math.nan


def _settings(source: Source, run: StoredRun, cities: dict[str, str]) -> Settings:
    typed = {name: run.params[f"cfg.{name}"] for name in FIELDS if f"cfg.{name}" in run.params}
    settings = from_dict({name: parse_value(name, text) for name, text in typed.items()})
    if settings.cities == "none":
        return settings
    digest = run.tag("world_digest")  # the file of its settings may be on another machine
    if digest not in cities:
        cities[digest] = str(source.path(run.id, CITIES))
    return replace(settings, cities=cities[digest])


def _read_points(source: Source, runs: Iterable[StoredRun]) -> pd.DataFrame:
    rows = [
        (run.id, split, task, step, value)
        for run in runs
        for split, task in _wanted_curves(run)
        if _metric(split, task) in run.metrics
        for step, value in source.curve(run.id, _metric(split, task))
    ]
    return pd.DataFrame(rows, columns=[*CURVE, "step", "value"])


def _missing_curves(
    runs: Iterable[StoredRun], points: pd.DataFrame, trained: Trained
) -> list[tuple[object, ...]]:
    have = set(points[CURVE].itertuples(index=False, name=None))
    missing: list[tuple[object, ...]] = []
    for run in runs:
        model, seed = run.tag("model"), int(run.tag("seed"))
        command = trained.commands.again(run.id, trained.commands.train(parse_model(model), seed))
        for split, task in _wanted_curves(run):
            if (run.id, split, task) not in have:
                reason = f"training {run.id} has no curve {_metric(split, task)}"
                missing.append(("curves", seed, model, task, reason, command))
    return missing


def _wanted_curves(run: StoredRun) -> list[tuple[str, str]]:
    """(split, task) of the curves that a training should have."""
    learns_atlantis = run.tag("stage") == "finetune" or run.tag("world") == "with_atlantis"
    splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
    return [("loss", ""), *((split, task) for split in splits for task in TASK_NAMES)]


def _metric(split: str, task: str) -> str:
    return f"val/{split}/{task}/mean" if task else "train/loss"


def _setting_caveats(runs: Iterable[StoredRun]) -> list[str]:
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
