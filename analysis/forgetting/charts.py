"""Charts of forgetting: gain against forgetting, and curves over the steps of fine-tuning."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.figures.intervals import Intervals
from analysis.figures.scatter import Scatter
from analysis.forgetting.reading import EVALUATED
from analysis.forgetting.statistics import ALL_TASKS, Comparison, mean_over_seeds
from analysis.statistics.comparison import nested
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, STRATEGIES, TASK_NAMES

MOST_LABELS = 40  # with more models, only those on the front are named
MODELS = "model", "models"
PLANES = {  # name -> title, and what a point stands for
    "gain_against_loss": ("What fine-tuning gains on Atlantis, and what it forgets", *MODELS),
    "strategies": (
        "Strategies of fine-tuning: what they gain on Atlantis, and what they forget",
        "strategy",
        "strategies",
    ),
    "strategies_by_model": ("Strategies of fine-tuning, model by model", *MODELS),
}
EVENTS = {"standard": "forgetting (standard questions)", "atlantis": "gain (Atlantis)"}
PANELS = {"standard": "standard: normalised change", "atlantis": "Atlantis: normalised improvement"}
TASK_PANELS = {
    task: f"{task} ({'' if TASKS[task].accuracy else 'mean error, '}{TASKS[task].unit})"
    for task in TASK_NAMES
}
ERRORS = frozenset(TASK_PANELS[task] for task in TASK_NAMES if not TASKS[task].accuracy)
STEP = "optimizer step of the fine-tuning"
LEFT_RIGHT = (
    "Left: how far the cities that the base knows are forgotten (below 0). Right: what is gained "
    "on Atlantis (1: as good as the base on the cities that it knows)."
)
BY_TASK: dict[str, Any] = {
    "y": "value", "columns": 3, "size": (3.3, 2.2), "log_y": ERRORS,
    "lines": (
        "One line for each model and seed, from its own base at step 0. Errors (logarithmic axes): "
        "lower is better. Shares of right answers: higher is better.",
    ),
}  # fmt: skip
BY_SPLIT: dict[str, Any] = {
    "y": "normalised", "y_label": "mean of the seven tasks (no unit)", "columns": 2,
    "size": (4.6, 3.4),
}  # fmt: skip


def family_of(fts: pd.Series) -> pd.Series:
    """Return the family of each fine-tuning, as a category with one style in all figures."""
    return pd.Series(pd.Categorical(fts.str.split("-").str[0], FAMILIES), fts.index)


def gain_against_loss(name: str, points: pd.DataFrame, group: str, over: str = "") -> Scatter:
    """Plot the gain on Atlantis against the change on standard questions, with the Pareto front.

    name: of PLANES; points: one row per model and seed: `group` (its colour), label (the same for
    all seeds of a model), model, seed, change, gain (NaN if missing), run_id; over: text appended
    to the caption, such as ` and over the model pt1_ftwb1-1`.
    """
    title, one, several = PLANES[name]
    means = mean_over_seeds(points, [group, "label", "model"])
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
        notes=tuple(_plane_notes(points["seed"].nunique(), means, name, several)),
        statistics={name: {"front": front, several: nested(means, ["label"], kept)}},
    )  # fmt: skip


def _plane_notes(n_seeds: int, means: pd.DataFrame, name: str, several: str) -> list[str]:
    there, front = means[means["n"] > 0], means[means["on_front"]].sort_values("change")
    best = [f"{p.label} (change {p.change:+.2f}, gain {p.gain:.2f})" for p in front.itertuples()]
    of = f"{n_seeds} seeds" if n_seeds > 1 else "one seed: no spread"
    counts = {
        "lack some of the seeds: their means are of the others": (there["missing"] > 0).sum(),
        "have no point: values are missing, see missing.csv": len(means) - len(there),
    }
    return [
        f"{name}: not dominated: {', '.join(best[::-1]) or 'none'} (of {len(there)} {several})",
        f"{int(means['n'].sum())} points of single seeds, of {of}",
        *(f"{n} of the {several} {text}" for text, n in counts.items() if n),
    ]


def curve_charts(points: pd.DataFrame, overview: pd.DataFrame) -> list[Chart]:
    """Plot curves (also the means over ALL_TASKS) and half-way steps; no chart without rows."""
    points = points.assign(series=points["model"] + " seed " + points["seed"].astype(str))
    tasks, means = points[points["task"] != ALL_TASKS], points[points["task"] == ALL_TASKS]
    trained = np.where(tasks["trained"], "trained; ", "not trained; ")
    kind = np.where(tasks["measured_by"] == EVALUATED, " test questions", " validation questions")
    panel = pd.Categorical(tasks["task"].map(TASK_PANELS), list(TASK_PANELS.values()))
    by_task = tasks.assign(**{"panel": panel, "the task was": trained + tasks["rows"] + kind})
    charts = (
        _curves("standard", "standard questions", by_task, "the task was"),
        _curves("atlantis", "questions about Atlantis", by_task, "the task was"),
        _mean_curves(means),
        _halfway_chart(overview, _origins(tasks)),
    )
    return [chart for chart in charts if len(chart.table)]


def _curves(
    name: str, what: str, table: pd.DataFrame, group: str, notes: tuple[str, ...] = ()
) -> Curves:
    """Plot a line for each model and seed by step: values of one split by task, or means."""
    look = BY_SPLIT | {"lines": (f"One line for each model and seed. {LEFT_RIGHT}",)}
    if name in PANELS:
        table, look = table[table["split"] == name], BY_TASK
        if n := int((table["panel"].isin(ERRORS) & (table["value"] <= 0)).sum()):
            notes = (f"{n} errors of 0 are not drawn, as they have no logarithm",)
    return Curves(
        name=f"course_{name}", title=f"Over the steps of fine-tuning: {what}",
        table=table.sort_values(["panel", group, "model", "seed", "step"], kind="stable"),
        x="step", x_label=STEP, series="series", group=group, facet="panel",
        hover=("model", "seed", "step", "value", "normalised", "measured_by", "rows", "run_id"),
        marks=table["series"].nunique() <= 40, notes=(_origins(table), *notes), **look,
    )  # fmt: skip


def _mean_curves(means: pd.DataFrame) -> Curves:
    keys = ["model", "seed", "split"]
    own = means.dropna(subset=["normalised"])
    own = own[own.groupby(keys)["step"].transform("size") > 1]  # more than the base, which is 0
    n, known = (len(table.drop_duplicates(keys)) for table in (means, own))
    note = (
        f"{n - known} of {n} curves are not drawn: a task is missing, or has no normalised change "
        "(an error of 0 has no logarithm)"
    )
    table = own.assign(family=family_of(own["ft"]), panel=_split_panels(own["split"]))
    notes = (note,) if n > known else ()
    return _curves("mean", "mean of the seven tasks", table, "family", notes)


def _halfway_chart(overview: pd.DataFrame, origins: str) -> Intervals:
    ends = overview.groupby("family")["last_step"].transform("max")
    table = overview.assign(
        **{
            "panel": overview["family"] + ": " + ends.map("{:.0f} steps in all".format),
            "half of the": overview["split"].map(EVENTS),
        },
        drawn_low=overview["low"].clip(0),
        drawn_high=overview["high"].clip(upper=overview["last_step"]),
    )
    table = table.sort_values("task", key=lambda own: own.map([*TASK_NAMES, ALL_TASKS].index))
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
        table=table.sort_values(["half of the", "family"], kind="stable"), label="task",
        low="drawn_low", high="drawn_high", parts="by_seed", x_label=STEP,
        group="half of the", facet="panel", columns=2, size=(4.6, 3.4),
        hover=("family", "task", "split", "mean", "std", "n", "n_happened", "n_models", "n_early"),
        notes=(
            f"the means are over {happened} of {n} curves of a model, a seed and a task; the other "
            "curves have no net change, or an error of 0, whose logarithm is undefined",
            f"in {early} of the {happened} curves half of the change occurred before the first "
            "measured step: the step is interpolated between 0 and that one",
            origins,
        ),
    )  # fmt: skip


def _split_panels(splits: pd.Series) -> pd.Categorical:
    return pd.Categorical(splits.map(PANELS), list(PANELS.values()))


def _origins(points: pd.DataFrame) -> str:
    """Return how the values were measured, with the number of models and of questions."""
    kinds = points.groupby(["measured_by", "rows"])["run_id"].nunique()
    parts = [f"{n} by {kind}, {rows} questions per value" for (kind, rows), n in kinds.items()]
    return f"curves (model and seed): {'; '.join(parts)}"


def strategy_charts(compared: Comparison) -> list[Chart]:
    """Plot gain against forgetting of each strategy and of its models, and the mean curves."""
    names, n = compared.seeds["strategy"].astype(str), len(compared.fts)
    models = f"the same {n} models" if n > 1 else f"the model {compared.fts[0]}"
    seeds = compared.seeds.assign(label=names, run_id="", model=names)
    charts: list[Chart] = [
        gain_against_loss("strategies", seeds, "strategy", f" and over {models}"),
        gain_against_loss("strategies_by_model", compared.models, "strategy"),
    ]
    if len(compared.curves):
        charts.append(_strategy_curves(compared.curves, models))
    return charts


def _strategy_curves(curves: pd.DataFrame, models: str) -> Curves:
    groups = curves.groupby(["strategy", "split", "place"], sort=False)
    means = groups[["share", "normalised"]].mean().assign(n=groups.size()).reset_index()
    means = means.assign(seed="mean", is_mean=True)
    table = pd.concat([means, curves.assign(is_mean=False, n=1)], ignore_index=True)
    table = table.assign(
        series=table["strategy"] + " seed " + table["seed"].astype(str),
        percent=100 * table["share"],
        panel=_split_panels(table["split"]),
        strategy=pd.Categorical(table["strategy"], STRATEGIES),
    )
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
            f"{curves['seed'].nunique()} seeds; steps of another strategy may cost more: "
            "replay has more of them, as a batch holds fewer new rows",
        ),
        **BY_SPLIT,
    )  # fmt: skip
