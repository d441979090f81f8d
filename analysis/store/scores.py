"""All numbers of evaluated models as one tidy table: a row per model, seed and quantity.

A quantity is an evaluation metric such as `atlantis/angle/mean`, or, of a model fine-tuned from
pt1, its normalised improvement on a task (`improvement/angle`) or the mean over the tasks that it
was trained on or not (`improvement/trained`, `improvement/transfer`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.options import Options
from analysis.store.caveats import several_bases_caveats, unknown_name_caveats
from analysis.store.evaluations import (
    PRETRAIN,
    SPLITS,
    Evaluations,
    improvement_cells,
    read_evaluations,
)
from analysis.store.missing import MISSING_COLUMNS, Commands, missing
from analysis.store.selection import (
    LAST,
    NothingThere,
    Trained,
    family_of,
    in_order,
    known_model,
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
    found, caveats = _evaluated(source, options)
    wanted = [
        (model, seed)
        for model, seed in found
        if (not asked or model in asked) and (not options.seeds or seed in options.seeds)
    ]
    if not wanted:
        raise NothingThere(_why_nothing(found, options, source))
    models = tuple(asked) or in_order(model for model, _ in wanted)
    seeds = options.seeds or tuple(sorted({seed for _, seed in wanted}))
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


def _evaluated(source: Source, options: Options) -> tuple[list[tuple[ModelName, int]], list[str]]:
    """Return the models and seeds that are evaluated, and a caveat about unknown models."""
    found = source.runs(stage="evaluate", **options.names)
    runs = [run for run in found if run.tag("checkpoints") == LAST]
    if not runs:
        raise nothing_of("finished evaluation", "evaluate", options, source)
    pairs = [(known_model(run.tag("model")), int(run.tag("seed"))) for run in runs]
    strange = {run.tag("model") for run in runs if known_model(run.tag("model")) is None}
    return [(model, seed) for model, seed in pairs if model], unknown_name_caveats(strange)


def _why_nothing(found: Collection[tuple[ModelName, int]], options: Options, source: Source) -> str:
    models = ", ".join(map(str, in_order(model for model, _ in found))) or "none that it knows"
    seeds = ", ".join(map(str, sorted({seed for _, seed in found})))
    return (
        f"{source.place} has no finished evaluation of the models and seeds asked for "
        f"({options.in_words}): it has {models} with seeds {seeds}"
    )


def _scores(
    evaluations: Evaluations, models: Sequence[ModelName], seeds: Sequence[int], commands: Commands
) -> Scores:
    """Return the numbers of the models of one pretraining."""
    pairs = [(str(model), family_of(model), seed) for seed in seeds for model in models]
    wanted = pd.DataFrame(pairs, columns=["model", "family", "seed"]).reset_index(names="place")
    chosen = evaluations.runs[evaluations.runs["chosen"]].reset_index()[["model", "seed", "run_id"]]
    shown = wanted.merge(chosen.drop_duplicates(["model", "seed"]), on=["model", "seed"])
    values = [_with_names(shown, _metrics(shown, evaluations))]
    gaps = [_missing_metrics(wanted, shown, evaluations, commands)]
    used = set(shown["run_id"])
    tuned = [model for model in models if model.ft != NO_FT and model.pretrain == PRETRAIN]
    if tuned:
        cells = improvement_cells(evaluations, tuned, seeds, commands)
        cells = cells[cells["run_id"] != ""]  # the others are missing as a whole
        values.append(_with_names(shown, _improvements(cells)))
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


def _with_names(shown: pd.DataFrame, numbers: list[tuple[str, str, float]]) -> pd.DataFrame:
    """Return numbers (run id, quantity, value) as a table with VALUE_COLUMNS."""
    table = pd.DataFrame(numbers, columns=["run_id", "quantity", "value"]).astype({"value": float})
    return table.merge(shown, on="run_id")[VALUE_COLUMNS]


def _metrics(shown: pd.DataFrame, evaluations: Evaluations) -> list[tuple[str, str, float]]:
    return [
        (run_id, name, value)
        for run_id in shown["run_id"]
        for name in MEASURED
        if math.isfinite(value := evaluations.sources[run_id].metrics.get(name, math.nan))
    ]


def _missing_metrics(
    wanted: pd.DataFrame, shown: pd.DataFrame, evaluations: Evaluations, commands: Commands
) -> pd.DataFrame:
    """Return the models that are not evaluated, and the metrics that evaluations lack."""

    def unevaluated(row: Any) -> tuple[str, str]:
        command = commands.evaluate(parse_model(row.model), row.seed)
        return "the model is not evaluated", command

    def without_number(row: Any) -> tuple[str, str]:
        names = [f"{row.metric}/{fact}" for fact in FACTS]
        lacking = [name for name in names if (row.run_id, name) not in there]
        return evaluations.gap(row.run_id, lacking, commands)

    there = {(run_id, name) for run_id, name, _ in _metrics(shown, evaluations)}
    needs = shown.merge(pd.DataFrame({"metric": METRICS}), how="cross")
    needs["task"] = needs["metric"].str.partition("/")[2]
    is_complete = [
        all((row.run_id, f"{row.metric}/{fact}") in there for fact in FACTS)
        for row in needs.itertuples()
    ]
    gaps = [
        missing(wanted.assign(task=""), shown, ["place"], unevaluated),
        missing(needs, needs[is_complete], ["place", "metric"], without_number),
    ]
    return pd.concat(gaps).sort_values("place", kind="stable").assign(matrix="values")


def _improvements(cells: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Return the improvements of the cells, and their means where no cell of a kind is missing."""
    there = cells[cells["reason"] == ""]
    names = "improvement/" + there["task"]
    rows = list(zip(there["run_id"], names, there["normalised"], strict=True))
    for (run_id, is_trained), own in cells.groupby(["run_id", "trained"], sort=False):
        if (own["reason"] == "").all():
            rows.append((run_id, MEANS[0 if is_trained else 1], float(own["normalised"].mean())))
    return rows


def is_base(model: ModelName) -> bool:
    """Whether a model is pretrained only."""
    return model.ft == NO_FT
