"""Every fine-tuning with and without warm-up rows, and what the warm-up rows change.

For each family (ft1, ft2, ft3, ftwb1, ftwb2, ftwb3) one figure of its actual matrix, the one that
its one-task models let expect, and the difference; then ftwbN against ftN, model by model.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from analysis.command import analysis_command
from analysis.drawing.heatmap import DIFFERENCE, EXPECTED, PERFORMANCE
from analysis.drawing.intervals import Intervals
from analysis.drawing.panels import Panel, Strip, panels_of, seeds_in_words
from analysis.formulas.comparison import paired
from analysis.formulas.matrices import aggregate, expected_matrix, trained_mask
from analysis.options import Options
from analysis.reading.cells import missing_cells, missing_expected
from analysis.reading.improvements import Improvements, finetunings, read_improvements
from analysis.reading.source import Source
from analysis.result import Part, Result
from worldrep.names import FINETUNINGS, TASK_NAMES

NAME = "ft_heatmaps"
FAMILIES = ("ft1", "ft2", "ft3", "ftwb1", "ftwb2", "ftwb3")
COUNTS = {"1": "one task", "2": "two tasks", "3": "three tasks"}
CELLS = ("overall", "trained", "transfer")
LINES = (
    "Left: what fine-tuning gained on Atlantis; 0 is as bad as the base, 1 as good as the base on "
    "the cities that it knows. Middle: the best of the models fine-tuned on one of the same tasks.",
    "Right: actual - expected. Blue, above 0: training together helps. Red: it interferes.",
)
WARM_UP = replace(
    DIFFERENCE,
    label="ftwbN - ftN (normalised improvement)",
    lines=(
        "With warm-up rows minus without, the same tasks and seed.",
        "Blue, above 0: the warm-up rows help. Red, below 0: they harm.",
    ),
)


def ft_heatmaps(source: Source, options: Options) -> Result:
    """Heatmaps of the families that the store has. Raises StateError when it has none."""
    found = read_improvements(source, options, tuple(FINETUNINGS))
    present = [
        family
        for family in FAMILIES
        if not found.cells[found.cells["ft"].isin(finetunings(family))]["value"].isna().all()
    ]
    absent = [family for family in FAMILIES if family not in present]
    caveats = [f"{family} is left out: none of its models is evaluated" for family in absent]
    parts: list[Part] = [part for family in present for part in family_parts(found, family)]
    parts += warm_up_parts(found, present)
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=parts,
        missing=_missing(found, present),
        runs_used=found.runs_used,
        caveats=[*found.caveats, *caveats],
        tables={"values": found.cells},
        tags={"pretrain": "pt1", "ft": ",".join(present), "tasks": ",".join(TASK_NAMES)},
    )


def family_parts(found: Improvements, family: str) -> list[Part]:
    """The figures of one family: of each seed, and of the mean over seeds.

    A model of one task is its own specialist, so that nothing is expected of it.
    """
    fts, count = finetunings(family), COUNTS[family[-1]]
    warm = " and warm-up rows" if family.startswith("ftwb") else ""
    title = f"Fine-tuned on {count}{warm} ({family})"
    actual = found.matrices(fts)
    if family[-1] == "1":
        return [*panels_of(family, title, PERFORMANCE, actual, cells=found.cells)]
    ones = found.matrices(finetunings(f"{family[:-1]}1"))
    expected = {seed: expected_matrix(fts, ones[seed]) for seed in found.seeds}
    difference = {seed: actual[seed] - expected[seed] for seed in found.seeds}
    columns = (
        panels_of(family, title, PERFORMANCE, actual, "actual", found.cells),
        panels_of(f"{family}_expected", title, EXPECTED, expected, "expected"),
        panels_of(f"{family}_difference", title, DIFFERENCE, difference, "actual - expected"),
    )
    return [_strip(panels) for panels in zip(*columns, strict=True)]


def _strip(panels: tuple[Panel, ...]) -> Strip:
    return Strip(panels[0].name, panels[0].title, LINES, panels)


def warm_up_parts(found: Improvements, present: list[str]) -> list[Part]:
    """ftwbN - ftN for every N of which both are there: heatmaps, and all intervals in one chart."""
    counts = [n for n in COUNTS if f"ft{n}" in present and f"ftwb{n}" in present]
    parts: list[Part] = []
    differences = {n: _differences(found, n) for n in counts}
    for n, matrices in differences.items():
        title = f"Warm-up rows: ftwb{n} - ft{n}, {seeds_in_words(found.seeds)}"
        mean = aggregate(list(matrices.values()))
        parts.append(Panel(f"ftwb{n}_minus_ft{n}", title, WARM_UP, mean))
    if counts:
        parts.append(warm_up_chart(differences))
    return parts


def _differences(found: Improvements, n: str) -> dict[int, pd.DataFrame]:
    """ftwbN - ftN of each seed, rows named as those of ftwbN."""
    warm, plain = finetunings(f"ftwb{n}"), finetunings(f"ft{n}")
    with_rows, without = found.matrices(warm), found.matrices(plain)
    return {seed: with_rows[seed] - without[seed].set_axis(warm) for seed in found.seeds}


def warm_up_chart(differences: dict[str, dict[int, pd.DataFrame]]) -> Intervals:
    """The mean difference over models, with its 95% interval, and a paired test.

    A model is the unit: its cells of a kind are averaged, over seeds too, as neither the cells of
    one model nor its seeds are independent. A model that lacks one of these cells is left out and
    counted.
    """
    rows, statistics = [], {}
    for n, matrices in differences.items():
        mean = np.mean([matrix.to_numpy() for matrix in matrices.values()], axis=0)
        trained = trained_mask(list(next(iter(matrices.values())).index)).to_numpy()
        masks = dict(zip(CELLS, (np.ones_like(trained), trained, ~trained), strict=True))
        for cells, mask in masks.items():
            by_model = np.where(mask, mean, 0).sum(axis=1) / mask.sum(axis=1)
            test = paired(by_model, np.zeros_like(by_model))
            statistics[f"ftwb{n} - ft{n}: {cells}"] = asdict(test)
            rows.append(
                {
                    "comparison": f"ftwb{n} - ft{n}", "cells": cells, **asdict(test),
                    "models": tuple(by_model[~np.isnan(by_model)]),
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    said = [
        f"{row.comparison}, {row.cells}: {row.difference:+.3f} (n = {row.n} models, missing "
        f"{row.missing}; paired t test p = {row.p:.3g}, Wilcoxon p = {row.wilcoxon_p:.3g})"
        for row in table.itertuples()
    ]
    return Intervals(
        name="warm_up",
        title="What the warm-up rows change",
        lines=(
            "Mean over models of ftwbN - ftN in normalised improvement; above 0 the warm-up rows "
            "help. Bars: 95% interval over models (Student). Rings: single models.",
        ),
        table=table,
        x_label="difference in normalised improvement (no unit)",
        label="comparison",
        value="difference",
        low="low",
        high="high",
        parts="models",
        group="cells",
        reference=0.0,
        notes=tuple(said),
        said=tuple(said),
        statistics={"warm_up": statistics},
        size=(6.4, 0.55 * max(3, 3 * len(differences)) / 1.5),
    )


def _missing(found: Improvements, present: list[str]) -> pd.DataFrame:
    """What the figures lack. A family of which the store has nothing is a caveat, not a gap."""
    tables = []
    for family in present:
        fts = finetunings(family)
        tables.append(missing_cells(found.cells, family, fts))
        if family[-1] != "1":
            names = f"{family}_expected", f"{family}_difference"
            tables += [
                missing_expected(found.cells, name, fts, actual=actual)
                for name, actual in zip(names, (False, True), strict=True)
            ]
    return pd.concat(tables)


main = analysis_command(NAME, ft_heatmaps)

if __name__ == "__main__":
    main()
