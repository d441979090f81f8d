"""Evaluations at the last checkpoint, and the normalised improvements that follow from them."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Self

import numpy as np
import pandas as pd

from analysis.options import ALL, Options, in_words
from analysis.statistics.matrices import to_matrix
from analysis.store import missing, selection
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import HIGHEST, LOWEST, normalized_improvement
from worldrep.names import (
    NO_FT,
    PRETRAININGS,
    STRATEGIES,
    TASK_NAMES,
    WIDTHS,
    ModelName,
    parse_model,
)
from worldrep.settings import VARIANTS
from worldrep.tracking import Store, StoredRun

PRETRAIN = "pt1"
VALUE_COLUMNS = ["model", "ft", "seed", "split", "task", "value", "run_id"]
CELL_COLUMNS = [
    "model", "ft", "seed", "task", "trained", "value", "base_atlantis", "base_standard",
    "normalised", "normalised_unclipped", "run_id", "model_run_id", "base_run_id",
    "base_evaluation_id", "reason", "command",
]  # fmt: skip
SCORE_COLUMNS = ["model", "family", "seed", "quantity", "value", "run_id"]
SUITES = ("standard", "atlantis", "multi")
FACTS = ("mean", "valid_ratio", "median", "std", "min", "max", "n")  # of a suite, as evaluated
COMPARED_FACTS = FACTS[:2]
MEANS = ("improvement/trained", "improvement/transfer")
IMPROVEMENTS = (*(f"improvement/{task}" for task in TASK_NAMES), *MEANS)
QUANTITIES = (*map("/".join, product(SUITES, TASK_NAMES, COMPARED_FACTS)), *IMPROVEMENTS)
TIDY_COLUMNS = [
    "model", "seed", "width", "world", "strategy", "suite", "task", "metric", "value", "run_id",
    "model_id",
]  # fmt: skip


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of some models and their bases.

    values: the means, one row per chosen run, split and task, with VALUE_COLUMNS; runs: table of
    `choose` with base_evaluation_id and base_fault (why there is none), else empty; sources: run id
    -> run. A base is chosen once for each of its trainings: models with one seed may start from
    different ones.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    sources: Mapping[str, StoredRun]
    trained: selection.Trained

    @property
    def bases(self) -> pd.DataFrame:
        return self.runs[self.runs["chosen"] & (self.runs["ft"] == NO_FT)]

    @property
    def finetuned(self) -> pd.DataFrame:
        return self.runs[self.runs["chosen"] & (self.runs["ft"] != NO_FT)]

    @property
    def caveats(self) -> list[str]:
        """Sentences that a reader of the numbers has to know."""
        return [
            *missing.run_caveats(self.runs, "evaluation", self.sources),
            *missing.base_caveats(self.bases),
            *missing.weak_base_caveats(self.sources[run_id] for run_id in self.bases.index),
        ]

    def of_seeds(self, seeds: Collection[int]) -> Self:
        values, runs = (table[table["seed"].isin(seeds)] for table in (self.values, self.runs))
        return replace(self, values=values, runs=runs)

    def gap(self, run_id: str, names: Iterable[str]) -> tuple[str, str]:
        """Return why an evaluation lacks some numbers, and the command that computes them."""
        again = self.trained.to_evaluate_run(self.runs["model_run_id"][run_id])
        reason = f"evaluation {run_id} has no number {', '.join(names)}"
        return reason, self.trained.again(run_id, again)


def read_evaluations(
    source: Source,
    trained: selection.Trained,
    models: Iterable[ModelName],
    only: Collection[str] | None = None,
    **names: str,
) -> Evaluations:
    """Read the evaluations of some models and of their bases, with the tags `names`.

    only: run ids to choose from. Raises StateError if the store cannot be read.
    """
    wanted = {str(name) for model in models for name in (model, model.base)}
    found = {
        run.id: run
        for run in source.runs(stage="evaluate", **names)
        if run.tag("checkpoints") == selection.LAST
        and run.tag("model") in wanted
        and (only is None or run.id in only)
    }
    runs = selection.run_table(found.values(), trained.current)
    runs["training"] = runs["model_run_id"].where(runs["ft"] == NO_FT, "")
    runs = selection.choose(runs, "evaluation", keys=("model", "seed", "training")).drop(
        columns="training"
    )
    chosen = runs[runs["chosen"]].reset_index()
    values = _with_numbers(_metrics(["mean"]).merge(chosen, how="cross"), found)
    return Evaluations(
        values.dropna(subset="value")[VALUE_COLUMNS], _with_bases(runs), found, trained
    )


def _metrics(facts: Iterable[str]) -> pd.DataFrame:
    """Return one row for each suite, task and fact; quantity: such as `atlantis/angle/mean`."""
    table = pd.DataFrame(product(SUITES, TASK_NAMES, facts), columns=["split", "task", "fact"])
    return table.assign(quantity=table.agg("/".join, axis=1))


def _with_numbers(metrics: pd.DataFrame, runs: Mapping[str, StoredRun]) -> pd.DataFrame:
    """Add the value of each quantity of a run; NaN if it is not there or not finite."""
    own = {run_id: run.metrics for run_id, run in runs.items()}
    names = zip(metrics["run_id"], metrics["quantity"], strict=True)
    values = pd.Series([own.get(run_id, {}).get(name) for run_id, name in names], dtype=float)
    return metrics.assign(value=values.where(np.isfinite(values)).to_numpy())


def _with_bases(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the evaluation of each fine-tuned model's base, or the reason why there is none."""
    is_base = runs["ft"] == NO_FT
    runs = runs.assign(base=runs["model"].str.split("_").str[0])
    bases = runs[runs["chosen"] & is_base].reset_index().sort_values("model_run_id")
    own = bases.set_index(["seed", "model_run_id"])["run_id"].rename("base_evaluation_id")
    others = bases.groupby(["base", "seed"])["model_run_id"].agg(", ".join).rename("others")
    runs = runs.join(own, on=["seed", "base_run_id"]).join(others, on=["base", "seed"])
    runs["base_evaluation_id"] = runs["base_evaluation_id"].fillna("").mask(is_base, "")
    faults = {
        "": is_base | (runs["base_evaluation_id"] != ""),
        "its base is not evaluated": runs["others"].isna(),
        "the run does not say which base it started from": runs["base_run_id"] == "",
    }
    other = "its base (run " + runs["base_run_id"] + ") is not evaluated, but run "
    fault = np.select([*faults.values()], [*faults], other + runs["others"] + " of its name is")
    return runs.drop(columns=["base", "others"]).assign(base_fault=fault)


def improvement_cells(
    evaluations: Evaluations, models: Sequence[ModelName], seeds: Iterable[int]
) -> pd.DataFrame:
    """Return one row for each model, seed and task, present or not, with CELL_COLUMNS.

    value: score on Atlantis; normalised: normalised improvement, clipped; reason: why the value is
    missing, or empty; command: computes a missing value.
    """
    wanted = [
        (str(model), model.ft, seed, task, task in model.tasks)
        for seed, model, task in product(seeds, models, TASK_NAMES)
    ]
    cells = pd.DataFrame(wanted, columns=CELL_COLUMNS[:5]).astype({"seed": int, "trained": bool})
    texts = ["run_id", "model_run_id", "base_run_id", "base_evaluation_id", "base_fault"]
    runs = evaluations.finetuned.reset_index()[["model", "seed", *texts]]
    cells = cells.merge(runs, how="left", on=["model", "seed"]).fillna(dict.fromkeys(texts, ""))
    values = evaluations.values.pivot(index=["run_id", "task"], columns="split", values="value")
    values = values.reindex(columns=["atlantis", "standard"])
    cells = cells.join(values["atlantis"].rename("value"), on=["run_id", "task"])
    cells = cells.join(values.add_prefix("base_"), on=["base_evaluation_id", "task"])
    accuracies = [TASKS[task].accuracy for task in cells["task"]]
    numbers = cells["value"], cells["base_atlantis"], cells["base_standard"], accuracies
    cells["normalised_unclipped"] = [*map(partial(normalized_improvement, clip=False), *numbers)]
    cells["normalised"] = cells["normalised_unclipped"].clip(LOWEST, HIGHEST)
    cells["based"] = cells["seed"].isin(evaluations.bases["seed"])
    why = partial(_why_missing, evaluations=evaluations)
    gaps = missing.with_reasons(cells[cells["normalised"].isna()], why)[["reason", "command"]]
    return cells.join(gaps).fillna({"reason": "", "command": ""})[CELL_COLUMNS]


def _why_missing(cell: Any, evaluations: Evaluations) -> tuple[str, str]:
    """Return the reasons why a cell is missing, and the commands that compute it."""
    trained, model = evaluations.trained, parse_model(cell.model)
    gaps = {}  # reason -> command
    if not cell.run_id:
        if not cell.based:
            gaps["its base is not evaluated"] = trained.to_evaluate(model.base, cell.seed)
        gaps["the model is not evaluated"] = trained.to_evaluate(model, cell.seed)
    for run_id, split, value in (
        (cell.run_id, "atlantis", cell.value),
        (cell.base_evaluation_id, "atlantis", cell.base_atlantis),
        (cell.base_evaluation_id, "standard", cell.base_standard),
    ):
        if run_id and not math.isfinite(value):
            reason, command = evaluations.gap(run_id, [f"{split}/{cell.task}/mean"])
            gaps[reason] = command
    if cell.base_fault:
        gaps[cell.base_fault] = trained.to_evaluate_base(model, cell.seed, cell.base_run_id)
    return "; ".join(gaps), " && ".join(dict.fromkeys(gaps.values()))


@dataclass(frozen=True)
class Improvements:
    """Normalised improvements of some fine-tunings. cells: table of `improvement_cells`."""

    cells: pd.DataFrame
    evaluations: Evaluations
    seeds: tuple[int, ...]
    caveats: list[str]

    def matrices(self, fts: Sequence[str]) -> dict[int, pd.DataFrame]:
        """Return the matrix of some fine-tunings for each seed."""
        return {seed: to_matrix(self.cells, fts, seed) for seed in self.seeds}

    @property
    def runs_used(self) -> pd.DataFrame:
        """The evaluations of the cells, and why they were chosen."""
        used = {*self.cells["run_id"], *self.cells["base_evaluation_id"]}
        return selection.used_runs(self.evaluations.runs, used)


def read_improvements(
    source: Source, options: Options, fts: Sequence[str], *, only: Collection[str] | None = None
) -> Improvements:
    """Read the improvements of models that are fine-tuned from pt1.

    only: run ids of the evaluations to choose from. Raises NothingThere if no seed has both a base
    and a fine-tuned model.
    """
    trained = selection.Trained.read(source, options, pretrain=PRETRAIN)
    models = [ModelName(PRETRAIN, ft, options.width, options.strategy) for ft in fts]
    names = options.names | {"pretrain": PRETRAIN}
    evaluations = read_evaluations(source, trained, models, only, **names)
    seeds, caveats = _choose_seeds(evaluations, options, source)
    evaluations = evaluations.of_seeds(seeds)
    cells = improvement_cells(evaluations, models, seeds)
    caveats = [*source.caveats, *caveats, *evaluations.caveats]
    return Improvements(cells, evaluations, seeds, caveats)


def _choose_seeds(
    evaluations: Evaluations, options: Options, source: Source
) -> tuple[tuple[int, ...], list[str]]:
    """Return the seeds of the options, else all with a fine-tuned model; and caveats about them."""
    based, tuned = set(evaluations.bases["seed"]), set(evaluations.finetuned["seed"])
    asked = set(options.seeds) or tuned
    if evaluations.runs.empty:
        raise selection.nothing_of("finished evaluation", options.in_words, source, "evaluate")
    if not asked & based & tuned:
        listed = [", ".join(map(str, sorted(own))) or "none" for own in (asked, based, tuned)]
        raise selection.NothingThere(
            f"{source.place} has no seed with both an evaluated base and a fine-tuned model"
            f"{f' among {listed[0]}' if options.seeds else ''} ({options.in_words}); seeds with a "
            f"base: {listed[1]}; with a fine-tuned model: {listed[2]}"
        )
    left_out = sorted(based - tuned - asked)
    return tuple(sorted(asked)), [
        *(f"seed {seed} is left out: only its base is evaluated" for seed in left_out),
        *(f"seed {seed} has no evaluated base" for seed in sorted(asked - based)),
        *(f"seed {seed} has no fine-tuned model" for seed in sorted(asked - tuned)),
    ]


@dataclass(frozen=True)
class Scores:
    """All numbers of some models and seeds.

    values: one row per model, seed and quantity, with SCORE_COLUMNS; a quantity is an evaluation
    metric or, of a model fine-tuned from pt1, one of IMPROVEMENTS. runs: the evaluations that they
    are from; absent: what the store lacks, as rows of MISSING_COLUMNS.
    """

    values: pd.DataFrame
    models: tuple[ModelName, ...]
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    absent: list[dict[str, Any]]
    caveats: list[str]


def read_scores(
    source: Source,
    options: Options,
    asked: Sequence[ModelName] = (),
    facts: Sequence[str] = COMPARED_FACTS,
) -> Scores:
    """Read these facts of these models, or of all. Raises NothingThere if none is evaluated."""
    every = source.runs(stage="evaluate", **options.names)
    found = [run for run in every if run.tag("checkpoints") == selection.LAST]
    if not found:
        raise selection.nothing_of("finished evaluation", options.in_words, source, "evaluate")
    models, seeds, caveats = selection.choose_models(found, asked, "evaluation", options, source)
    trained = selection.Trained.read(source, options)
    evaluations = read_evaluations(source, trained, models, **options.names).of_seeds(seeds)
    pairs = [(str(model), selection.family_of(model), seed) for seed in seeds for model in models]
    chosen = evaluations.runs[evaluations.runs["chosen"]].reset_index()
    chosen = chosen[["model", "seed", "run_id"]].drop_duplicates(["model", "seed"])
    shown = pd.DataFrame(pairs, columns=["model", "family", "seed"]).merge(chosen, how="left")
    shown = shown.fillna({"run_id": ""})
    metrics = _with_numbers(shown.merge(_metrics(facts), how="cross"), evaluations.sources)
    tuned = [model for model in models if model.ft != NO_FT and model.pretrain == PRETRAIN]
    cells = improvement_cells(evaluations, tuned, seeds)
    cells = cells[cells["run_id"] != ""]  # the others are missing as a whole
    values = pd.concat([metrics, _improvements(cells).merge(shown)]).dropna(subset="value")
    if values.empty:
        raise selection.NothingThere(
            f"the evaluations in {source.place} hold no number ({options.in_words})"
        )
    places = {str(model): [*PRETRAININGS].index(model.pretrain) for model in models}
    values = values.sort_values("model", key=lambda own: own.map(places), kind="stable")
    runs = evaluations.runs.loc[sorted({*shown["run_id"], *cells["base_evaluation_id"]} - {""})]
    absent = _missing_scores(metrics, cells, evaluations)
    values = values[SCORE_COLUMNS].reset_index(drop=True)
    return Scores(values, models, seeds, runs, absent, caveats + evaluations.caveats)


def load_evaluations(
    scale: str = "mini",
    *,
    width: str = ALL,
    world: str = ALL,
    strategy: str = ALL,
    seeds: Iterable[int] = (),
    experiment: str | None = None,
) -> pd.DataFrame:
    """Load the numbers of the evaluated models of a scale as a tidy frame.

    Args:
        scale: Scale of the models, such as `mini`.
        width: Their width, or `all`.
        world: Their world, or `all`.
        strategy: The strategy that they were fine-tuned by, or `all`; a base counts as `plain`.
        seeds: Their seeds; empty for all.
        experiment: MLflow experiment; None for the active one, or `worldrep`.

    Returns:
        One row for each number of the evaluation that stands for a model and seed, with
        TIDY_COLUMNS; `attrs["caveats"]` has sentences that a reader of the numbers has to know.

    Raises:
        InputError: There is no such name or experiment.
        StateError: The store cannot be read, or has no such evaluation.
    """
    names = {"width": width, "world": world, "strategy": strategy}
    named: dict[str, Any] = {"scale": scale}
    named |= {key: value for key, value in names.items() if value != ALL}
    options = Options(experiment=experiment, seeds=tuple(seeds), **named)
    source = Source(Store.connect(experiment, create=False))
    tables, caveats, faults = [], [], []
    for own in _kinds(source, options, named):
        try:
            found = read_scores(source.tuned_by(own.strategy), own, facts=FACTS)
        except selection.NothingThere as fault:  # of these seeds
            faults.append(fault)
        else:
            tables.append(_tidy(found, own))
            caveats += found.caveats
    tables = [table for table in tables if len(table)]
    if not tables:
        kind = "finished evaluation", in_words(named)
        raise (faults or [selection.nothing_of(*kind, source, "evaluate")])[0]
    table = pd.concat(tables, ignore_index=True)
    table.attrs["caveats"] = list(dict.fromkeys(source.caveats + caveats))
    return table


def _kinds(source: Source, options: Options, named: Mapping[str, str]) -> list[Options]:
    """Return the options with each width, world and strategy of the store that fits the names."""
    keys = ("width", "world", "strategy")
    found = {
        tuple(run.tag(key) for key in keys)
        for strategy in STRATEGIES
        for run in source.tuned_by(strategy).runs(stage="evaluate", scale=options.scale)
    }
    known = [kind for kind in product(WIDTHS, VARIANTS, STRATEGIES) if kind in found]
    kinds: list[dict[str, Any]] = [dict(zip(keys, kind, strict=True)) for kind in known]
    every = [replace(options, **kind) for kind in kinds]
    return [own for own in every if named.items() <= own.all_names.items()]


def _tidy(found: Scores, options: Options) -> pd.DataFrame:
    """Return the scores with TIDY_COLUMNS; those of bases if the strategy is plain."""
    values = found.values.join(found.runs["model_id"], on="run_id").assign(**options.all_names)
    strategies = values["model"].map(lambda name: parse_model(name).strategy)
    values = values[strategies == options.strategy]
    improvement = r"^improvement/(.*)", r"atlantis/\1/improvement"
    quantities = values["quantity"].astype("str").str.replace(*improvement, regex=True)
    parts = quantities.str.extract("(?P<suite>.*)/(?P<task>.*)/(?P<metric>.*)")
    return values.join(parts)[TIDY_COLUMNS]


def _improvements(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the improvements and their means of each run, where no cell is missing."""
    means = cells["trained"].map({True: MEANS[0], False: MEANS[1]})
    every = [cells.assign(quantity="improvement/" + cells["task"]), cells.assign(quantity=means)]
    groups = pd.concat(every).groupby(["run_id", "quantity"], sort=False)["normalised"]
    values = groups.mean()[groups.count() == groups.size()]
    return values.rename("value").reset_index()


def _missing_scores(
    metrics: pd.DataFrame, cells: pd.DataFrame, evaluations: Evaluations
) -> list[dict[str, Any]]:
    """Return the models without an evaluation, and the numbers that evaluations lack."""
    to_evaluate = evaluations.trained.to_evaluate

    def why(row: Any) -> tuple[str, str]:
        if row.run_id:
            return evaluations.gap(row.run_id, row.quantity)
        return "the model is not evaluated", to_evaluate(parse_model(row.model), row.seed)

    lacking = metrics[metrics["value"].isna()].copy()
    lacking.loc[lacking["run_id"] == "", ["split", "task"]] = ""  # one row for all numbers
    suites = lacking.groupby(["model", "seed", "run_id", "split", "task"], sort=False)["quantity"]
    gaps = missing.with_reasons(suites.agg(list).reset_index(), why).assign(matrix="values")
    gaps = pd.concat([gaps, cells[cells["reason"] != ""].assign(matrix="improvement")])
    return gaps[missing.MISSING_COLUMNS].to_dict("records")
