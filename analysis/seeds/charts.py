"""Charts over seeds: the scores of each model with its seeds, and the differences of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.intervals import Intervals
from analysis.panels import seeds_in_words
from analysis.seeds.comparisons import LEVEL, spread_bounds, summary_of
from analysis.store.evaluations import MEANS
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
HOW = (
    "Large: the mean{of} over seeds, with Student's 95% interval (cut at the frame where it is "
    "wider). Rings: the seeds."
)


def charts(
    spread: pd.DataFrame,
    compared: pd.DataFrame,
    seeds: Sequence[int],
    against: str,
    difference: float,
) -> list[Chart]:
    """Return the charts of what models score and how they differ, as far as there are values.

    against: model that all others are compared with; empty for all pairs.
    """
    parts: list[Chart] = []
    improved = spread["quantity"].isin(MEANS)
    if improved.any():
        parts.append(_improvement_chart(spread, seeds))
    others = spread[~spread["model"].isin(spread["model"][improved])]
    if others["quantity"].isin(STANDARD).any():
        parts.append(_standard_chart(others, seeds))
    if compared["quantity"].isin((*MEANS, *STANDARD)).any():
        parts.append(_difference_chart(compared, seeds, against, difference))
    return parts


def _improvement_chart(spread: pd.DataFrame, seeds: Sequence[int]) -> Intervals:
    return _spread_chart(
        _of(spread, MEANS),
        name="improvement",
        title=f"Normalised improvement on Atlantis, by model, {seeds_in_words(list(seeds))}",
        line="0: as the base on Atlantis; 1: as the base on ordinary cities (clipped to 0..1.5)",
        columns=2,
        width=4.6,
        x_label="normalised improvement",
    )


def _standard_chart(spread: pd.DataFrame, seeds: Sequence[int]) -> Intervals:
    return _spread_chart(
        _of(spread, STANDARD),
        name="standard",
        title=f"Scores on ordinary cities, by model, {seeds_in_words(list(seeds))}",
        line="Errors: lower is better; shares of right answers: higher is better",
        columns=4,
        width=3.0,
        x_label="",
    )


def _spread_chart(
    table: pd.DataFrame, *, name: str, line: str, width: float, **fields: Any
) -> Intervals:
    partial = int((table["missing"] > 0).sum())
    note = f"{partial} of {len(table)} rows lack some of the seeds: n in brackets"
    counts = table["n"].map(" (n = {})".format)
    return Intervals(
        name=name,
        table=table.assign(label=table["model"] + counts.where(table["missing"] != 0, "")),
        label="label",
        value="mean",
        low="low",
        high="high",
        parts="parts",
        group="family",
        facet="what",
        size=(width, _height(table, "model")),
        hover=("model", "mean", "std", "low", "high", "n", "seeds"),
        lines=(f"{HOW.format(of='')} {line}",),
        notes=(note,) if partial else (),
        said=tuple(_spread_lines(table, name)),
        statistics={name: _spread_statistics(table)},
        **fields,
    )


def _spread_lines(table: pd.DataFrame, name: str) -> list[str]:
    """Return the printed line of each model."""
    lines = []
    for model, own in table.groupby("model", sort=False):
        parts = [
            f"{row.quantity.removeprefix('improvement/').removesuffix('/mean')} {row.mean:.3g}"
            + ("" if math.isnan(row.low) else f" [{row.low:.3g}, {row.high:.3g}]")
            for row in own.itertuples()
        ]
        lines.append(f"{name}: {model}: {', '.join(parts)} (n = {own['n'].max()})")
    return lines


def _spread_statistics(table: pd.DataFrame) -> dict[str, Any]:
    kept = ["mean", "std", "low", "high", "n", "missing"]
    return {
        str(model): own.set_index("quantity")[kept].to_dict("index")
        for model, own in table.groupby("model", sort=False)
    }


def _difference_chart(
    compared: pd.DataFrame, seeds: Sequence[int], against: str, difference: float
) -> Intervals:
    """Chart the improvements' differences, or those of the standard scores if there are none."""
    improved = bool(compared["quantity"].isin(MEANS).any())
    quantities = MEANS if improved else STANDARD
    table = _of(compared, quantities)
    labels = [_pair_label(row, against) for row in table.itertuples()]
    tested = pd.Categorical(map(_tested, table["p_holm"]), TESTED)
    table = table.assign(label=labels, corrected_p=tested)
    facts = {str(name): summary_of(own) for name, own in compared.groupby("quantity", sort=False)}
    shown = {name: facts[name] for name in quantities if name in facts}
    lines = _detectable_lines(shown, difference)
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
        columns=2 if improved else 4,
        size=(4.2 if improved else 2.6, _height(table, "label")),
        x_label="difference of the normalised improvement" if improved else "difference",
        hover=("first", "second", "difference", "std", "n", "p", "p_holm", "detectable", "seeds"),
        lines=(
            HOW.format(of=" difference"),
            "p: paired t test, two-sided, corrected (Holm) for the tests in the same axes.",
        ),
        notes=tuple(_difference_notes(int(compared["n"].max()), improved, lines)),
        said=tuple(lines),
        statistics={"differences": facts},
    )


def _of(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return the rows of some quantities, in their order, with the title of each one's axes."""
    own = table[table["quantity"].isin(quantities)]
    titles = pd.Categorical(own["quantity"].map(TITLES), [TITLES[q] for q in quantities])
    return own.assign(what=titles).sort_values("what", kind="stable", ignore_index=True)


def _height(table: pd.DataFrame, rows: str) -> float:
    return max(1.2, ROW * float(table.groupby("what", observed=True)[rows].nunique().max()))


def _pair_label(row: Any, against: str) -> str:
    names = row.first if against else f"{row.first} - {row.second}"
    p = "" if math.isnan(row.p_holm) else f", p = {_short(row.p_holm)}"
    return f"{names} (n = {row.n}{p})"


def _short(p: float) -> str:
    return "1" if p >= 0.995 else f"{p:.2f}" if p >= 0.01 else f"{p:.1g}"


def _tested(p: float) -> str:
    return TESTED[2] if math.isnan(p) else TESTED[0] if p < LEVEL else TESTED[1]


def _difference_notes(n_seeds: int, improved: bool, lines: Sequence[str]) -> list[str]:
    notes = [f"pairs of {n_seeds} seeds at most; comparisons.csv has all quantities"]
    if improved:
        notes.append(
            "the tasks trained on, and the others, are each model's own; the improvement of a base "
            "is 0 by definition"
        )
    if n_seeds < 2:
        return [*notes, "one seed has no spread: there is no interval and no test"]
    low, high = spread_bounds(n_seeds)
    return [
        *notes,
        *lines,
        f"such numbers rest on the spread of {n_seeds} seeds; the true one may be {low:.2g} to "
        f"{high:.2g} times as large (95%)",
    ]


def _detectable_lines(facts: dict[str, dict[str, float]], difference: float) -> list[str]:
    """Return what can be told apart with these seeds, one line for each tested quantity."""
    lines = []
    for quantity, own in facts.items():
        if not own["tests"]:
            continue
        line = (
            f"{quantity}: {own['below_level']} of {own['tests']} differences have a corrected "
            f"p below {LEVEL:g}; detectable with power 0.8: {own['detectable_median']:.2g} "
            "(median)"
        )
        needed = own["seeds_needed_median"]
        if not math.isnan(needed):
            line += f"; a difference of {difference:g} takes {needed:,.0f} seeds (median)"
        lines.append(line)
    return lines
