"""Charts of forgetting: gain against loss, and curves over the steps of fine-tuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.figures.scatter import Scatter
from analysis.forgetting.reading import EVALUATED
from analysis.forgetting.statistics import ALL_TASKS, mean_over_seeds
from analysis.forgetting.strategies import Comparison
from analysis.statistics.spread import nested
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, STRATEGIES, TASK_NAMES

MOST_LABELS = 40  # with more models, only those on the front are named
MOST_MARKED = 40  # lines with markers
EVENTS = {"standard": "forgetting (standard questions)", "atlantis": "gain (Atlantis)"}
PANELS = {
    "standard": "standard: normalised change",
    "atlantis": "Atlantis: normalised improvement",
}
TASK_PANELS = {
    task: f"{task} ({'' if TASKS[task].accuracy else 'mean error, '}{TASKS[task].unit})"
    for task in TASK_NAMES
}
ERRORS = frozenset(TASK_PANELS[task] for task in TASK_NAMES if not TASKS[task].accuracy)
LINE = "the task was"
BY_STEP: dict[str, Any] = {"x": "step", "x_label": "optimizer step of the fine-tuning"}
BY_SPLIT: dict[str, Any] = {  # one pair of axes for each split
    "y": "normalised", "y_label": "mean of the seven tasks (no unit)", "columns": 2,
    "size": (4.6, 3.4),
}  # fmt: skip
LEFT_RIGHT = (
    "Left: how far the cities that the base knows are forgotten (below 0). Right: what is gained "
    "on Atlantis (1: as good as the base on the cities that it knows)."
)


def family_of(fts: pd.Series) -> pd.Series:
    """Return the family of each fine-tuning, as a category with one style in all figures."""
    return pd.Series(pd.Categorical(fts.str.split("-").str[0], FAMILIES), fts.index)


def gain_against_loss(
    points: pd.DataFrame,
    group: str,
    *,
    name: str,
    title: str,
    what: tuple[str, str] = ("model", "models"),
    over: str = "",
) -> Scatter:
    """Plot the gain on Atlantis against the change on standard questions, with the Pareto front.

    points: one row per model and seed: `group` (told apart by colour), label (which the seeds of a
    model have in common), model, seed, change, gain (NaN if missing), run_id; what: what a point
    stands for, singular and plural; over: what it is a mean over, beside the tasks.
    """
    means = mean_over_seeds(points, [group, "label", "model"])
    one, several = what
    named = means["on_front"] | (len(means) <= MOST_LABELS)
    single = points.assign(one_seed=True, text="", on_front=False, n=1)
    table = (
        means.assign(seed="mean", one_seed=False, text=means["label"].where(named, "")),
        single.dropna(subset=["change", "gain"]),
    )
    kept = ["change", "change_std", "gain", "gain_std", "n", "missing"]
    front = means.loc[means["on_front"], "label"].tolist()
    return Scatter(
        name=name, title=title,
        lines=(
            "Right: less is forgotten of the cities that the base knows. Up: more is gained on "
            f"Atlantis, the new cities. Both are means over the seven tasks{over}.",
            f"Large: the mean of a {one}'s seeds, with their standard deviation (ddof = 1). Small "
            f"and pale: single seeds. Ringed and joined: no other {one} does better in one without "
            "doing worse in the other.",
        ),
        table=pd.concat(table, ignore_index=True),
        x="change", x_label="mean normalised change on standard questions (negative: forgotten)",
        y="gain", y_label="mean normalised improvement on Atlantis (no unit)",
        group=group, label="text", error=("change_std", "gain_std"), faint="one_seed",
        front="on_front", size=(8.0, 5.4),
        hover=("model", "seed", "change", "gain", "n", "on_front", "run_id"),
        notes=tuple(_plane_notes(points, means, name, several)),
        statistics={name: {"front": front, several: nested(means, ["label"], kept)}},
    )  # fmt: skip


def _plane_notes(points: pd.DataFrame, means: pd.DataFrame, name: str, several: str) -> list[str]:
    seeds, there = points["seed"].nunique(), means[means["n"] > 0]
    front = [
        f"{row.label} (change {row.change:+.2f}, gain {row.gain:.2f})"
        for row in means[means["on_front"]].sort_values("change", ascending=False).itertuples()
    ]
    of = f"{seeds} seeds" if seeds > 1 else "one seed: no spread"
    notes = [
        f"{name}: not dominated: {', '.join(front) or 'none'} (of {len(there)} {several})",
        f"{len(there)} {several}, {int(means['n'].sum())} points of single seeds, of {of}",
    ]
    if partial := int((there["missing"] > 0).sum()):
        notes.append(
            f"{partial} of the {several} lack some of the seeds: their means are of the others"
        )
    if absent := len(means) - len(there):
        notes.append(
            f"{absent} {several} have no point, as values are missing; missing.csv has the commands"
        )
    if len(means) > MOST_LABELS:
        notes.append(f"only the {several} on the front are named; the table has all")
    return notes


def curve_charts(points: pd.DataFrame, overview: pd.DataFrame) -> list[Chart]:
    """Plot curves (also the means over ALL_TASKS) and half-way steps; no chart without rows."""
    points = points.assign(series=points["model"] + " seed " + points["seed"].astype(str))
    of_tasks = points[points["task"] != ALL_TASKS]
    charts = (
        _task_curves(of_tasks, "standard", "standard questions"),
        _task_curves(of_tasks, "atlantis", "questions about Atlantis"),
        _mean_curves(points),
        _halfway_chart(overview, of_tasks),
    )
    return [chart for chart in charts if len(chart.table)]


def _task_curves(points: pd.DataFrame, split: str, questions: str) -> Curves:
    """Plot values on one split by step: axes for each task, a line for each model and seed."""
    own = points[points["split"] == split]
    trained = np.where(own["trained"], "trained; ", "not trained; ")
    kind = np.where(own["measured_by"] == EVALUATED, " test questions", " validation questions")
    panel = pd.Categorical(own["task"].map(TASK_PANELS), list(TASK_PANELS.values()))
    zero = own[(own["value"] <= 0) & panel.isin(ERRORS)]
    notes = [_origins(own)]
    if len(zero):
        notes.append(
            f"{len(zero)} errors of 0 are not drawn, as they have no logarithm; "
            f"{int((zero['step'] == 0).sum())} of them are of a base (step 0)"
        )
    return _curves(
        own.assign(**{"panel": panel, LINE: trained + own["rows"] + kind}), LINE,
        name=f"course_{split}", title=f"Over the steps of fine-tuning: {questions}",
        lines=(
            "One line for each model and seed, from its own base at step 0. Errors (logarithmic "
            "axes): lower is better. Shares of right answers: higher is better.",
        ),
        y="value", columns=3, size=(3.3, 2.2), log_y=ERRORS, notes=tuple(notes),
    )  # fmt: skip


def _mean_curves(points: pd.DataFrame) -> Curves:
    """Plot the mean over the seven tasks by step: standard beside Atlantis."""
    keys = ["model", "seed", "split"]
    own = points[points["task"] == ALL_TASKS].dropna(subset=["normalised"])
    own = own[own.groupby(keys)["step"].transform("size") > 1]  # more than the base, which is 0
    n, known = (len(table.drop_duplicates(keys)) for table in (points, own))
    notes = [_origins(own)]
    if n > known:
        notes.append(
            f"{n - known} of {n} curves are not drawn: a task is missing, or has no normalised "
            "change (an error of 0 has no logarithm)"
        )
    return _curves(
        own.assign(family=family_of(own["ft"]), panel=_split_panels(own["split"])), "family",
        name="course_mean", title="Over the steps of fine-tuning: mean of the seven tasks",
        lines=(f"One line for each model and seed. {LEFT_RIGHT}",), notes=tuple(notes), **BY_SPLIT,
    )  # fmt: skip


def _curves(table: pd.DataFrame, group: str, **further: Any) -> Curves:
    """A line for each model and seed by step, in the axes of its panel."""
    return Curves(
        table=table.sort_values(["panel", group, "model", "seed", "step"], kind="stable"),
        series="series", group=group, facet="panel",
        hover=("model", "seed", "step", "value", "normalised", "measured_by", "rows", "run_id"),
        marks=table["series"].nunique() <= MOST_MARKED, **BY_STEP, **further,
    )  # fmt: skip


def _halfway_chart(overview: pd.DataFrame, points: pd.DataFrame) -> Intervals:
    """Plot when half of the forgetting and of the gain has happened, by task and family."""
    ends = overview.groupby("family")["last_step"].transform("max")
    table = overview.assign(
        **{
            "panel": overview["family"] + ": " + ends.map("{:.0f} steps in all".format),
            "half of the": overview["split"].map(EVENTS),
        },
        drawn_low=overview["low"].clip(0),
        drawn_high=overview["high"].clip(upper=overview["last_step"]),
        order=pd.Categorical(overview["task"], [*TASK_NAMES, ALL_TASKS]),
    )
    table = table.sort_values(["half of the", "family", "order"], kind="stable")
    happened, early, n = overview[["n_happened", "n_early", "n_models"]].sum()
    return Intervals(
        name="halfway_by_task",
        title="The step at which half of the forgetting or gain has happened",
        lines=(
            "Half of the normalised change from step 0 to the last step, interpolated between the "
            "measured steps. Filled: the mean of the seeds, with Student's 95% interval for "
            "several, cut off at the first and last step. Rings: each seed, the mean of its "
            "models.",
        ),
        table=table.drop(columns="order"), label="task", value="mean",
        low="drawn_low", high="drawn_high", parts="by_seed", x_label=BY_STEP["x_label"],
        group="half of the", facet="panel", columns=2, size=(4.6, 3.4),
        hover=("family", "task", "split", "mean", "std", "n", "n_happened", "n_models", "n_early"),
        notes=(
            f"in the means: {happened} of {n} curves of a model, a seed and a task; the others "
            "ended without a loss or a gain, or have no logarithm",
            f"in {early} of the {happened}, half had happened by the first measured step: theirs "
            "is interpolated between 0 and that step",
            _origins(points),
        ),
    )  # fmt: skip


def _split_panels(splits: pd.Series) -> pd.Categorical:
    return pd.Categorical(splits.map(PANELS), list(PANELS.values()))


def _origins(points: pd.DataFrame) -> str:
    """How the values were measured, with the number of models and of questions."""
    kinds = points.groupby(["measured_by", "rows"])["run_id"].nunique()
    parts = [f"{n} by {kind}, {rows} questions a point" for (kind, rows), n in kinds.items()]
    return f"models and seeds: {'; '.join(parts)}"


def strategy_charts(compared: Comparison) -> list[Chart]:
    """Plot gain against loss of each strategy and of each of its models, and the mean curves."""
    names, n = compared.seeds["strategy"].astype(str), len(compared.fts)
    models = f"the same {n} models" if n > 1 else f"the model {compared.fts[0]}"
    charts: list[Chart] = [
        gain_against_loss(
            compared.seeds.assign(label=names, run_id="", model=names), "strategy",
            name="strategies",
            title="Strategies of fine-tuning: what they gain on Atlantis, and what they forget",
            what=("strategy", "strategies"), over=f" and over {models}",
        ),
        gain_against_loss(
            compared.models, "strategy", name="strategies_by_model",
            title="Strategies of fine-tuning, model by model",
        ),
    ]  # fmt: skip
    return charts + [_strategy_curves(compared, models)] * (len(compared.curves) > 0)


def _strategy_curves(compared: Comparison, models: str) -> Curves:
    """Plot when the forgetting and the gain happen, by share of the training."""
    groups = compared.curves.groupby(["strategy", "split", "place"], sort=False)
    means = groups[["share", "normalised"]].mean().assign(n=groups.size()).reset_index()
    single = compared.curves.assign(is_mean=False, n=1)
    table = pd.concat([means.assign(seed="mean", is_mean=True), single], ignore_index=True)
    table["series"] = table["strategy"] + " seed " + table["seed"].astype(str)
    table["percent"] = 100 * table["share"]
    table["panel"] = _split_panels(table["split"])
    table["strategy"] = pd.Categorical(table["strategy"], STRATEGIES)
    table = table.sort_values("is_mean", ascending=False, kind="stable")
    return Curves(
        name="strategies_course",
        title="Strategies of fine-tuning: when forgetting and gain happen",
        lines=(
            f"Means over {models} and the seven tasks, from step 0 on. "
            f"{LEFT_RIGHT} Thick: the mean of the seeds. Thin: single seeds.",
        ),
        table=table.sort_values(["panel", "strategy"], kind="stable"),
        x="percent", x_label="share of the fine-tuning's steps (%)", series="series",
        group="strategy", facet="panel", thick="is_mean",
        hover=("strategy", "seed", "percent", "normalised", "n"),
        notes=(
            f"{single['seed'].nunique()} seeds; steps of another strategy may cost more: "
            "replay has more of them, as a batch holds fewer new rows",
        ),
        **BY_SPLIT,
    )  # fmt: skip
