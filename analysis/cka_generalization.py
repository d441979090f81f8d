"""Whether a task carries new cities over to tasks whose models represent the world alike.

For every ordered pair of tasks: the CKA of the models pretrained on one of them alone, against what
fine-tuning pt1 on the first gained on Atlantis in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
import numpy as np
import pandas as pd

from analysis.command import analysis_command
from analysis.figures.scatter import Scatter
from analysis.options import ALL, Options
from analysis.result import Result
from analysis.statistics.similarity import Association, label_permutation_test
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.extractions import DEFAULT, parse_layer
from analysis.store.likeness import LABEL, Family, Likeness, read_family
from analysis.store.missing import missing_cells, missing_table
from analysis.store.selection import NothingThere, Trained, nothing_of
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError
from worldrep.evaluation.improvement import HIGHEST, spread_of
from worldrep.names import FINETUNINGS, TASK_NAMES, finetunings

NAME = "cka_generalization"
FTS = finetunings("ftwb1")
LETTERS = {task: task[0].upper() for task in TASK_NAMES} | {"crossing": "X"}
WITHOUT = "crossing"
POINT_COLUMNS = [
    "label", "fine_tuned_on", "tested_on", "task_tested", "cka", "cka_std", "n_seed_pairs",
    "normalised", "normalised_std", "n_seeds",
]  # fmt: skip


def cka_generalization(source: Source, options: Options, layer: str = DEFAULT) -> Result:
    """CKA against transfer, with and without crossing. Raises NothingThere without any point."""
    family = read_single_tasks(source, options, layer)
    likeness = family.layers[0]
    found = read_improvements(source, options, FTS)
    points = point_table(likeness, found.cells)
    if points[["cka", "normalised"]].isna().any(axis=1).all():
        raise NothingThere(
            f"{source.place} has no pair of tasks with both the CKA of their models (pt1-X) and "
            f"the improvement of a model fine-tuned on one of them (ftwb1-X; {options.in_words})"
        )
    transfer = found.cells[~found.cells["trained"].astype(bool)]
    return Result(
        name=NAME,
        options=options,
        seeds=tuple(sorted({*likeness.seeds, *found.seeds})),
        parts=[
            chart_of(points, TASK_NAMES, likeness, found),
            chart_of(points, [task for task in TASK_NAMES if task != WITHOUT], likeness, found),
        ],
        missing=pd.concat(
            [
                missing_table(family.missing),
                missing_cells(transfer, "ftwb1", FTS),
            ]
        ),
        runs_used=pd.concat([family.runs_used, found.runs_used]),
        caveats=[
            *family.bias_caveats,
            *seed_caveats(likeness, found),
            *family.caveats,
            *found.caveats,
        ],
        tables={"pairs": likeness.pairs, "values": found.cells},
        tags={"pretrain": "pt1", "ft": "ftwb1", "tasks": ",".join(TASK_NAMES)},
    )


def read_single_tasks(source: Source, options: Options, layer: str) -> Family:
    """The likeness of the models pt1-X at one layer.

    Raises InputError for a layer that they lack, NothingThere when there are none.
    """
    at = parse_layer(layer, ALL)
    if at == ALL:
        raise InputError(f"layer={ALL!r} is for the analysis cka; one layer, or {DEFAULT!r}")
    family = read_family(source, options, Trained.read(source, options), "pt1", at)
    if not family:
        kind = "representations of models pretrained on one task (pt1-1 to pt1-7)"
        raise nothing_of(kind, "extract", options, source)
    return family


def seed_caveats(likeness: Likeness, found: Improvements) -> list[str]:
    """What is to be known when the two sides rest on different seeds."""
    if set(likeness.seeds) == set(found.seeds):
        return []
    return [
        f"CKA rests on seeds {_listed(likeness.seeds)}, the improvement on seeds "
        f"{_listed(found.seeds)}: the two sides are means of their own"
    ]


# From tables to points


def point_table(likeness: Likeness, cells: pd.DataFrame) -> pd.DataFrame:
    """A point for each ordered pair of different tasks, with POINT_COLUMNS; missing is NaN.

    cells: of ftwb1 models, as `improvement_cells` gives them. Standard deviations (ddof=1) are over
    pairs of seeds for CKA, over seeds for the improvement.
    """
    tasks = dict(zip(likeness.models, likeness.labels, strict=True))
    pairs = likeness.pairs.assign(
        one=likeness.pairs["model"].map(tasks), other=likeness.pairs["other_model"].map(tasks)
    )
    tuned = cells.assign(task_of=cells["ft"].map(lambda ft: FINETUNINGS[ft][0]))
    rows = []
    for one in TASK_NAMES:
        for other in TASK_NAMES:
            if one != other:
                both = pairs["one"].isin([one, other]) & pairs["other"].isin([one, other])
                alike = pairs["cka"][both & (pairs["one"] != pairs["other"])]
                gains = tuned["normalised"][(tuned["task_of"] == one) & (tuned["task"] == other)]
                rows.append(_point(one, other, alike, gains))
    return pd.DataFrame(rows, columns=POINT_COLUMNS)


def _point(one: str, other: str, alike: pd.Series, gains: pd.Series) -> dict[str, Any]:
    x, y = (spread_of(values.astype(float).dropna().tolist()) for values in (alike, gains))
    return {
        "label": f"{LETTERS[one]}->{LETTERS[other]}",
        "fine_tuned_on": one,
        "tested_on": other,
        "task_tested": "accuracy task" if TASKS[other].accuracy else "error task",
        "cka": x.mean,
        "cka_std": x.std,
        "n_seed_pairs": x.n,
        "normalised": y.mean,
        "normalised_std": y.std,
        "n_seeds": y.n,
    }


def associate(points: pd.DataFrame, tasks: Sequence[str]) -> Association:
    """Whether transfer goes with CKA, among these tasks."""
    matrices = [
        points.pivot(index="fine_tuned_on", columns="tested_on", values=column)
        .reindex(index=tasks, columns=tasks)
        .to_numpy(dtype=float)
        for column in ("cka", "normalised")
    ]
    return label_permutation_test(*matrices)


# From points to a figure


def chart_of(
    points: pd.DataFrame, tasks: Sequence[str], likeness: Likeness, found: Improvements
) -> Scatter:
    """The scatter of all pairs of these tasks, with its fit."""
    own = points[points["fine_tuned_on"].isin(tasks) & points["tested_on"].isin(tasks)]
    own = own.reset_index(drop=True)
    name = NAME if WITHOUT in tasks else f"{NAME}_without_{WITHOUT}"
    fit = associate(own, tasks)
    facts = asdict(fit) | {"missing": len(own) - fit.n}
    sides = {"seeds_of_cka": list(likeness.seeds), "seeds_of_improvement": list(found.seeds)}
    return Scatter(
        name=name,
        title="CKA against generalisation" + ("" if WITHOUT in tasks else f", without {WITHOUT}"),
        lines=lines_of(tasks, likeness, found.seeds),
        table=own.astype({"cka": float, "normalised": float}),
        x="cka",
        y="normalised",
        x_label=f"{LABEL} of the models pretrained on the two tasks, layer {likeness.layer}",
        y_label="normalised improvement (no unit), fine-tuned on the first, tested on the second",
        label="label",
        error=("cka_std", "normalised_std"),
        fit=(fit.slope, fit.intercept) if np.isfinite(fit.slope) else None,
        group="task_tested",
        size=(8.4, 6.2),
        hover=tuple(POINT_COLUMNS),
        notes=notes_of(fit, len(own), own),
        said=(f"{name}: {in_words(fit, len(own))}",),
        statistics={name: facts | sides | {"layer": likeness.layer}},
    )


def lines_of(tasks: Sequence[str], likeness: Likeness, seeds: Sequence[int]) -> tuple[str, ...]:
    letters = ", ".join(f"{LETTERS[task]} {task}" for task in tasks)
    return (
        "A point such as D->T: how alike the models pretrained on distance alone and on "
        f"trianglearea alone represent the {likeness.n_cities} world cities, against what "
        "fine-tuning pt1 on distance gained on Atlantis in trianglearea.",
        f"{letters}. Improvement 0: as bad as the base on Atlantis, 1: as good as on the cities "
        f"that it knows; cut off at 0 and {HIGHEST}.",
        f"CKA: mean over pairs of seeds {_listed(likeness.seeds)}. Improvement: mean over seeds "
        f"{_listed(seeds)}. {_bars(likeness.seeds, seeds)}",
    )


def _bars(*sides: Sequence[int]) -> str:
    if max(map(len, sides)) == 1:
        return "One seed only: no spread."
    return "Bars: standard deviation over them, where there are two or more."


def notes_of(fit: Association, n: int, points: pd.DataFrame) -> tuple[str, ...]:
    """The correlation, what to make of it, and which points are missing."""
    notes = [f"Line: least squares. {in_words(fit, n).capitalize()}."]
    if np.isfinite(fit.r):
        notes.append(
            "Trust the permutation test (rows and columns of CKA relabelled together, "
            f"{fit.n_permutations:,} ways): CKA is symmetric, so that each x occurs twice, and "
            "every task is in many points; the other p takes them for independent."
        )
    lacking = points["label"][points[["cka", "normalised"]].isna().any(axis=1)]
    if len(lacking):
        notes.append(
            f"Missing: {len(lacking)} of {n} points ({', '.join(lacking)}); missing.csv has the "
            "commands that fill them."
        )
    return tuple(notes)


def in_words(fit: Association, n: int) -> str:
    """Such as `r = 0.35, p = 0.055 as if independent, ...`."""
    counted = f"n = {fit.n}, missing {n - fit.n}"
    if not np.isfinite(fit.r):
        return f"no correlation, which needs 3 points that differ ({counted})"
    return (
        f"Pearson r = {fit.r:.2f}, permutation p = {fit.permutation_p:.2g}, "
        f"p = {fit.p:.2g} as if points were independent ({counted})"
    )


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


main = analysis_command(
    NAME,
    cka_generalization,
    click.option(
        "--layer", default=DEFAULT, show_default=True, help="A layer, or that of extractions."
    ),
)

if __name__ == "__main__":
    main()
