"""Figures of the time course of fine-tunings: values by step, and when half has happened."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.statistics.courses import ALL_TASKS
from analysis.store.checkpoint_courses import EVALUATED
from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES

QUESTIONS = {"standard": "standard questions", "atlantis": "questions about Atlantis"}
EVENTS = {"standard": "forgetting (standard questions)", "atlantis": "gain (Atlantis)"}
PANELS = {
    "standard": "standard: normalised change",
    "atlantis": "Atlantis: normalised improvement",
}
LINE = "the task was"
MOST_MARKED = 40  # lines with markers
HOVER = ("model", "seed", "step", "value", "normalised", "measured_by", "rows", "run_id")


def family_of(fts: pd.Series, families: Sequence[str]) -> pd.Series:
    """The family of each fine-tuning, with the same style in all figures."""
    return pd.Series(pd.Categorical([ft.partition("-")[0] for ft in fts], families), fts.index)


def task_courses(points: pd.DataFrame, split: str, name: str) -> Curves:
    """Values on one split by step: axes for each task, a line for each model and seed."""
    own = points[points["split"] == split].copy()
    own["series"] = own["model"] + " seed " + own["seed"].astype(str)
    own["panel"] = [_panel(task) for task in own["task"]]
    own[LINE] = [
        f"{'trained' if row.trained else 'not trained'}; {_measured(row.measured_by, row.rows)}"
        for row in own.itertuples()
    ]
    errors = frozenset(_panel(task) for task in TASK_NAMES if not TASKS[task].accuracy)
    zero = own[(own["value"] <= 0) & own["panel"].isin(errors)]
    order = [_panel(task) for task in TASK_NAMES]
    own["panel"] = pd.Categorical(own["panel"], order)
    return Curves(
        name=name,
        title=f"Over the steps of fine-tuning: {QUESTIONS[split]}",
        lines=(
            "One line for each model and seed, from its own base at step 0. Errors (logarithmic "
            "axes): lower is better. Shares of right answers: higher is better.",
        ),
        table=own.sort_values(["panel", LINE, "model", "seed", "step"], kind="stable"),
        x="step",
        y="value",
        series="series",
        x_label="optimizer step of the fine-tuning",
        group=LINE,
        facet="panel",
        columns=3,
        size=(3.3, 2.2),
        log_y=errors,
        hover=HOVER,
        marks=own["series"].nunique() <= MOST_MARKED,
        notes=(*_sources(own), *_zero_notes(zero)),
    )


def mean_course(points: pd.DataFrame, families: Sequence[str], name: str) -> Curves:
    """The mean over the seven tasks by step: standard beside Atlantis."""
    own = points[points["task"] == ALL_TASKS].dropna(subset=["normalised"])
    known = own.groupby(["model", "seed", "split"])["step"].transform("size")
    own = own[known > 1].copy()  # more than the base, whose change is 0
    own["series"] = own["model"] + " seed " + own["seed"].astype(str)
    own["family"] = family_of(own["ft"], families)
    own["panel"] = pd.Categorical(own["split"].map(PANELS), list(PANELS.values()))
    return Curves(
        name=name,
        title="Over the steps of fine-tuning: mean of the seven tasks",
        lines=(
            "One line for each model and seed. Left: how far the cities that the base knows are "
            "forgotten (below 0). Right: what is gained on Atlantis (1: as good as the base on the "
            "cities that it knows).",
        ),
        table=own.sort_values(["panel", "family", "model", "seed", "step"], kind="stable"),
        x="step",
        y="normalised",
        series="series",
        x_label="optimizer step of the fine-tuning",
        y_label="mean of the seven tasks (no unit)",
        group="family",
        facet="panel",
        columns=2,
        size=(4.6, 3.4),
        hover=HOVER,
        marks=own["series"].nunique() <= MOST_MARKED,
        notes=(*_sources(own), *_partial_notes(points, own)),
    )


def halfway_chart(summary: pd.DataFrame, points: pd.DataFrame, name: str) -> Intervals:
    """When half of the forgetting and half of the gain have happened, by task and family."""
    own = summary.copy()
    ends = own.groupby("family", observed=True)["last_step"].max()
    own["panel"] = [f"{family}: {ends[family]:.0f} steps in all" for family in own["family"]]
    own["half of the"] = own["split"].map(EVENTS)
    order = {task: i for i, task in enumerate((*TASK_NAMES, ALL_TASKS))}
    own = own.sort_values(["family", "task"], key=lambda c: c.map(order) if c.name == "task" else c)
    own = own.sort_values("half of the", kind="stable")
    own["drawn_low"], own["drawn_high"] = (
        own["low"].clip(0),
        own["high"].clip(upper=own["last_step"]),
    )
    happened, early = int(own["n_happened"].sum()), int(own["n_early"].sum())
    return Intervals(
        name=name,
        title="The step at which half of the forgetting or gain has happened",
        lines=(
            "Half of the normalised change from step 0 to the last step, interpolated between the "
            "measured steps. Filled: the mean of the seeds, with Student's 95% interval for "
            "several, cut off at the first and last step. Rings: each seed, the mean of its "
            "models.",
        ),
        table=own,
        label="task",
        value="mean",
        low="drawn_low",
        high="drawn_high",
        parts="by_seed",
        x_label="optimizer step of the fine-tuning",
        group="half of the",
        facet="panel",
        columns=2,
        size=(4.6, 3.4),
        hover=("family", "task", "split", "mean", "std", "n", "n_happened", "n_models", "n_early"),
        notes=(
            f"in the means: {happened} of {int(own['n_models'].sum())} courses of a model, a seed "
            "and a task; the others ended without a loss or a gain, or have no logarithm",
            f"in {early} of the {happened}, half had happened by the first measured step: theirs "
            "is interpolated between 0 and that step",
            *_sources(points),
        ),
    )


def _panel(task: str) -> str:
    return f"{task} ({'' if TASKS[task].accuracy else 'mean error, '}{TASKS[task].unit})"


def _measured(measured_by: str, rows: str) -> str:
    return f"{rows} {'test' if measured_by == EVALUATED else 'validation'} questions"


def _zero_notes(zero: pd.DataFrame) -> list[str]:
    if zero.empty:
        return []
    starts = int((zero["step"] == 0).sum())
    text = f"{len(zero)} errors of 0 are not drawn, as they have no logarithm"
    return [f"{text}; {starts} of them are the values at step 0, of a base without errors"]


def _partial_notes(points: pd.DataFrame, drawn: pd.DataFrame) -> list[str]:
    """How many courses have no mean over the seven tasks."""
    keys = ["model", "seed", "split"]
    n, known = (len(table.drop_duplicates(keys)) for table in (points, drawn))
    if n == known:
        return []
    return [
        f"{n - known} of {n} courses are not drawn: a task is missing, or has no normalised change "
        "(an error of 0 has no logarithm)"
    ]


def _sources(points: pd.DataFrame) -> tuple[str, ...]:
    """From what the values come, with the number of models and of questions."""
    kinds = points.groupby(["measured_by", "rows"])["run_id"].nunique()
    parts = [f"{n} by {kind}, {rows} questions a point" for (kind, rows), n in kinds.items()]
    return (f"models and seeds: {'; '.join(parts)}",)
