"""Does the width of a model change what is carried over? The heatmaps of exp1 for each width.

Rows are those pairs of tasks that exp3 trains, in its order; widths stand side by side.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.command import analysis_command
from analysis.drawing.heatmap import DIFFERENCE, EXPECTED, PERFORMANCE, Kind
from analysis.drawing.panels import Panel, Strip, panels_of
from analysis.formulas.matrices import expected_matrix
from analysis.options import ALL, Options
from analysis.reading.cells import missing_cells, missing_expected
from analysis.reading.choice import nothing_of
from analysis.reading.improvements import Improvements, finetunings, read_improvements
from analysis.reading.source import Source
from analysis.result import Part, Result
from worldrep.errors import StateError
from worldrep.names import TASK_NAMES

NAME = "exp3_heatmaps"
ONE = finetunings("ftwb1")
TWO = tuple(f"ftwb2-{k}" for k in (4, 13, 15, 2, 9, 12))  # the order of the study's figures
KINDS: dict[str, tuple[str, Kind]] = {
    "ftwb1": ("Fine-tuned on one task (ftwb1)", PERFORMANCE),
    "ftwb2": ("Fine-tuned on two tasks (ftwb2)", PERFORMANCE),
    "ftwb2_expected": ("Fine-tuned on two tasks (ftwb2): expected", EXPECTED),
    "ftwb2_difference": ("Fine-tuned on two tasks (ftwb2): actual - expected", DIFFERENCE),
}


def exp3_heatmaps(source: Source, options: Options) -> Result:
    """Heatmaps of every width that was asked for. Raises StateError when no width has models."""
    found, caveats = _by_width(source, options)
    panels = {width: panels_of_width(width, own) for width, own in found.items()}
    parts: list[Part] = [panel for own in panels.values() for panel in own]
    if len(found) > 1:
        parts += side_by_side(panels)
    seeds = tuple(sorted({seed for own in found.values() for seed in own.seeds}))
    runs_used = pd.concat([own.runs_used for own in found.values()])
    return Result(
        name=NAME,
        options=options,
        seeds=seeds,
        parts=parts,
        missing=pd.concat([_missing(width, own) for width, own in found.items()]),
        runs_used=runs_used,
        caveats=caveats,
        tables={"values": _values(found)},
        tags={"pretrain": "pt1", "ft": "ftwb1,ftwb2", "tasks": ",".join(TASK_NAMES)},
    )


def _by_width(source: Source, options: Options) -> tuple[dict[str, Improvements], list[str]]:
    """What the store has of each width, and caveats about what it has not."""
    found, caveats = {}, []
    for width in options.widths:
        own = replace(options, width=width)
        try:
            found[width] = read_improvements(source, own, (*ONE, *TWO))
        except StateError as fault:
            caveats.append(f"width {width} is left out: {fault}")
        else:
            caveats += [f"width {width}: {caveat}" for caveat in found[width].caveats]
    if not found:
        raise nothing_of("base with models fine-tuned from it", "evaluate", options, source)
    return found, caveats


def panels_of_width(width: str, found: Improvements) -> list[Panel]:
    """The matrices of one width, of each seed and of their mean."""
    one, two = found.matrices(ONE), found.matrices(TWO)
    expected = {seed: expected_matrix(TWO, one[seed]) for seed in found.seeds}
    difference = {seed: two[seed] - expected[seed] for seed in found.seeds}
    matrices = dict(zip(KINDS, (one, two, expected, difference), strict=True))
    details = dict.fromkeys(("ftwb1", "ftwb2"), found.cells)
    return [
        panel
        for name, (title, kind) in KINDS.items()
        for panel in panels_of(
            f"{width}_{name}", f"{title}, {width}", kind, matrices[name], width, details.get(name)
        )
    ]


def side_by_side(panels: dict[str, list[Panel]]) -> list[Strip]:
    """The means over seeds of all widths in one figure, for each kind of matrix."""
    means = {panel.name: panel for own in panels.values() for panel in own}
    return [
        Strip(
            f"{name}_widths",
            f"{title}, by width of the model (mean of seeds)",
            kind.lines,
            [means[f"{width}_{name}_aggregate"] for width in panels],
        )
        for name, (title, kind) in KINDS.items()
    ]


def _values(found: dict[str, Improvements]) -> pd.DataFrame:
    return pd.concat([own.cells.assign(width=width) for width, own in found.items()])


def _missing(width: str, found: Improvements) -> pd.DataFrame:
    cells = found.cells
    return pd.concat(
        [
            missing_cells(cells, f"{width}_ftwb1", ONE),
            missing_cells(cells, f"{width}_ftwb2", TWO),
            missing_expected(cells, f"{width}_ftwb2_expected", TWO, actual=False),
            missing_expected(cells, f"{width}_ftwb2_difference", TWO, actual=True),
        ]
    )


main = analysis_command(NAME, exp3_heatmaps, width=ALL)

if __name__ == "__main__":
    main()
