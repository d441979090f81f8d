"""What trainings logged: their curves as a tidy table, each point with the run it comes from.

Where there are several trainings of one model and seed, one of the model as its name stands today
is preferred, then the newest. Tokens are not logged with the steps: they are counted as steps times
the mean number of real tokens in a step of this training, from the lengths of a sample of its rows
(`worldrep.studies.report`, about 1% off).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.store.caveats import currency_caveats, duplicate_caveats, setting_caveats
from analysis.store.missing import Commands
from analysis.store.selection import Trained, choose, family_of, known_model, run_table
from analysis.store.source import Source
from worldrep.data.sets import maker_of, training_sets
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.settings import FIELDS, Settings, from_dict, parse_value
from worldrep.studies.remaining import training_tokens
from worldrep.tracking import CITIES, StoredRun
from worldrep.training.feed import Schedule

LOSS = "train/loss"
POINT_COLUMNS = ["run_id", "split", "task", "step", "value"]


@dataclass(frozen=True)
class TrainingCurves:
    """What was read.

    runs: one row per training that would do, indexed by run_id: as of `choose`, family, stage,
    val_rows and tokens_per_step; points: POINT_COLUMNS, tokens, and model, family, stage, seed of
    the run; split is "loss" (task empty) or that of a validation suite; absent: models and curves
    that the store lacks, with reason and command.
    """

    runs: pd.DataFrame
    points: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]


def read_curves(
    source: Source,
    trained: Trained,
    models: Sequence[ModelName],
    seeds: Collection[int],
) -> TrainingCurves:
    """The curves of these models and seeds, as far as they are trained.

    Raises StateError when the store does not answer.
    """
    wanted = {(str(model), seed) for model in models for seed in seeds}
    found = {
        run_id: run
        for run_id, run in trained.runs.items()
        if (run.tag("model"), int(run.tag("seed"))) in wanted
    }
    table = choose(_run_table(source, found.values(), trained), "training")
    places = {(str(model), seed): (i, seed) for i, model in enumerate(models) for seed in seeds}
    chosen = [found[run_id] for run_id in table.index[table["chosen"]]]
    chosen.sort(key=lambda run: places[run.tag("model"), int(run.tag("seed"))])
    have = {(run.tag("model"), int(run.tag("seed"))) for run in chosen}
    absent = [
        {
            "model": str(model),
            "seed": seed,
            "task": "",
            "reason": "the model is not trained",
            "command": trained.commands.train(model, seed),
        }
        for seed in seeds
        for model in models
        if (str(model), seed) not in have
    ]
    points, gaps = _read_points(source, chosen, trained.commands)
    facts = ["model", "family", "stage", "seed", "tokens_per_step"]
    points = points.join(table[facts], on="run_id")
    caveats = [
        *duplicate_caveats(table, "training", found),
        *currency_caveats(table),
        *same_settings_caveats(chosen),
    ]
    points["tokens"] = points["step"] * points.pop("tokens_per_step")
    return TrainingCurves(table, points, [*absent, *gaps], caveats)


def _run_table(source: Source, runs: Collection[StoredRun], trained: Trained) -> pd.DataFrame:
    tokens = _TokenCounts(source)
    return run_table(runs, trained.current).assign(
        family=[family_of(parse_model(run.tag("model"))) for run in runs],
        stage=[run.tag("stage") for run in runs],
        val_rows=[float(run.params.get("cfg.val_rows", math.nan)) for run in runs],
        tokens_per_step=[tokens.per_step(run) for run in runs],
    )


def _read_points(
    source: Source, runs: Iterable[StoredRun], commands: Commands
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All points of the curves of some runs, and the curves that they lack."""
    rows: list[tuple[str, str, str, int, float]] = []
    gaps = []
    for run in runs:
        model, seed = parse_model(run.tag("model")), int(run.tag("seed"))
        for split, task in _curves_of(run):
            metric = f"val/{split}/{task}/mean" if task else LOSS
            curve = source.curve(run.id, metric) if metric in run.metrics else []
            rows += [(run.id, split, task, step, value) for step, value in curve]
            if not curve:
                again = commands.again(run.id, commands.train(model, seed))
                reason = f"training {run.id} has no curve {metric}"
                gap = {"model": str(model), "seed": seed, "task": task, "reason": reason}
                gaps.append(gap | {"command": again})
    return pd.DataFrame(rows, columns=POINT_COLUMNS), gaps


def _curves_of(run: StoredRun) -> list[tuple[str, str]]:
    """(split, task) of the curves that a training should have."""
    learns_atlantis = run.tag("stage") == "finetune" or run.tag("world") == "with_atlantis"
    splits = ("standard", "atlantis") if learns_atlantis else ("standard",)
    return [("loss", ""), *((split, task) for split in splits for task in TASK_NAMES)]


class _TokenCounts:
    """Real tokens in a mean step of a training; NaN where its settings do not say."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._cities: dict[str, str] = {}  # world digest -> file of its cities

    def per_step(self, run: StoredRun) -> float:
        try:
            settings = self._settings(run)
            sets = training_sets(settings, maker_of(settings).world)
            rows = sum(rows.rows for rows in sets)
            schedule = Schedule.of(settings, rows)
            return training_tokens(settings) / schedule.steps
        except (InputError, StateError):
            return math.nan

    def _settings(self, run: StoredRun) -> Settings:
        typed = {name: run.params[f"cfg.{name}"] for name in FIELDS if f"cfg.{name}" in run.params}
        settings = from_dict({name: parse_value(name, text) for name, text in typed.items()})
        if settings.cities == "none":
            return settings
        digest = run.tag("world_digest")  # the file of its settings may be on another machine
        if digest not in self._cities:
            self._cities[digest] = str(self._source.path(run.id, CITIES))
        return replace(settings, cities=self._cities[digest])


def same_settings_caveats(runs: Iterable[StoredRun]) -> list[str]:
    """What models differ in that are of one family, and the cities in which all of them differ.

    Models of other families are trained differently on purpose.
    """
    families: dict[str, list[StoredRun]] = {}
    digests: dict[str, str] = {}
    for run in runs:
        model = known_model(run.tag("model"))
        families.setdefault(family_of(model) if model else "", []).append(run)
        if run.tag("world_digest"):
            digests.setdefault(
                run.tag("world_digest"), f"{run.tag('model')} seed {run.tag('seed')}"
            )
    caveats = [caveat for group in families.values() for caveat in setting_caveats(group)]
    if len(digests) > 1:
        caveats.append(f"not all models have the same cities: {' and '.join(digests.values())}")
    return list(dict.fromkeys(caveats))
