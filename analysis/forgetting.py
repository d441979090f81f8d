"""What fine-tuning costs: how far models forget the cities that their base knew.

For every model that is fine-tuned from pt1, against the very base that it started from: the change
on standard questions, what it gained on Atlantis for that, and the time course of both. Where the
store has several strategies of fine-tuning, they are compared, whichever the rest is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.charts.gain_against_loss import gain_against_loss
from analysis.charts.strategies import strategy_charts
from analysis.charts.time_courses import family_of, halfway_chart, mean_course, task_courses
from analysis.command import analysis_command
from analysis.figures.kinds import FINETUNED, Kind
from analysis.options import Options
from analysis.panels import panels_of
from analysis.result import Part, Result
from analysis.statistics.courses import halfway_summary, halfway_table, mean_courses
from analysis.statistics.matrices import summary, to_matrix
from analysis.store.cells import missing_cells
from analysis.store.changes import NO_LOGARITHM
from analysis.store.checkpoint_courses import VALIDATED, Courses, read_courses
from analysis.store.forgotten import Changes, plane_points, read_changes
from analysis.store.improvements import PRETRAIN
from analysis.store.source import Source
from analysis.store.strategies import read_compared
from analysis.store.tables import missing_table
from worldrep.data.tasks import TASKS
from worldrep.evaluation.spread import spread_of
from worldrep.names import FAMILIES, TASK_NAMES, family_in_words, finetunings

NAME = "forgetting"
# Fine-tuning may raise errors some hundredfold, of which the logarithm is about -5 to -6.
CHANGE = Kind(
    "normalised change on standard questions (no unit)",
    (
        "The change from the model's own base on the cities that the base knows. Red, below 0: "
        "forgotten. Blue, above 0: improved.",
        "Errors: ln(before / after); -2.30 is ten times, -4.61 a hundred times the error. "
        "Accuracies: (after - before) / (1 - before); -1 is twice as many wrong answers.",
    ),
    "RdBu",
    (-6.0, 6.0),
    "both",
    "{:+.2f}",
    None,
    replace(FINETUNED, columns="tested on (standard questions, none about Atlantis)"),
)


def forgetting(source: Source, options: Options) -> Result:
    """Changes on standard questions. Raises NothingThere when there is nothing to draw."""
    changes = read_changes(source, options)
    found = changes.found
    courses = read_courses(source, found, options.names | {"pretrain": PRETRAIN})
    parts, tables, statistics = course_parts(courses, changes.families)
    compared = read_compared(source, options, changes, courses)
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=[*heatmaps(changes), plane(changes), *parts, *strategy_charts(compared)],
        missing=pd.concat([missing(changes, courses), compared.missing], ignore_index=True),
        runs_used=_runs_used(found.runs_used, courses.runs, compared.runs),
        caveats=[*found.caveats, *_caveats(changes, courses), *compared.caveats],
        tables={"values": changes.cells, **raw_tables(changes.cells), **tables, **compared.tables},
        statistics={
            "raw_change": raw_statistics(changes.cells),
            **statistics,
            **compared.statistics,
        },
        tags={
            "pretrain": PRETRAIN,
            "ft": ",".join(changes.families),
            "tasks": ",".join(TASK_NAMES),
        },
    )


# The change at the end


def heatmaps(changes: Changes) -> list[Part]:
    """The normalised change of each family, for each seed and in the mean."""
    parts: list[Part] = []
    for family in changes.families:
        title = f"Forgetting: fine-tuned on {family_in_words(family)}"
        matrices = {
            seed: to_matrix(changes.cells, finetunings(family), seed, "normalised_change")
            for seed in changes.found.seeds
        }
        parts += panels_of(f"change_{family}", title, CHANGE, matrices)
    return parts


def plane(changes: Changes) -> Part:
    """The Atlantis gain against the standard change, one point per model."""
    points = plane_points(changes)
    return gain_against_loss(
        points.assign(label=points["ft"], family=family_of(points["ft"], FAMILIES)),
        "family",
        name="gain_against_loss",
        title="What fine-tuning gains on Atlantis, and what it forgets",
    )


def raw_tables(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Raw changes: of every model and seed, and in the mean over seeds; columns name the units."""
    columns = {task: f"{task} ({TASKS[task].unit})" for task in TASK_NAMES}
    by_seed = cells.pivot(index=["model", "seed"], columns="task", values="raw_change")
    by_seed = by_seed.reindex(columns=list(columns)).rename(columns=columns)
    rows = []
    for (model, task), own in cells.groupby(["model", "task"], sort=False):
        spread = spread_of(own["raw_change"].dropna().to_numpy())
        numbers = {"mean": spread.mean, "std": spread.std, "low": spread.low, "high": spread.high}
        known = {"model": model, "task": task, "unit": TASKS[task].unit}
        rows.append(known | numbers | {"n": spread.n, "missing": len(own) - spread.n})
    return {
        "raw_change": by_seed.sort_index(level="seed", sort_remaining=False).reset_index(),
        "raw_change_over_seeds": pd.DataFrame(rows),
    }


def raw_statistics(cells: pd.DataFrame) -> dict[str, Any]:
    """Raw change by family and task, of the models trained on it and of the others (ddof=0)."""
    facts: dict[str, Any] = {}
    table = cells.assign(
        family=cells["ft"].str.partition("-")[0],
        kind=cells["trained"].map({True: "trained", False: "transfer"}),
    )
    for (family, task, kind), own in table.groupby(["family", "task", "kind"], sort=False):
        by_task = facts.setdefault(family, {}).setdefault(task, {"unit": TASKS[task].unit})
        by_task[kind] = summary(own["raw_change"].to_numpy(dtype=float))
    return facts


# The time course


def course_parts(
    courses: Courses, families: Sequence[str]
) -> tuple[list[Part], dict[str, pd.DataFrame], dict[str, Any]]:
    """Figures, tables and statistics of the time courses; none if there are none."""
    if courses.points.empty:
        return [], {}, {}
    points = pd.concat([courses.points, mean_courses(courses.points)], ignore_index=True)
    halfway = halfway_table(points)
    overview = halfway_summary(halfway, family_of(halfway["ft"], FAMILIES))
    own = points["task"].isin(TASK_NAMES)
    charts = (
        task_courses(points[own], "standard", "course_standard"),
        task_courses(points[own], "atlantis", "course_atlantis"),
        mean_course(points, FAMILIES, "course_mean"),
        halfway_chart(overview, courses.points, "halfway_by_task"),
    )
    parts: list[Part] = [chart for chart in charts if len(chart.table)]
    return parts, {"halfway": halfway}, {"halfway": halfway_statistics(overview)}


def halfway_statistics(overview: pd.DataFrame) -> dict[str, Any]:
    """By family, split and task."""
    facts: dict[str, Any] = {}
    kept = ["mean", "std", "low", "high", "n", "n_happened", "n_models", "n_early"]
    for _, row in overview.iterrows():
        by_split = facts.setdefault(str(row["family"]), {}).setdefault(row["split"], {})
        by_split[row["task"]] = {name: row[name] for name in kept}
    return facts


# What a reader has to know


def missing(changes: Changes, courses: Courses) -> pd.DataFrame:
    """Cells without a change, cells without a gain, models without a full time course."""
    tables = [
        table
        for family in changes.families
        for table in (
            missing_cells(changes.cells, f"change_{family}", finetunings(family)),
            missing_cells(changes.gains, f"gain_{family}", finetunings(family)),
        )
    ]
    return pd.concat([*tables, missing_table(courses.absent)], ignore_index=True)


def _runs_used(*tables: pd.DataFrame) -> pd.DataFrame:
    runs = pd.concat(tables)
    return runs[~runs.index.duplicated()].sort_values(["seed", "model"], kind="stable")


def _caveats(changes: Changes, courses: Courses) -> list[str]:
    cells = changes.cells
    caveats = []
    absent = [family for family in FAMILIES if family not in changes.families]
    if absent:
        caveats.append(f"{', '.join(absent)}: left out, the store has no such model")
    accuracies = cells["task"].map(lambda task: TASKS[task].accuracy)
    perfect = cells[accuracies & (cells["before"] == 1)]
    if len(perfect):
        caveats.append(
            f"{_bases(perfect)}: the base is perfect, so that the normalised change is the raw one"
        )
    zero = cells[cells["reason"] == NO_LOGARITHM]
    if len(zero):
        caveats.append(f"{_bases(zero)}: {NO_LOGARITHM}")
    points = courses.points
    if points.empty:
        return [*caveats, "no model has a time course: neither checkpoints nor validations by step"]
    validated = points[points["measured_by"] == VALIDATED]
    if len(validated):
        n, rows = validated["run_id"].nunique(), ", ".join(sorted(set(validated["rows"])))
        caveats.append(
            f"the time courses of {n} of {points['run_id'].nunique()} models and seeds are of the "
            f"validations while training ({rows} questions a point, others than those of the "
            "evaluation), as only their last checkpoint is evaluated; `-e evaluate -P "
            "checkpoints=all` measures them, missing.csv (course) has the commands"
        )
    return caveats


def _bases(cells: pd.DataFrame) -> str:
    kinds = cells.groupby("task", sort=False)["seed"].unique()
    return "; ".join(
        f"{task} of seeds {', '.join(map(str, seeds))}" for task, seeds in kinds.items()
    )


main = analysis_command(NAME, forgetting)

if __name__ == "__main__":
    main()
