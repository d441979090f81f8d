"""All numbers of evaluated models as one tidy table: a row per model, seed and quantity.

A quantity is an evaluation metric such as `atlantis/angle/mean`, or, of a model fine-tuned from
pt1, its normalised improvement on a task (`improvement/angle`) or the mean over the tasks that it
was trained on or not (`improvement/trained`, `improvement/transfer`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.options import Options
from analysis.store.caveats import several_bases_caveats
from analysis.store.evaluations import (
    PRETRAIN,
    SPLITS,
    Evaluations,
    improvement_cells,
    read_evaluations,
)
from analysis.store.missing import MISSING_COLUMNS, Commands, explained, missing
from analysis.store.selection import (
    LAST,
    NothingThere,
    Trained,
    choose_models,
    family_of,
    nothing_of,
)
from analysis.store.source import Source
from worldrep.names import NO_FT, TASK_NAMES, ModelName, parse_model

METRICS = tuple(f"{split}/{task}" for split in SPLITS for task in TASK_NAMES)
FACTS = ("mean", "valid_ratio")
MEANS = ("improvement/trained", "improvement/transfer")
IMPROVEMENTS = (*(f"improvement/{task}" for task in TASK_NAMES), *MEANS)
MEASURED = tuple(f"{metric}/{fact}" for metric in METRICS for fact in FACTS)
QUANTITIES = (*MEASURED, *IMPROVEMENTS)
VALUE_COLUMNS = ["model", "family", "seed", "quantity", "value", "run_id"]


@dataclass(frozen=True)
class Scores:
    """The numbers of some models and seeds.

    values: the numbers in the store, with VALUE_COLUMNS; runs: the evaluations that they are from,
    with USED_COLUMNS; absent: what the store lacks, as rows of MISSING_COLUMNS.
    """

    values: pd.DataFrame
    models: tuple[ModelName, ...]
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]


def read_scores(source: Source, options: Options, asked: Sequence[ModelName] = ()) -> Scores:
    """Read the numbers of these models, or of all that are evaluated.

    Raises NothingThere if none of them is evaluated.
    """
    found = source.runs(stage="evaluate", **options.names)
    found = [run for run in found if run.tag("checkpoints") == LAST]
    if not found:
        raise nothing_of("finished evaluation", "evaluate", options, source)
    models, seeds, caveats = choose_models(found, asked, "evaluation", options, source)
    trained = Trained.read(source, options)
    parts = []
    for pretrain in dict.fromkeys(model.pretrain for model in models):
        own = [model for model in models if model.pretrain == pretrain]
        names = options.names | {"pretrain": pretrain}
        evaluations = read_evaluations(source, trained, [model.ft for model in own], **names)
        parts.append(_scores(evaluations.of_seeds(seeds), own, seeds, trained.commands))
    values = pd.concat([part.values for part in parts], ignore_index=True)
    if values.empty:
        raise NothingThere(f"the evaluations in {source.place} hold no number ({options.in_words})")
    return Scores(
        values=values,
        models=models,
        seeds=seeds,
        runs=pd.concat([part.runs for part in parts]),
        absent=[row for part in parts for row in part.absent],
        caveats=[*caveats, *(caveat for part in parts for caveat in part.caveats)],
    )


def _scores(
    evaluations: Evaluations, models: Sequence[ModelName], seeds: Sequence[int], commands: Commands
) -> Scores:
    """Return the numbers of the models of one pretraining."""
    pairs = [(str(model), family_of(model), seed) for seed in seeds for model in models]
    wanted = pd.DataFrame(pairs, columns=["model", "family", "seed"]).reset_index(names="place")
    chosen = evaluations.runs[evaluations.runs["chosen"]].reset_index()[["model", "seed", "run_id"]]
    shown = wanted.merge(chosen.drop_duplicates(["model", "seed"]), on=["model", "seed"])
    numbers = _metrics(shown["run_id"], evaluations)
    values = [numbers.merge(shown, on="run_id")[VALUE_COLUMNS]]
    gaps = [_missing_metrics(wanted, shown, numbers, evaluations, commands)]
    used = set(shown["run_id"])
    tuned = [model for model in models if model.ft != NO_FT and model.pretrain == PRETRAIN]
    if tuned:
        cells = improvement_cells(evaluations, tuned, seeds, commands)
        cells = cells[cells["run_id"] != ""]  # the others are missing as a whole
        values.append(_improvements(cells).merge(shown, on="run_id")[VALUE_COLUMNS])
        gaps.append(cells[cells["reason"] != ""].assign(matrix="improvement"))
        used |= set(cells["base_evaluation_id"]) - {""}
    return Scores(
        values=pd.concat(values),
        models=tuple(models),
        seeds=tuple(seeds),
        runs=evaluations.runs.loc[sorted(used)],
        absent=[row for gap in gaps for row in gap[MISSING_COLUMNS].to_dict("records")],
        caveats=[*evaluations.caveats, *several_bases_caveats(wanted, chosen)],
    )


def _metrics(run_ids: Iterable[str], evaluations: Evaluations) -> pd.DataFrame:
    """Return the numbers that the evaluations have: run_id, quantity, value."""
    rows = [
        (run_id, name, evaluations.sources[run_id].metrics.get(name, math.nan))
        for run_id, name in product(run_ids, MEASURED)
    ]
    return _table(row for row in rows if math.isfinite(row[2]))


def _table(rows: Iterable[tuple[str, str, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["run_id", "quantity", "value"])
    return table.astype({"value": float})


def _missing_metrics(
    wanted: pd.DataFrame,
    shown: pd.DataFrame,
    numbers: pd.DataFrame,
    evaluations: Evaluations,
    commands: Commands,
) -> pd.DataFrame:
    """Return the models that are not evaluated, and the metrics that evaluations lack."""

    def unevaluated(row: Any) -> tuple[str, str]:
        command = commands.evaluate(parse_model(row.model), row.seed)
        return "the model is not evaluated", command

    def without_number(row: Any) -> tuple[str, str]:
        return evaluations.gap(row.run_id, [row.quantity], commands)

    models = missing(wanted.assign(task=""), shown, ["place"], unevaluated)
    needs = shown.merge(pd.DataFrame({"quantity": MEASURED}), how="cross")
    needs["metric"] = needs["quantity"].str.rpartition("/")[0]
    lacking = missing(needs, numbers, ["run_id", "quantity"], without_number)
    metrics = needs.drop_duplicates(["run_id", "metric"])
    metrics = metrics.assign(task=metrics["metric"].str.partition("/")[2])
    metrics = explained(metrics, [lacking], ["run_id", "metric"])
    gaps = pd.concat([models, metrics[metrics["reason"] != ""]])
    return gaps.sort_values("place", kind="stable").assign(matrix="values")


def _improvements(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the improvements of the cells, and their means where no cell of a kind is missing."""
    there = cells[cells["reason"] == ""]
    rows = list(
        zip(there["run_id"], "improvement/" + there["task"], there["normalised"], strict=True)
    )
    for (run_id, is_trained), own in cells.groupby(["run_id", "trained"], sort=False):
        if (own["reason"] == "").all():
            rows.append((run_id, MEANS[0 if is_trained else 1], own["normalised"].mean()))
    return _table(rows)


def is_base(model: ModelName) -> bool:
    """Whether a model is pretrained only."""
    return model.ft == NO_FT
