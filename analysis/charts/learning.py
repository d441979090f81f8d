"""Figures of trainings: a page of curves for each stage, and when each task breaks out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.statistics.breakouts import summarize_breakouts
from analysis.statistics.curves import CHANCE
from analysis.store.histories import TrainingCurves
from analysis.store.selection import STAGES
from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES

ALIGN = {"step": "optimizer step", "tokens": "tokens read (estimated)"}
MANY_MODELS = 8  # more are told apart by family
# Of the axes of a page: which split, and which task.
CURVES = (
    ("loss", ""),
    *((split, task) for split in ("standard", "atlantis") for task in TASK_NAMES),
)
PAGES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}


def charts(found: TrainingCurves, broken: pd.DataFrame, align: str) -> list[Chart]:
    """A page of curves and one of break-outs for each stage that has any."""
    parts: list[Chart] = []
    for stage in STAGES:
        points = found.points[found.points["stage"] == stage]
        own = broken[broken["stage"] == stage]
        if len(points):
            parts.append(curves_chart(points, found.runs, stage, align))
        if len(own):
            parts.append(breakout_chart(own, stage, align))
    return parts


def curves_chart(points: pd.DataFrame, runs: pd.DataFrame, stage: str, align: str) -> Curves:
    """The loss and all validation curves of a stage; the median of each group stands out."""
    group = "family" if points["model"].nunique() > MANY_MODELS else "model"
    panels = [_panel(s, t) for s, t in zip(points["split"], points["task"], strict=True)]
    table = points.assign(panel=panels, series=points["run_id"])
    table = _with_medians(table, group)
    table["chance"] = table["task"].map(CHANCE)
    table["panel"] = pd.Categorical(table["panel"], [_panel(*curve) for curve in CURVES])
    used = runs[runs["chosen"] & (runs["stage"] == stage)]
    return Curves(
        name=stage,
        title=f"{PAGES[stage]}: {_models_in_words(points)}, {_seeds_in_words(used['seed'])}",
        table=table.sort_values("panel", kind="stable", ignore_index=True),
        x="step" if align == "step" else "tokens",
        y="value",
        series="series",
        thick="thick",
        group=group,
        facet="panel",
        across="chance",
        log_y=frozenset(_panel(*curve) for curve in CURVES if curve[1] not in CHANCE),
        columns=4,
        size=(3.9, 2.3),
        x_label=ALIGN[align],
        hover=("model", "seed", "step", "tokens", "value", "run_id"),
        lines=(
            f"Thin: one run. Thick: the median of a {group}'s runs, step by step. Loss and errors "
            "(logarithmic axes): lower is better. Shares of right answers: higher is better.",
            "Dashed: chance, what a uniform guess among a task's answers scores.",
        ),
        notes=_curve_notes(table, used, align),
    )


def _models_in_words(points: pd.DataFrame) -> str:
    models, runs = list(dict.fromkeys(points["model"])), points["run_id"].nunique()
    return ", ".join(models) if len(models) <= 3 else f"{runs} runs of {len(models)} models"


def _seeds_in_words(seeds: pd.Series) -> str:
    found = sorted(set(seeds))
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}"


def _panel(split: str, task: str) -> str:
    if split == "loss":
        return "training loss (nats per token)"
    return f"{split}: {task} ({TASKS[task].unit})"


def _with_medians(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """The runs, and below them the median of each group, at the steps that most of it has."""
    keys = ["panel", "split", "task", group]
    sizes = table.groupby(keys)["run_id"].transform("nunique")
    many = table[sizes > 1].assign(size=sizes)
    by_step = many.groupby([*keys, "step"], sort=False)
    medians = by_step[["value", "tokens"]].median().assign(
        n=by_step["run_id"].nunique(), size=by_step["size"].first()
    ).reset_index()  # fmt: skip
    medians = medians[2 * medians["n"] > medians["size"]].drop(columns=["n", "size"])
    medians["series"] = "median of " + medians[group].astype(str)
    medians = medians.assign(thick=True, run_id="", seed="median")
    return pd.concat([table.assign(thick=sizes == 1), medians], ignore_index=True)


def _curve_notes(table: pd.DataFrame, used: pd.DataFrame, align: str) -> tuple[str, ...]:
    rows = ", ".join(f"{int(n)}" for n in sorted(set(used["val_rows"].dropna()))) or "unknown"
    notes = [f"validation rows in each suite: {rows}"]
    nought = table[(table["value"] <= 0) & ~table["task"].isin(CHANCE)]
    if len(nought):
        notes.append(f"{len(nought)} values of 0 have no place on a logarithmic axis")
    if align == "tokens":
        notes.append("tokens: steps times the mean number of real tokens in a step, about 1% off")
    return tuple(notes)


def breakout_chart(broken: pd.DataFrame, stage: str, align: str) -> Intervals:
    """When each task breaks out, by model or family.

    Of fine-tunings on Atlantis alone: ordinary cities are known to their bases.
    """
    grouped = broken.assign(group=_groups(broken, stage))
    summary = _labelled(summarize_breakouts(grouped, f"breakout_{align}"))
    learnt = summary[summary["split"] == "atlantis"]
    table = learnt if stage == "finetune" and len(learnt) else summary
    spread = "" if broken["seed"].nunique() > 1 else ": no spread"
    last = float(broken[f"last_{align}"].max())
    return Intervals(
        name=f"breakout_{stage}",
        title=f"{PAGES[stage]}: when each task breaks out, {_seeds_in_words(broken['seed'])}"
        + spread,
        table=table.reset_index(drop=True),
        label="label",
        value="mean",
        low="low",
        high="high",
        parts="parts",
        x_limits=None if math.isnan(last) else (0.0, last),
        group="group",
        facet="split",
        columns=2,
        size=(6.4, max(1.8, 0.24 * table.groupby("split")["label"].nunique().max())),
        x_label=ALIGN[align],
        hover=("group", "task", "mean", "std", "broken_out", "runs", "seeds"),
        lines=(
            "Break-out: the first validation where an error is at most half its first value, or an "
            "accuracy half-way from chance to its last.",
            "Mean over the seeds that have one, with 95% interval, cut at the frame; rings: the "
            "seeds. In brackets: runs that broke out, of all.",
        ),
        notes=_breakout_notes(broken, stage),
        said=tuple(_said(stage, summary)),
        statistics={f"breakout_{stage}": _statistics(summary)},
    )


def _labelled(summary: pd.DataFrame) -> pd.DataFrame:
    """In the order of the tasks, with the text that stands before each row."""
    several = summary["group"].nunique() > 1
    labels = [
        f"{row.task}{f', {row.group}' if several else ''} ({row.broken_out}/{row.runs})"
        for row in summary.itertuples()
    ]
    places = {task: i for i, task in enumerate(TASK_NAMES)}
    order = summary.assign(label=labels, place=summary["task"].map(places))
    order = order.sort_values(["split", "place"], ascending=[False, True], kind="stable")
    return order.drop(columns="place")


def _groups(broken: pd.DataFrame, stage: str) -> pd.Categorical:
    """What the break-outs of a stage are averaged within; trained tasks and others apart."""
    few = stage == "pretrain" and broken["model"].nunique() <= MANY_MODELS
    names = broken["model" if few else "family"]
    mixed = broken.groupby(names)["trained"].transform(lambda trained: not trained.all())
    kinds = pd.Series(np.where(broken["trained"], " trained", " transfer"), index=broken.index)
    groups = names + kinds.where(mixed, "")
    order = [f"{name}{kind}" for name in names.unique() for kind in ("", " trained", " transfer")]
    return pd.Categorical(groups, [name for name in order if name in set(groups)])


def _breakout_notes(broken: pd.DataFrame, stage: str) -> tuple[str, ...]:
    never = int(broken["breakout_step"].isna().sum())
    noise = int((broken["near_chance"] & broken["breakout_step"].notna()).sum())
    notes = [
        f"measured at {_between(broken['n_points'])} validations in each run: a break-out is known "
        "to one of their intervals; at 0 it was there from the start",
        "it is the first time: an error that was halved may rise again",
        f"{never} of {len(broken)} curves never break out, and are not in the means",
        "chance on compass is 1/8; always answering its commonest direction is right more often, "
        "as a map that is wider than it is high has more answers E and W",
    ]
    if noise:
        notes.append(
            f"{noise} of the break-outs are of accuracies that end no more than two standard "
            "errors above chance: their steps are noise (near_chance in breakout.csv)"
        )
    if stage == "pretrain":
        notes.append(
            "errors start at what an untrained model scores, which cannot yet write a number: "
            "to halve that takes little"
        )
    else:
        notes.append("standard tasks are learnt before fine-tuning; breakout.csv has them too")
    return tuple(notes)


def _between(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _said(stage: str, table: pd.DataFrame) -> list[str]:
    """One line for each split and group."""
    lines = []
    for (split, group), own in table.groupby(["split", "group"], sort=False):
        steps = ", ".join(
            f"{row.task} {'never' if math.isnan(row.mean) else f'{row.mean:,.0f}'}"
            f" ({row.broken_out}/{row.runs})"
            for row in own.itertuples()
        )
        lines.append(f"breakout_{stage}: {group}, {split}: {steps}")
    return lines


def _statistics(table: pd.DataFrame) -> dict[str, Any]:
    kept = ["mean", "std", "low", "high", "n_seeds", "runs", "broken_out", "near_chance"]
    return {
        f"{row['group']}/{row['split']}/{row['task']}": {name: row[name] for name in kept}
        for _, row in table.iterrows()
    }
