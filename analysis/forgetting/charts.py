"""Charts of forgetting: gain against loss, and curves over the steps of fine-tuning."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.figures.scatter import Scatter
from analysis.forgetting.reading import EVALUATED
from analysis.forgetting.statistics import ALL_TASKS, mean_over_seeds
from analysis.forgetting.strategies import Comparison
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, STRATEGIES, TASK_NAMES

MOST_LABELS = 40  # with more models, only those on the front are named
MOST_MARKED = 40  # lines with markers
QUESTIONS = {"standard": "standard questions", "atlantis": "questions about Atlantis"}
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
STEPS = "optimizer step of the fine-tuning"
CURVE_HOVER = ("model", "seed", "step", "value", "normalised", "measured_by", "rows", "run_id")
BY_SPLIT: dict[str, Any] = {  # one pair of axes for each split
    "y": "normalised",
    "y_label": "mean of the seven tasks (no unit)",
    "columns": 2,
    "size": (4.6, 3.4),
}


def family_of(fts: pd.Series) -> pd.Series:
    """Return the family of each fine-tuning, as a category with one style in all figures."""
    return pd.Series(pd.Categorical([ft.partition("-")[0] for ft in fts], FAMILIES), fts.index)


# Gain against loss


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

    Args:
        points: One row per model and seed: `group`, label (which the seeds of a model have in
            common), model, seed, change, gain (either NaN if a value is missing), run_id.
        group: Column that colours tell apart; one front is drawn for all groups.
        name: Name of the files and of the statistics.
        title: Title of the figure.
        what: What a point stands for, singular and plural.
        over: What a point is a mean over, beside the tasks.
    """
    means = mean_over_seeds(points, [group, "label", "model"])
    one, several = what
    return Scatter(
        name=name,
        title=title,
        lines=(
            "Right: less is forgotten of the cities that the base knows. Up: more is gained on "
            f"Atlantis, the new cities. Both are means over the seven tasks{over}.",
            f"Large: the mean of a {one}'s seeds, with their standard deviation (ddof = 1). Small "
            f"and pale: single seeds. Ringed and joined: no other {one} does better in one without "
            "doing worse in the other.",
        ),
        table=_plane_table(points, means),
        x="change",
        y="gain",
        x_label="mean normalised change on standard questions (no unit; negative: forgotten)",
        y_label="mean normalised improvement on Atlantis (no unit)",
        group=group,
        label="text",
        error=("change_std", "gain_std"),
        faint="one_seed",
        front="on_front",
        hover=("model", "seed", "change", "gain", "n", "on_front", "run_id"),
        size=(8.0, 5.4),
        notes=tuple(_plane_notes(points, means, several)),
        statistics={name: _plane_statistics(means, several)},
        said=(f"{name}: not dominated: {_front_in_words(means, several)}",),
    )


def _plane_table(points: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """The mean points, and below them those of single seeds."""
    named = means["on_front"] | (len(means) <= MOST_LABELS)
    means = means.assign(seed="mean", one_seed=False, text=means["label"].where(named, ""))
    single = points.assign(one_seed=True, text="", on_front=False, n=1)
    return pd.concat([means, single.dropna(subset=["change", "gain"])], ignore_index=True)


def _plane_notes(points: pd.DataFrame, means: pd.DataFrame, several: str) -> list[str]:
    seeds, there = points["seed"].nunique(), means[means["n"] > 0]
    of = f"{seeds} seeds" if seeds > 1 else "one seed: no spread"
    notes = [f"{len(there)} {several}, {int(means['n'].sum())} points of single seeds, of {of}"]
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


def _plane_statistics(means: pd.DataFrame, several: str) -> dict[str, Any]:
    kept = ["change", "change_std", "gain", "gain_std", "n", "missing"]
    by_label = {row["label"]: {name: row[name] for name in kept} for _, row in means.iterrows()}
    return {"front": means.loc[means["on_front"], "label"].tolist(), several: by_label}


def _front_in_words(means: pd.DataFrame, several: str) -> str:
    """The points of the front, least forgotten first."""
    front = means[means["on_front"]].sort_values("change", ascending=False)
    points = [
        f"{row.label} (change {row.change:+.2f}, gain {row.gain:.2f})" for row in front.itertuples()
    ]
    return f"{', '.join(points) or 'none'} (of {int((means['n'] > 0).sum())} {several})"


# Curves


def curve_charts(points: pd.DataFrame, overview: pd.DataFrame) -> list[Chart]:
    """Plot curves and half-way steps; a chart without rows is left out.

    Args:
        points: Points of curves, and their means over tasks (ALL_TASKS).
        overview: Half-way steps, of `halfway_summary`.
    """
    points = points.assign(series=points["model"] + " seed " + points["seed"].astype(str))
    of_tasks = points[points["task"] != ALL_TASKS]
    charts = (
        task_curves(of_tasks, "standard"),
        task_curves(of_tasks, "atlantis"),
        mean_curve_chart(points),
        halfway_chart(overview, of_tasks),
    )
    return [chart for chart in charts if len(chart.table)]


def task_curves(points: pd.DataFrame, split: str) -> Curves:
    """Plot values on one split by step: axes for each task, a line for each model and seed."""
    own = points[points["split"] == split]
    lines = [
        f"{'trained' if row.trained else 'not trained'}; {row.rows} "
        f"{'test' if row.measured_by == EVALUATED else 'validation'} questions"
        for row in own.itertuples()
    ]
    zero = own[(own["value"] <= 0) & own["task"].map(TASK_PANELS).isin(ERRORS)]
    panel = pd.Categorical(own["task"].map(TASK_PANELS), list(TASK_PANELS.values()))
    return _curves(
        own.assign(**{"panel": panel, LINE: lines}),
        LINE,
        name=f"course_{split}",
        title=f"Over the steps of fine-tuning: {QUESTIONS[split]}",
        lines=(
            "One line for each model and seed, from its own base at step 0. Errors (logarithmic "
            "axes): lower is better. Shares of right answers: higher is better.",
        ),
        y="value",
        columns=3,
        size=(3.3, 2.2),
        log_y=ERRORS,
        notes=(_origins(own), *_zero_notes(zero)),
    )


def mean_curve_chart(points: pd.DataFrame) -> Curves:
    """Plot the mean over the seven tasks by step: standard beside Atlantis."""
    own = points[points["task"] == ALL_TASKS].dropna(subset=["normalised"])
    known = own.groupby(["model", "seed", "split"])["step"].transform("size")
    own = own[known > 1]  # more than the base, whose change is 0
    return _curves(
        own.assign(family=family_of(own["ft"]), panel=_split_panels(own["split"])),
        "family",
        name="course_mean",
        title="Over the steps of fine-tuning: mean of the seven tasks",
        lines=(
            "One line for each model and seed. Left: how far the cities that the base knows are "
            "forgotten (below 0). Right: what is gained on Atlantis (1: as good as the base on the "
            "cities that it knows).",
        ),
        notes=(_origins(own), *_partial_notes(points, own)),
        **BY_SPLIT,
    )


def _curves(table: pd.DataFrame, group: str, **further: Any) -> Curves:
    """A line for each model and seed by step, in the axes of its panel."""
    return Curves(
        table=table.sort_values(["panel", group, "model", "seed", "step"], kind="stable"),
        x="step",
        series="series",
        x_label=STEPS,
        group=group,
        facet="panel",
        hover=CURVE_HOVER,
        marks=table["series"].nunique() <= MOST_MARKED,
        **further,
    )


def halfway_chart(overview: pd.DataFrame, points: pd.DataFrame) -> Intervals:
    """Plot when half of the forgetting and of the gain has happened, by task and family."""
    ends = overview.groupby("family", observed=True)["last_step"].max()
    panels = [f"{family}: {ends[family]:.0f} steps in all" for family in overview["family"]]
    order = pd.Categorical(overview["task"], [*TASK_NAMES, ALL_TASKS])
    table = overview.assign(
        **{"panel": panels, "half of the": overview["split"].map(EVENTS)},
        drawn_low=overview["low"].clip(0),
        drawn_high=overview["high"].clip(upper=overview["last_step"]),
        order=order,
    )
    table = table.sort_values(["family", "order"]).sort_values("half of the", kind="stable")
    happened, early = int(overview["n_happened"].sum()), int(overview["n_early"].sum())
    return Intervals(
        name="halfway_by_task",
        title="The step at which half of the forgetting or gain has happened",
        lines=(
            "Half of the normalised change from step 0 to the last step, interpolated between the "
            "measured steps. Filled: the mean of the seeds, with Student's 95% interval for "
            "several, cut off at the first and last step. Rings: each seed, the mean of its "
            "models.",
        ),
        table=table.drop(columns="order"),
        label="task",
        value="mean",
        low="drawn_low",
        high="drawn_high",
        parts="by_seed",
        x_label=STEPS,
        group="half of the",
        facet="panel",
        columns=2,
        size=(4.6, 3.4),
        hover=("family", "task", "split", "mean", "std", "n", "n_happened", "n_models", "n_early"),
        notes=(
            f"in the means: {happened} of {int(overview['n_models'].sum())} curves of a model, a "
            "seed and a task; the others ended without a loss or a gain, or have no logarithm",
            f"in {early} of the {happened}, half had happened by the first measured step: theirs "
            "is interpolated between 0 and that step",
            _origins(points),
        ),
    )


def _split_panels(splits: pd.Series) -> pd.Categorical:
    return pd.Categorical(splits.map(PANELS), list(PANELS.values()))


def _zero_notes(zero: pd.DataFrame) -> list[str]:
    if zero.empty:
        return []
    starts = int((zero["step"] == 0).sum())
    text = f"{len(zero)} errors of 0 are not drawn, as they have no logarithm"
    return [f"{text}; {starts} of them are the values at step 0, of a base without errors"]


def _partial_notes(points: pd.DataFrame, drawn: pd.DataFrame) -> list[str]:
    """How many curves have no mean over the seven tasks."""
    keys = ["model", "seed", "split"]
    n, known = (len(table.drop_duplicates(keys)) for table in (points, drawn))
    if n == known:
        return []
    return [
        f"{n - known} of {n} curves are not drawn: a task is missing, or has no normalised change "
        "(an error of 0 has no logarithm)"
    ]


def _origins(points: pd.DataFrame) -> str:
    """How the values were measured, with the number of models and of questions."""
    kinds = points.groupby(["measured_by", "rows"])["run_id"].nunique()
    parts = [f"{n} by {kind}, {rows} questions a point" for (kind, rows), n in kinds.items()]
    return f"models and seeds: {'; '.join(parts)}"


# Strategies


def strategy_charts(compared: Comparison) -> list[Chart]:
    """Plot gain against loss of each strategy and of each of its models, and the mean curves."""
    one_of_all = compared.seeds["strategy"].astype(str)
    charts: list[Chart] = [
        gain_against_loss(
            compared.seeds.assign(label=one_of_all, run_id="", model=one_of_all),
            "strategy",
            name="strategies",
            title="Strategies of fine-tuning: what they gain on Atlantis, and what they forget",
            what=("strategy", "strategies"),
            over=f" and over {compared.models_in_words}",
        ),
        gain_against_loss(
            compared.models,
            "strategy",
            name="strategies_by_model",
            title="Strategies of fine-tuning, model by model",
        ),
    ]
    return charts + [strategy_curves(compared)] * (len(compared.curves) > 0)


def strategy_curves(compared: Comparison) -> Curves:
    """Plot when the forgetting and the gain happen, by share of the training."""
    curves, means = compared.curves, compared.curves_over_seeds
    table = pd.concat(
        [means.assign(seed="mean", is_mean=True), curves.assign(is_mean=False, n=1)],
        ignore_index=True,
    )
    table["series"] = table["strategy"].astype(str) + " seed " + table["seed"].astype(str)
    table["percent"] = 100 * table["share"]
    table["panel"] = _split_panels(table["split"])
    table["strategy"] = pd.Categorical(table["strategy"], STRATEGIES)
    return Curves(
        name="strategies_course",
        title="Strategies of fine-tuning: when forgetting and gain happen",
        lines=(
            f"Means over {compared.models_in_words} and the seven tasks, from step 0 on. Left: how "
            "far the cities that the base knows are forgotten (below 0). Right: what is gained on "
            "Atlantis.",
            "Thick: the mean of the seeds. Thin: single seeds.",
        ),
        table=table.sort_values(
            ["panel", "strategy", "is_mean"], ascending=[True, True, False], kind="stable"
        ),
        x="percent",
        series="series",
        facet="panel",
        thick="is_mean",
        x_label="share of the fine-tuning's steps (%)",
        group="strategy",
        hover=("strategy", "seed", "percent", "normalised", "n"),
        notes=(
            f"{curves['seed'].nunique()} seeds; steps of another strategy may cost more: "
            "replay has more of them, as a batch holds fewer new rows",
        ),
        **BY_SPLIT,
    )
