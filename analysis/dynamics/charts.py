"""Charts of trainings: a page of curves for each stage, and when each task breaks out."""

import math

import pandas as pd

from analysis.dynamics.statistics import BREAKOUT, add_groups, add_medians, summarize_breakouts
from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.options import listed
from analysis.statistics.comparison import nested
from analysis.statistics.curves import CHANCE
from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES
from worldrep.settings import TRAINING_STAGES

ALIGN = {"step": "optimizer step", "tokens": "tokens read (estimated)"}
MANY_MODELS = 8  # more are grouped by family
TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
PANELS = {  # (split, task) -> name of its axes
    ("loss", ""): "training loss (nats per token)",
    **{
        (split, task): f"{split}: {task} ({TASKS[task].unit})"
        for split in ("standard", "atlantis")
        for task in TASK_NAMES
    },
}
LOGARITHMIC = frozenset(panel for (_, task), panel in PANELS.items() if task not in CHANCE)
STAGE_NOTES = {
    "pretrain": "errors start at what an untrained model scores, which cannot yet write a number: "
    "to halve that takes little",
    "finetune": "standard tasks are learnt before fine-tuning; breakout.csv has them too",
}


def charts(
    points: pd.DataFrame, runs: pd.DataFrame, broken: pd.DataFrame, align: str
) -> list[Chart]:
    """Plot curves and break-outs of each stage that has any. align: x axis, step or tokens."""
    parts: list[Chart] = []
    for stage in TRAINING_STAGES:
        of_stage, used, own = (table[table["stage"] == stage] for table in (points, runs, broken))
        if len(of_stage):
            parts.append(_curves_chart(of_stage, used, stage, align))
        if len(own):
            parts.append(_breakout_chart(own, stage, align))
    return parts


def _curves_chart(points: pd.DataFrame, runs: pd.DataFrame, stage: str, align: str) -> Curves:
    """Plot the loss and all validation curves of a stage, and the median of each group."""
    labels, models = points["label"].unique(), points["model"].unique()
    group = "family" if len(labels) > MANY_MODELS else "label"
    many = f"{points['run_id'].nunique()} runs of {len(models)} models"
    names = ", ".join(models) if len(models) <= 3 else many
    panels = [PANELS[curve] for curve in zip(points["split"], points["task"], strict=True)]
    table = add_medians(points.assign(panel=panels, series=points["run_id"]), group)
    table["chance"] = table["task"].map(CHANCE)
    table["panel"] = pd.Categorical(table["panel"], list(PANELS.values()))
    rows = listed(runs["val_rows"].dropna().astype(int)) or "unknown"
    notes = [f"validation rows in each suite: {rows}"]
    if n_zero := int(((table["value"] <= 0) & table["panel"].isin(LOGARITHMIC)).sum()):
        notes.append(f"{n_zero} values of 0 have no place on a logarithmic axis")
    return Curves(
        name=stage, title=f"{TITLES[stage]}: {names}, {_seeds_in_words(runs['seed'])}",
        table=table.sort_values("panel", kind="stable", ignore_index=True),
        x=align, x_label=ALIGN[align], y="value", log_y=LOGARITHMIC, across="chance",
        series="series", thick="thick", group=group, facet="panel", columns=4, size=(3.9, 2.3),
        hover=("label", "seed", "step", "tokens", "value", "run_id"),
        lines=(
            "Thin: one run. Thick: the median of the runs of one colour, step by step. Loss and "
            "errors (logarithmic axes): lower is better. Accuracies: higher is better.",
            "Dashed: chance, what a uniform guess among a task's answers scores.",
        ),
        notes=tuple(notes),
    )  # fmt: skip


def _seeds_in_words(seeds: pd.Series) -> str:
    return f"seed{'s' * (seeds.nunique() > 1)} {listed(seeds)}"


def _breakout_chart(broken: pd.DataFrame, stage: str, align: str) -> Intervals:
    """Plot when each task breaks out, by model or family.

    Fine-tunings are plotted on Atlantis alone: their bases know the ordinary cities.
    """
    few = stage == "pretrain" and broken["label"].nunique() <= MANY_MODELS
    grouped = add_groups(broken, "label" if few else "family")
    overview = _labelled(summarize_breakouts(grouped, f"breakout_{align}"))
    learnt = overview[overview["split"] == "atlantis"]
    table = learnt if stage == "finetune" and len(learnt) else overview
    spread = "" if broken["seed"].nunique() > 1 else ": no spread"
    last = float(broken[f"last_{align}"].max())
    name, seeds = f"breakout_{stage}", _seeds_in_words(broken["seed"])
    key = overview["group"] + "/" + overview["split"] + "/" + overview["task"]
    return Intervals(
        name=name, title=f"{TITLES[stage]}: when each task breaks out, {seeds}{spread}",
        table=table.reset_index(drop=True),
        parts="parts", x_label=ALIGN[align], x_limits=None if math.isnan(last) else (0.0, last),
        group="group", facet="split", columns=2,
        size=(6.4, max(1.8, 0.24 * table.groupby("split")["label"].nunique().max())),
        hover=("group", "task", "mean", "std", "broken_out", "runs", "seeds"),
        lines=(
            "Break-out: the first validation where an error is at most half its first value, or an "
            "accuracy half-way from chance to its last.",
            "Mean over the seeds that have one, with 95% interval, cut at the frame; rings: the "
            "seeds. In brackets: runs that broke out, of all.",
        ),
        notes=(*_breakout_notes(broken), STAGE_NOTES[stage]),
        statistics={name: nested(overview.assign(key=key), ["key"], BREAKOUT)},
    )  # fmt: skip


def _labelled(overview: pd.DataFrame) -> pd.DataFrame:
    counts = overview["broken_out"].astype(str) + "/" + overview["runs"].astype(str)
    groups = overview["group"].astype(str)
    names = overview["task"] + (", " + groups if groups.nunique() > 1 else "")
    order = overview.assign(
        label=names + " (" + counts + ")", place=overview["task"].map(TASK_NAMES.index)
    )
    order = order.sort_values(["split", "place", "group"], ascending=[False, True, True])
    return order.drop(columns="place").astype({"group": str})


def _breakout_notes(broken: pd.DataFrame) -> list[str]:
    low, high = int(broken["n_points"].min()), int(broken["n_points"].max())
    never = int(broken["breakout_step"].isna().sum())
    noise = int((broken["near_chance"] & broken["breakout_step"].notna()).sum())
    notes = [
        f"measured at {low if low == high else f'{low} to {high}'} validations in each run: a "
        "break-out is known to one of their intervals; at 0 it was there from the start",
        f"{never} of {len(broken)} curves never break out, and are not in the means",
        "chance on compass is 1/8; always answering its commonest direction is right more often, "
        "as a map that is wider than it is high has more answers E and W",
    ]
    if noise:
        notes.append(
            f"{noise} of the break-outs are of accuracies that end no more than two standard "
            "errors above chance: their steps are noise (near_chance in breakout.csv)"
        )
    return notes
