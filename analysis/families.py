"""The matrices of a family of fine-tunings: actual, expected, difference, and what is missing.

A model of one task is its own specialist, so its family has the actual matrix only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.figures.kinds import DIFFERENCE, EXPECTED, PERFORMANCE, Kind
from analysis.panels import Panel, panels_of
from analysis.statistics.matrices import expected_matrix
from analysis.store.evaluations import Improvements
from analysis.store.missing import missing_cells, missing_expected
from worldrep.names import FINETUNINGS, family_in_words, finetunings

ACTUAL, OF_EXPECTED, OF_DIFFERENCE = "", "_expected", "_difference"
KINDS: Mapping[str, Kind] = {ACTUAL: PERFORMANCE, OF_EXPECTED: EXPECTED, OF_DIFFERENCE: DIFFERENCE}
HEADINGS = {ACTUAL: "actual", OF_EXPECTED: "expected", OF_DIFFERENCE: "actual - expected"}


def family_matrices(found: Improvements, fts: Sequence[str]) -> dict[str, dict[int, pd.DataFrame]]:
    """Return the matrices of a family's fine-tunings by seed, for each of KINDS."""
    actual = found.matrices(fts)
    if len(FINETUNINGS[fts[0]]) == 1:
        return {ACTUAL: actual}
    ones = found.matrices(finetunings(f"{fts[0].rpartition('-')[0][:-1]}1"))
    expected = {seed: expected_matrix(fts, ones[seed]) for seed in found.seeds}
    difference = {seed: actual[seed] - expected[seed] for seed in found.seeds}
    return {ACTUAL: actual, OF_EXPECTED: expected, OF_DIFFERENCE: difference}


def family_panels(
    found: Improvements, family: str, fts: Sequence[str], *, prefix: str = "", title: str = ""
) -> dict[str, list[Panel]]:
    """Return the panels of every seed and of their mean, for each of KINDS.

    prefix: start of their file names; title: end of their titles.
    """
    panels = {}
    for what, matrices in family_matrices(found, fts).items():
        head = f"Fine-tuned on {family_in_words(family)}{title}"
        head += f": {HEADINGS[what]}" if what else ""
        cells = None if what else found.cells
        name = f"{prefix}{family}{what}"
        panels[what] = panels_of(name, head, KINDS[what], matrices, HEADINGS[what], cells)
    return panels


def family_missing(
    found: Improvements, family: str, fts: Sequence[str], *, prefix: str = ""
) -> pd.DataFrame:
    """Return the missing cells of the family's matrices, with the commands that compute them."""
    name = f"{prefix}{family}"
    tables = [missing_cells(found.cells, name, fts)]
    if len(FINETUNINGS[fts[0]]) > 1:
        tables += [
            missing_expected(found.cells, f"{name}{what}", fts, actual=what == OF_DIFFERENCE)
            for what in (OF_EXPECTED, OF_DIFFERENCE)
        ]
    return pd.concat(tables)
