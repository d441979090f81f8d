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
from worldrep.names import FINETUNINGS, family_in_words, finetunings

__all__ = ["MEAN", "Panel", "Strip", "make_panel", "panels_of", "seeds_in_words"]

MANY_SEEDS = 6
MEAN = "mean over seeds"
KINDS: Mapping[str, tuple[Kind, str]] = {  # end of the file name -> kind and heading
    "": (PERFORMANCE, "actual"),
    "_expected": (EXPECTED, "expected"),
    "_difference": (DIFFERENCE, "actual - expected"),
}


def make_panel(
    name: str,
    title: str,
    kind: Kind,
    matrix: pd.DataFrame | Aggregate,
    heading: str = "",
    **further: Any,
) -> Panel:
    """Return the panel of one matrix, with its statistics; further: of `Panel`, such as notes."""
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

    name: start of the file names; cells: rows of `improvement_cells`, for the hover texts.
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
    found: Improvements, families: Mapping[str, Sequence[str]], prefix: str = "", title: str = ""
) -> dict[tuple[str, str], list[Panel]]:
    """Return the panels of each family and kind of matrix: actual, expected and the difference.

    families: family -> fine-tunings; a model of one task is its own specialist, so its family has
    the actual matrix only. prefix: start of the file names; title: end of the titles.
    """
    panels = {}
    for family, fts in families.items():
        matrices = [found.matrices(fts)]
        if not _is_of_one_task(fts):
            ones = found.matrices(finetunings(f"{family[:-1]}1"))
            expected = {seed: expected_matrix(fts, ones[seed]) for seed in found.seeds}
            gain = {seed: matrices[0][seed] - expected[seed] for seed in found.seeds}
            matrices += [expected, gain]
        head = f"Fine-tuned on {family_in_words(family)}{title}"
        for (end, (kind, heading)), by_seed in zip(KINDS.items(), matrices, strict=False):
            name, words = f"{prefix}{family}{end}", f"{head}: {heading}" if end else head
            cells = None if end else found.cells
            panels[family, end] = panels_of(name, words, kind, by_seed, heading, cells)
    return panels


def family_missing(
    found: Improvements, families: Mapping[str, Sequence[str]], prefix: str = ""
) -> pd.DataFrame:
    """Return the missing cells of the families' matrices, with the commands that compute them."""
    tables = []
    for family, fts in families.items():
        actual, expected, difference = (f"{prefix}{family}{end}" for end in KINDS)
        tables.append(missing_cells(found.cells, actual, fts))
        if not _is_of_one_task(fts):
            tables.append(missing_expected(found.cells, expected, fts, actual=False))
            tables.append(missing_expected(found.cells, difference, fts, actual=True))
    return pd.concat(tables)


def _is_of_one_task(fts: Sequence[str]) -> bool:
    return len(FINETUNINGS[fts[0]]) == 1
