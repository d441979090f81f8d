"""Matrices -> panels: the statistics of each matrix, and the words that its figure needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from analysis.figures.heatmap import Panel, Strip
from analysis.figures.kinds import DIFFERENCE, EXPECTED, PERFORMANCE, Kind
from analysis.statistics.matrices import Aggregate, aggregate, expected_matrix, summaries
from analysis.store.evaluations import Improvements
from analysis.store.missing import missing_cells, missing_expected
from worldrep.names import family_in_words, finetunings

__all__ = ["MEAN", "Panel", "Strip", "make_panel", "panels_of", "seeds_in_words"]

MANY_SEEDS = 6
MEAN = "mean over seeds"
ACTUAL, OF_EXPECTED, OF_DIFFERENCE = "", "_expected", "_difference"
KINDS: Mapping[str, Kind] = {ACTUAL: PERFORMANCE, OF_EXPECTED: EXPECTED, OF_DIFFERENCE: DIFFERENCE}
HEADINGS = {ACTUAL: "actual", OF_EXPECTED: "expected", OF_DIFFERENCE: "actual - expected"}


def make_panel(
    name: str,
    title: str,
    kind: Kind,
    matrix: pd.DataFrame | Aggregate,
    heading: str = "",
    **further: Any,
) -> Panel:
    """Return the panel of one matrix, with the statistics of its groups of cells.

    further: of `Panel`, such as notes.
    """
    values = matrix.mean if isinstance(matrix, Aggregate) else matrix
    masks = kind.frame.masks(values)
    further["marked"] = masks[kind.frame.marked] if kind.frame.marked else None
    further["summary"] = summaries(values, masks)
    return Panel(name=name, title=title, kind=kind, matrix=matrix, heading=heading, **further)


def panels_of(
    name: str,
    title: str,
    kind: Kind,
    matrices: Mapping[int, pd.DataFrame],
    heading: str = "",
    cells: pd.DataFrame | None = None,
) -> list[Panel]:
    """Return the panel of each seed's matrix, and that of their mean.

    name: part of the file names that all seeds share; matrices: by seed, with the same rows; cells:
    rows of `improvement_cells`, for the hover texts.
    """
    make = partial(make_panel, kind=kind, heading=heading, stem=name)
    panels = [
        make(
            f"{name}_seed{seed}",
            f"{title}, seed {seed}",
            matrix=matrix,
            which=f"seed {seed}",
            details=None if cells is None else cells[cells["seed"] == seed],
        )
        for seed, matrix in matrices.items()
    ]
    mean, title = aggregate(list(matrices.values())), f"{title}, {seeds_in_words(list(matrices))}"
    return [*panels, make(f"{name}_aggregate", title, matrix=mean, which=MEAN, details=cells)]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return the seeds of a mean as text, such as `mean of seeds 1, 2`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} only: no spread"
    if len(seeds) > MANY_SEEDS:
        return f"mean of {len(seeds)} seeds"
    return f"mean of seeds {', '.join(map(str, seeds))}"


def family_panels(
    found: Improvements, family: str, fts: Sequence[str], *, prefix: str = "", title: str = ""
) -> dict[str, list[Panel]]:
    """Return the panels of a family's actual and expected matrix and their difference, by KINDS.

    A model of one task is its own specialist, so its family has the actual matrix only. prefix:
    start of the file names; title: end of the titles.
    """
    actual = found.matrices(fts)
    matrices = {ACTUAL: actual}
    if family[-1] != "1":
        ones = found.matrices(finetunings(f"{family[:-1]}1"))
        expected = {seed: expected_matrix(fts, ones[seed]) for seed in actual}
        matrices[OF_EXPECTED] = expected
        matrices[OF_DIFFERENCE] = {seed: actual[seed] - expected[seed] for seed in actual}
    head = f"Fine-tuned on {family_in_words(family)}{title}"
    return {
        kind: panels_of(
            f"{prefix}{family}{kind}",
            f"{head}: {HEADINGS[kind]}" if kind else head,
            KINDS[kind],
            by_seed,
            HEADINGS[kind],
            None if kind else found.cells,
        )
        for kind, by_seed in matrices.items()
    }


def family_missing(
    found: Improvements, family: str, fts: Sequence[str], *, prefix: str = ""
) -> pd.DataFrame:
    """Return the missing cells of the family's matrices, with the commands that compute them."""
    name = f"{prefix}{family}"
    tables = [missing_cells(found.cells, name, fts)]
    if family[-1] != "1":
        tables += [
            missing_expected(found.cells, f"{name}{kind}", fts, actual=kind == OF_DIFFERENCE)
            for kind in (OF_EXPECTED, OF_DIFFERENCE)
        ]
    return pd.concat(tables)
