"""How models learn: training and validation curves of many runs, and when each task is learnt."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import product

import pandas as pd

from analysis.command import analysis_command
from analysis.dynamics.charts import ALIGN, charts
from analysis.dynamics.statistics import breakouts
from analysis.options import ALL, Options
from analysis.result import Result
from analysis.store import selection
from analysis.store.missing import (
    MISSING_COLUMNS,
    currency_caveats,
    duplicate_caveats,
    setting_caveats,
)
from analysis.store.source import Source
from worldrep.data.rows import RowMaker
from worldrep.data.sets import Schedule, maker_of, training_sets
from worldrep.data.world import load_world
from worldrep.errors import InputError, StateError, check_name
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.settings import (
    FIELDS,
    NO_CITIES,
    OVERRIDABLE,
    TRAINING_STAGES,
    from_dict,
    parse_names,
)
from worldrep.stages.estimate import training_tokens
from worldrep.tracking import CITIES, StoredRun

NAME = "dynamics"
NO_SETTING = "none"


def dynamics(
    source: Source, options: Options, models: str = ALL, align: str = "step", by: str = NO_SETTING
) -> Result:
    """Plot curves and break-out steps of finished trainings.

    models: names such as `pt1,pt1_ftwb1-1..7`, or all; align: unit of the x axis, step or tokens;
    by: settings such as `optimizer,learning_rate`, whose values tell trainings of one model apart.
    Raises InputError for an unknown name, NothingThere if none of the models is trained.
    """
    check_name("align", align, ALIGN)
    compared = _settings_named(by)
    asked = selection.named_models(models, options)
    trained = selection.Trained.read(source, options)
    if not trained.runs:
        raise selection.nothing_of("finished training", options.in_words, source, *TRAINING_STAGES)
    kept, seeds, strangers = selection.choose_models(
        [*trained.runs.values()], asked, "training", options, source
    )
    points, runs, missing, caveats = _read_curves(source, trained, kept, seeds, compared)
    if points.empty:
        raise selection.NothingThere(
            f"the trainings in {source.place} hold no curve ({options.in_words})"
        )
    broken = breakouts(points, runs)
    chosen = runs[runs["chosen"]]
    tokens = _token_caveats(chosen) if align == "tokens" else []
    return Result(
        name=NAME, options=options, seeds=seeds, parts=charts(points, chosen, broken, align),
        missing=missing, runs_used=selection.used_runs(chosen, chosen.index),
        caveats=[*strangers, *caveats, *tokens], tables={"breakout": broken},
        tags={"models": models, "align": align, "by": by},
    )  # fmt: skip


def _settings_named(text: str) -> tuple[str, ...]:
    """Parse `optimizer,learning_rate` to names of settings, and `none` to ()."""
    names = parse_names(text) if text.strip() != NO_SETTING else ()
    for name in names:
        check_name("setting", name, OVERRIDABLE)
    return names


def _token_caveats(chosen: pd.DataFrame) -> list[str]:
    caveats = [
        "tokens are not logged with the steps: they are steps times the mean number of real "
        "tokens in a step, from the lengths of a sample of the rows (about 1% off)"
    ]
    lacking = chosen[chosen["tokens_per_step"].isna()]
    names = ", ".join(lacking["model"] + " seed " + lacking["seed"].astype(str))
    return caveats + ([f"{names}: how many tokens a step has is not known"] if names else [])


def _read_curves(
    source: Source,
    trained: selection.Trained,
    models: Sequence[ModelName],
    seeds: Collection[int],
    compared: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """Read the curves of these models and seeds: points, runs, what is missing, caveats.

    points: run_id, split ("loss", or that of a validation suite), task (empty for the loss), step,
    value, model, label, family, stage, seed, tokens; runs: finished trainings by run_id, columns
    of `choose`, label (model, and the values of the settings that are compared), family, stage,
    val_rows, tokens_per_step (estimated, about 1% off). Of several of a label and seed, one that
    matches the current code and settings is preferred, then the newest.
    """
    names = [*map(str, models)]
    rows = [(seed, str(m), trained.to_train(m, seed)) for seed, m in product(seeds, models)]
    wanted = pd.DataFrame(rows, columns=["seed", "model", "command"])
    found = {
        run_id: run
        for run_id, run in trained.runs.items()
        if int(run.tag("seed")) in seeds and run.tag("model") in names
    }
    table = _run_table(source, found.values(), trained, compared)
    runs = selection.choose(table, "training", keys=("label", "seed"))
    wanted = wanted.merge(runs[runs["chosen"]].reset_index(), "left", ["seed", "model"])
    untrained = wanted[wanted["run_id"].isna()].assign(reason="the model is not trained", task="")
    chosen = wanted.dropna(subset=["run_id"])
    chosen = chosen.sort_values("model", key=lambda own: own.map(names.index), kind="stable")
    points, lacking = _read_points(source, [found[run_id] for run_id in chosen["run_id"]])
    facts = ["run_id", "model", "label", "family", "stage", "seed", "tokens_per_step"]
    points = points.merge(chosen[facts], "left")
    points["tokens"] = points["step"] * points.pop("tokens_per_step")
    lacking = lacking.merge(chosen[["run_id", "seed", "model", "command"]])
    lacking["command"] = [*map(trained.again, lacking["run_id"], lacking["command"])]
    missing = pd.concat([untrained, lacking], ignore_index=True).assign(matrix="curves")
    labels = [own for _, own in runs.groupby("label", sort=False)]
    caveats = [text for own in labels for text in duplicate_caveats(own, "training", found)]
    caveats += currency_caveats(runs)
    caveats += _setting_caveats(chosen, found)
    return points, runs, missing[MISSING_COLUMNS], caveats


def _run_table(
    source: Source,
    runs: Collection[StoredRun],
    trained: selection.Trained,
    compared: Sequence[str],
) -> pd.DataFrame:
    makers: dict[str, RowMaker] = {}
    values = [
        "".join(f" {name}={run.params.get(f'cfg.{name}', 'unknown')}" for name in compared)
        for run in runs
    ]
    families = [selection.family_of(parse_model(run.tag("model"))) for run in runs]
    return selection.run_table(runs, trained.current).assign(
        label=lambda table: table["model"] + values,
        family=[family + value for family, value in zip(families, values, strict=True)],
        stage=[run.tag("stage") for run in runs],
        val_rows=[float(run.setting("val_rows") or math.nan) for run in runs],
        tokens_per_step=[_tokens_per_step(source, run, makers) for run in runs],
    )


def _tokens_per_step(source: Source, run: StoredRun, makers: dict[str, RowMaker]) -> float:
    """Estimate the tokens of a mean step, from the lengths of a sample of the training's rows.

    NaN if the run does not have all settings. makers: by digest of users' cities, which is filled.
    """
    logged = {name: run.setting(name) for name in FIELDS}
    try:
        settings = from_dict({k: value for k, value in logged.items() if value is not None})
        if settings.cities == NO_CITIES:
            maker = maker_of(settings)
        else:  # the file of its settings may be on another machine
            digest = run.tag("world_digest")
            if digest not in makers:
                read = partial(load_world, variant=settings.world, digest=digest)
                makers[digest] = RowMaker(source.read(run.id, CITIES, read), settings)
            maker = makers[digest]
        rows = sum(rows.rows for rows in training_sets(settings, maker.world))
        return training_tokens(settings, maker) / Schedule.of(settings, rows).steps
    except (InputError, StateError):
        return math.nan


def _read_points(source: Source, runs: Iterable[StoredRun]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the points, and which curves trainings lack (run_id, task, reason)."""
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
        pd.DataFrame(rows, columns=["run_id", "split", "task", "step", "value"]),
        pd.DataFrame(lacking, columns=["run_id", "task", "reason"]),
    )


def _setting_caveats(chosen: pd.DataFrame, found: Mapping[str, StoredRun]) -> list[str]:
    # Models of other families are trained differently on purpose.
    families = chosen.groupby("family", sort=False)["run_id"]
    caveats = [text for _, own in families for text in setting_caveats(found[run] for run in own)]
    worlds = chosen["run_id"].map(lambda run_id: found[run_id].tag("world_digest"))
    others = chosen[(worlds != "") & ~worlds.duplicated()]
    if len(others) > 1:
        names = " and ".join(others["model"] + " seed " + others["seed"].astype(str))
        caveats.append(f"not all models have the same cities: {names}")
    return list(dict.fromkeys(caveats))


main = analysis_command(
    NAME,
    dynamics,
    models="Such as pt1,pt1_ftwb1-1..7; or all.",
    align="x axis of curves: step or tokens.",
    by="Settings such as optimizer,learning_rate, to compare trainings of one model; or none.",
)
