"""All numbers of evaluated models in one tidy table: a row for each model, seed and quantity.

A quantity is an evaluation metric such as `atlantis/angle/mean`, or of models fine-tuned from pt1
the normalised improvement on a task (`improvement/angle`) and its means over the tasks that the
model was trained on and the others (`improvement/trained`, `improvement/transfer`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.options import Options
from analysis.store.cells import improvement_cells
from analysis.store.choice import NothingThere, nothing_of
from analysis.store.commands import Commands
from analysis.store.evaluations import SPLITS, Evaluations, read_evaluations
from analysis.store.improvements import PRETRAIN
from analysis.store.models import family_of, in_order, known_model
from analysis.store.source import Source
from analysis.store.trainings import Trained
from worldrep.names import FINETUNINGS, NO_FT, TASK_NAMES, ModelName, parse_model

METRICS = tuple(f"{split}/{task}" for split in SPLITS for task in TASK_NAMES)
FACTS = ("mean", "valid_ratio")
MEANS = ("improvement/trained", "improvement/transfer")
IMPROVEMENTS = (*(f"improvement/{task}" for task in TASK_NAMES), *MEANS)
QUANTITIES = (*(f"{metric}/{fact}" for metric in METRICS for fact in FACTS), *IMPROVEMENTS)
VALUE_COLUMNS = ["model", "family", "seed", "quantity", "value", "run_id"]


@dataclass(frozen=True)
class Scores:
    """What was read.

    values: VALUE_COLUMNS, only what is there; models and seeds: those that it is about; runs: the
    evaluations that were used, with USED_COLUMNS; absent: what the store lacks, as rows of
    MISSING_COLUMNS; caveats: what a reader has to know.
    """

    values: pd.DataFrame
    models: tuple[ModelName, ...]
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]


def read_scores(source: Source, options: Options, asked: Sequence[ModelName] = ()) -> Scores:
    """The numbers of these models, or of all that are evaluated. Raises NothingThere for none."""
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
        fts = [model.ft for model in own]
        names = options.names | {"pretrain": pretrain}
        evaluations = read_evaluations(source, trained, fts, **names).of_seeds(seeds)
        parts.append(_Reader(evaluations, own, seeds, trained.commands).scores())
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
    """Which models and seeds have an evaluation of the last checkpoint, and a caveat about others.

    Raises NothingThere when there is no evaluation at all.
    """
    runs = [
        run
        for run in source.runs(stage="evaluate", **options.names)
        if run.tag("checkpoints") in ("", "last")
    ]
    if not runs:
        raise nothing_of("finished evaluation", "evaluate", options, source)
    pairs = [(known_model(run.tag("model")), int(run.tag("seed"))) for run in runs]
    strange = sorted({run.tag("model") for run in runs if known_model(run.tag("model")) is None})
    text = f"left out, as this version does not know their names: {', '.join(strange)}"
    return [(model, seed) for model, seed in pairs if model], [text] if strange else []


def _why_nothing(found: Collection[tuple[ModelName, int]], options: Options, source: Source) -> str:
    models = ", ".join(map(str, in_order(model for model, _ in found))) or "none that it knows"
    seeds = ", ".join(map(str, sorted({seed for _, seed in found})))
    return (
        f"{source.place} has no finished evaluation of the models and seeds asked for "
        f"({options.in_words}): it has {models} with seeds {seeds}"
    )


class _Reader:
    """Reads the models of one pretraining."""

    def __init__(
        self,
        evaluations: Evaluations,
        models: Sequence[ModelName],
        seeds: Sequence[int],
        commands: Commands,
    ) -> None:
        self._evaluations, self._models, self._seeds = evaluations, models, seeds
        self._commands = commands
        self._values: list[tuple[str, str, int, str, float, str]] = []
        self._absent: list[dict[str, Any]] = []
        self._caveats: list[str] = list(evaluations.caveats)

    def scores(self) -> Scores:
        used = self._read_metrics()
        tuned = [m for m in self._models if m.ft in FINETUNINGS and m.pretrain == PRETRAIN]
        if tuned:
            used |= self._read_improvements(tuned)
        return Scores(
            values=pd.DataFrame(self._values, columns=VALUE_COLUMNS),
            models=tuple(self._models),
            seeds=tuple(self._seeds),
            runs=self._evaluations.runs.loc[sorted(used)],
            absent=self._absent,
            caveats=self._caveats,
        )

    def _read_metrics(self) -> set[str]:
        """The metrics of each model and seed; the evaluations that they are of."""
        runs = self._evaluations.runs
        by_name: dict[tuple[str, int], list[str]] = {}
        for run in runs[runs["chosen"]].itertuples():
            by_name.setdefault((str(run.model), int(run.seed)), []).append(str(run.Index))
        used = set()
        for seed in self._seeds:
            for model in self._models:
                found = by_name.get((str(model), seed), [])
                if not found:
                    command = self._commands.evaluate(model, seed)
                    self._miss("values", model, seed, "", "the model is not evaluated", command)
                    continue
                if len(found) > 1:
                    others = ", ".join(found[1:])
                    text = f"of several {model} seed {seed}, {found[0]} is shown, not {others}"
                    self._caveats.append(text)
                used.add(found[0])
                self._read_run(model, seed, found[0])
        return used

    def _read_run(self, model: ModelName, seed: int, run_id: str) -> None:
        metrics = self._evaluations.sources[run_id].metrics
        for metric in METRICS:
            names = [f"{metric}/{fact}" for fact in FACTS]
            lacking = [name for name in names if not math.isfinite(metrics.get(name, math.nan))]
            for name in names:
                if name not in lacking:
                    self._add(model, seed, name, metrics[name], run_id)
            if lacking:
                reason, command = self._evaluations.gap(run_id, lacking, self._commands)
                task = metric.partition("/")[2]
                self._miss("values", model, seed, task, reason, command)

    def _read_improvements(self, models: Sequence[ModelName]) -> set[str]:
        """The improvements of fine-tuned models; the evaluations of their bases."""
        cells = improvement_cells(self._evaluations, models, self._seeds, self._commands)
        cells = cells[cells["run_id"] != ""]  # the others are missing as a whole
        for cell in cells.itertuples():
            model, seed = parse_model(str(cell.model)), int(cell.seed)
            if cell.reason:
                self._miss("improvement", model, seed, cell.task, cell.reason, cell.command)
            else:
                name = f"improvement/{cell.task}"
                self._add(model, seed, name, cell.normalised, cell.run_id)
        for (name, seed, trained), own in cells.groupby(["model", "seed", "trained"], sort=False):
            if not (own["reason"] != "").any():
                kind = MEANS[0] if trained else MEANS[1]
                mean = float(own["normalised"].mean())
                self._add(parse_model(str(name)), int(seed), kind, mean, own["run_id"].iloc[0])
        return set(cells["base_evaluation_id"]) - {""}

    def _add(self, model: ModelName, seed: int, name: str, value: float, run_id: str) -> None:
        self._values.append((str(model), family_of(model), seed, name, float(value), run_id))

    def _miss(
        self, matrix: str, model: ModelName, seed: int, task: str, reason: str, command: str
    ) -> None:
        names = {"matrix": matrix, "model": str(model), "seed": seed, "task": task}
        self._absent.append(names | {"reason": reason, "command": command})


def is_base(model: ModelName) -> bool:
    return model.ft == NO_FT
