"""Figures over seeds: what models score, with the seeds behind it, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.figures.intervals import Intervals
from analysis.panels import seeds_in_words
from analysis.statistics.over_seeds import LEVEL, spread_bounds
from analysis.store.scores import MEANS
from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES

STANDARD = tuple(f"standard/{task}/mean" for task in TASK_NAMES)
TITLES = {
    MEANS[0]: "mean over the tasks trained on",
    MEANS[1]: "mean over the other tasks (transfer)",
    **{f"standard/{task}/mean": f"standard: {task} ({TASKS[task].unit})" for task in TASK_NAMES},
}
TESTED = [f"below {LEVEL:g}", f"{LEVEL:g} or more", "no test"]
ROW = 0.22  # inches


def improvement_chart(spreads: pd.DataFrame, seeds: Sequence[int]) -> Intervals:
    """Trained and transfer mean of the fine-tuned models."""
    return _spread_chart(
        spreads, MEANS, seeds, "improvement", "Normalised improvement on Atlantis, by model",
        "0: as the base on Atlantis; 1: as the base on ordinary cities (clipped to 0..1.5)",
        "normalised improvement",
    )  # fmt: skip


def standard_chart(spreads: pd.DataFrame, seeds: Sequence[int]) -> Intervals:
    """The tasks' scores on ordinary cities, for models without improvements."""
    return _spread_chart(
        spreads, STANDARD, seeds, "standard", "Scores on ordinary cities, by model",
        "Errors: lower is better; shares of right answers: higher is better", "",
    )  # fmt: skip


def _spread_chart(
    spreads: pd.DataFrame,
    quantities: Sequence[str],
    seeds: Sequence[int],
    name: str,
    title: str,
    line: str,
    x_label: str,
) -> Intervals:
    table = _of(spreads, quantities)
    table["label"] = [
        row.model if row.missing == 0 else f"{row.model} (n = {row.n})"
        for row in table.itertuples()
    ]
    partial = int((table["missing"] > 0).sum())
    notes = [f"{partial} of {len(table)} rows lack some of the seeds: n in brackets"]
    return Intervals(
        name=name,
        title=f"{title}, {seeds_in_words(list(seeds))}",
        table=table,
        label="label",
        value="mean",
        low="low",
        high="high",
        parts="parts",
        group="family",
        facet="what",
        columns=2 if len(quantities) < 4 else 4,
        size=(4.6 if len(quantities) < 4 else 3.0, _height(table)),
        x_label=x_label,
        hover=("model", "mean", "std", "low", "high", "n", "seeds"),
        lines=(
            "Large: the mean over seeds, with Student's 95% interval (cut at the frame where it is "
            f"wider). Rings: the seeds. {line}",
        ),
        notes=tuple(notes if partial else ()),
        said=tuple(_said(table, name)),
        statistics={name: _statistics(table)},
    )


def difference_chart(
    compared: pd.DataFrame, seeds: Sequence[int], against: str, difference: float
) -> Intervals:
    """Paired differences of the improvements, or of the standard scores if there are none.

    against: the model that all others are compared with; empty for all pairs.
    """
    improved = compared["quantity"].isin(MEANS).any()
    quantities = MEANS if improved else STANDARD
    table = _of(compared, quantities)
    table["label"] = [_pair_label(row, against) for row in table.to_dict("records")]
    table["corrected_p"] = pd.Categorical(map(_tested, table["p_holm"]), TESTED)
    few = len(quantities) < 4
    what = f"Differences from {against}" if against else "Differences between models"
    return Intervals(
        name="differences",
        title=f"{what}, paired by seed: {seeds_in_words(list(seeds))}",
        table=table,
        label="label",
        value="difference",
        low="low",
        high="high",
        parts="parts",
        reference=0.0,
        group="corrected_p",
        facet="what",
        columns=2 if few else 4,
        size=(4.2 if few else 2.6, _height(table)),
        x_label="difference of the normalised improvement" if improved else "difference",
        hover=("first", "second", "difference", "std", "n", "p", "p_holm", "detectable", "seeds"),
        lines=(
            "Large: the mean difference over seeds, with Student's 95% interval (cut at the frame "
            "where it is wider). Rings: the seeds.",
            "p: paired t test, two-sided, corrected (Holm) for the tests in the same axes.",
        ),
        notes=tuple(_difference_notes(compared, quantities, difference)),
        said=tuple(_said_differences(compared, quantities, difference)),
        statistics={"differences": {
            quantity: _summary(own)
            for quantity, own in compared.groupby("quantity", sort=False)
        }},
    )  # fmt: skip


def _of(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """The rows of some quantities, in their order, with the name of each one's axes."""
    own = table[table["quantity"].isin(quantities)].copy()
    own["what"] = pd.Categorical(own["quantity"].map(TITLES), [TITLES[q] for q in quantities])
    return own.sort_values("what", kind="stable", ignore_index=True)


def _height(table: pd.DataFrame) -> float:
    return max(1.2, ROW * float(table.groupby("what", observed=True)["label"].nunique().max()))


def _pair_label(row: dict, against: str) -> str:
    names = row["first"] if against else f"{row['first']} - {row['second']}"
    p = "" if math.isnan(row["p_holm"]) else f", p = {_short(row['p_holm'])}"
    return f"{names} (n = {row['n']}{p})"


def _short(p: float) -> str:
    return "1" if p >= 0.995 else f"{p:.2f}" if p >= 0.01 else f"{p:.1g}"


def _tested(p: float) -> str:
    if math.isnan(p):
        return TESTED[2]
    return TESTED[0] if p < LEVEL else TESTED[1]


def _difference_notes(
    compared: pd.DataFrame, quantities: Sequence[str], difference: float
) -> list[str]:
    most = int(compared["n"].max())
    notes = [f"pairs of {most} seeds at most; comparisons.csv has all quantities"]
    if quantities == MEANS:
        notes.append(
            "the tasks trained on, and the others, are each model's own; the improvement of a base "
            "is 0 by definition"
        )
    if most < 2:
        return [*notes, "one seed has no spread: there is no interval and no test"]
    low, high = spread_bounds(most)
    notes += _said_differences(compared, quantities, difference)
    notes.append(
        f"such numbers rest on the spread of {most} seeds; the true one may be {low:.2g} to "
        f"{high:.2g} times as large (95%)"
    )
    return notes


def _said_differences(
    compared: pd.DataFrame, quantities: Sequence[str], difference: float
) -> list[str]:
    """What can be told apart with these seeds, one line for each quantity."""
    lines = []
    for quantity in quantities:
        facts = _summary(compared[compared["quantity"] == quantity])
        if not facts["tests"]:
            continue
        line = (
            f"{quantity}: {facts['below_level']} of {facts['tests']} differences have a corrected "
            f"p below {LEVEL:g}; detectable with power 0.8: {facts['detectable_median']:.2g} "
            "(median)"
        )
        if not math.isnan(facts["seeds_needed_median"]):
            needed = facts["seeds_needed_median"]
            line += f"; a difference of {difference:g} takes {needed:,.0f} seeds (median)"
        lines.append(line)
    return lines


def _summary(own: pd.DataFrame) -> dict[str, float]:
    return {
        "pairs": len(own),
        "tests": int(own["p"].notna().sum()),
        "below_level": int((own["p_holm"] < LEVEL).sum()),
        "detectable_median": float(own["detectable"].median()),
        "seeds_needed_median": float(own["seeds_needed"].median()),
    }


def _said(table: pd.DataFrame, name: str) -> list[str]:
    lines = []
    for model, own in table.groupby("model", sort=False):
        parts = [
            f"{row.quantity.removeprefix('improvement/').removesuffix('/mean')} {row.mean:.3g}"
            + ("" if math.isnan(row.low) else f" [{row.low:.3g}, {row.high:.3g}]")
            for row in own.itertuples()
        ]
        lines.append(f"{name}: {model}: {', '.join(parts)} (n = {own['n'].max()})")
    return lines


def _statistics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    kept = ["mean", "std", "low", "high", "n", "missing"]
    return {
        str(model): {
            row["quantity"]: {name: row[name] for name in kept} for row in own.to_dict("records")
        }
        for model, own in table.groupby("model", sort=False)
    }
