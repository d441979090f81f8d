"""Every fine-tuning with and without warm-up rows, and what the warm-up rows change.

For each family (ft1, ft2, ft3, ftwb1, ftwb2, ftwb3) one figure of its actual matrix, the one that
its one-task models let expect, and the difference; then ftwbN against ftN, model by model.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.command import analysis_command
from analysis.figures.heatmap import Panel, Strip
from analysis.figures.intervals import Intervals
from analysis.figures.kinds import DIFFERENCE
from analysis.options import Options
from analysis.panels import family_panels, family_result, seeds_in_words
from analysis.result import Part, Result
from analysis.statistics.comparison import paired
from analysis.statistics.matrices import aggregate, trained_masks
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.source import Source
from worldrep.names import FAMILIES, FINETUNINGS, finetunings

NAME = "ft_heatmaps"
CELLS = {"overall": "all", "trained": "trained", "transfer": "transfer"}  # -> group of cells
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
    """Return the heatmaps of the families in the store. Raises NothingThere when it has none."""
    found = read_improvements(source, options, tuple(FINETUNINGS))
    evaluated = set(found.cells["ft"][found.cells["value"].notna()])
    families = {family: finetunings(family) for family in FAMILIES}
    present = {family: fts for family, fts in families.items() if evaluated & set(fts)}
    absent = [own for own in families if own not in present]
    both = [n for n in "123" if {f"ft{n}", f"ftwb{n}"} <= set(present)]
    differences = {n: warm_up_differences(found, n) for n in both}
    parts: list[Part] = []
    for kinds in family_panels(found, present).values():
        strips = (Strip(own[0].name, own[0].title, LINES, own) for own in zip(*kinds, strict=True))
        parts += kinds[0] if len(kinds) == 1 else strips
    for n, matrices in differences.items():
        title = f"Warm-up rows: ftwb{n} - ft{n}, {seeds_in_words([*matrices])}"
        mean = aggregate([*matrices.values()])
        parts.append(Panel(f"ftwb{n}_minus_ft{n}", title, WARM_UP, mean))
    if differences:
        parts.append(warm_up_chart(warm_up_table(differences)))
    left_out = [f"{family} is left out: none of its models is evaluated" for family in absent]
    caveats = [*found.caveats, *left_out]
    return family_result(NAME, options, found, present, parts, caveats=caveats)


def warm_up_differences(found: Improvements, n: str) -> dict[int, pd.DataFrame]:
    """Return ftwbN - ftN of each seed, rows named as those of ftwbN."""
    warm, plain = finetunings(f"ftwb{n}"), finetunings(f"ft{n}")
    with_rows, without = found.matrices(warm), found.matrices(plain)
    return {seed: with_rows[seed] - without[seed].set_axis(warm) for seed in found.seeds}


def warm_up_table(differences: dict[str, dict[int, pd.DataFrame]]) -> pd.DataFrame:
    """Return the mean difference over models for each N and kind of cells, with a paired test.

    A model is the unit: its cells of a kind are averaged, then its seeds, as neither the cells of
    one model nor its seeds are independent. A seed that lacks one of these cells is left out of the
    model's mean, a model without any seed is left out of the test; both are counted.
    """
    rows = []
    for n, matrices in differences.items():
        values = np.stack([matrix.to_numpy() for matrix in matrices.values()])
        masks = trained_masks(next(iter(matrices.values())))
        for cells, group in CELLS.items():
            sums = np.where(masks[group], values, 0).sum(axis=2)
            by_seed = pd.DataFrame(sums / masks[group].sum(axis=1), index=list(matrices))
            by_model, known = by_seed.mean(), by_seed.notna()  # by_seed: (seeds, models)
            row: dict[str, Any] = {"comparison": f"ftwb{n} - ft{n}", "cells": cells}
            row |= paired(by_model, np.zeros(len(by_model)))
            row["seeds"] = " ".join(map(str, known.index[known.any(axis=1)]))
            row["seeds_missing"] = int((~known.loc[:, known.any()]).to_numpy().sum())
            rows.append(row | {"models": tuple(by_model.dropna())})
    return pd.DataFrame(rows)


def warm_up_chart(table: pd.DataFrame) -> Intervals:
    """Chart the differences with their 95% intervals. table: of `warm_up_table`."""
    names = table["comparison"] + ": " + table["cells"]
    facts = table.drop(columns=["comparison", "cells", "models"]).to_dict("records")
    return Intervals(
        name="warm_up",
        title="What the warm-up rows change",
        lines=(
            "Mean over models of ftwbN - ftN in normalised improvement; above 0 the warm-up rows "
            "help. Bars: 95% interval over models (Student). Rings: single models.",
        ),
        table=table, label="comparison", value="difference", parts="models", group="cells",
        x_label="difference in normalised improvement (no unit)", reference=0.0,
        size=(6.4, 0.55 * max(3, len(table)) / 1.5),
        notes=tuple(_in_words(row) for row in table.itertuples()),
        statistics={"warm_up": dict(zip(names, facts, strict=True))},
    )  # fmt: skip


def _in_words(row: Any) -> str:
    head = f"{row.comparison}, {row.cells}: "
    if not row.n:
        return head + f"no seed has both of a model ({row.missing} models)"
    lacking = f", {row.seeds_missing} of their seeds missing" if row.seeds_missing else ""
    return (
        f"{head}{row.difference:+.3f} (n = {row.n} models, missing {row.missing}; seeds "
        f"{row.seeds.replace(' ', ', ')}{lacking}; paired t test p = {row.p:.3g}, "
        f"Wilcoxon p = {row.wilcoxon_p:.3g})"
    )


main = analysis_command(NAME, ft_heatmaps)

if __name__ == "__main__":
    main()
