"""Which tasks carry new cities over to which others: heatmaps of the ftwb1 and ftwb2 models.

For every seed and for their mean: the normalised improvement of each model on each task, what is
expected of ftwb2 models from the ftwb1 models of their tasks, and the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from analysis.command import analysis_command, open_source
from analysis.drawing.heatmap import DIFFERENCE, EXPECTED, PERFORMANCE
from analysis.drawing.panels import Panel, panels_of
from analysis.formulas.matrices import expected_matrix
from analysis.options import Options
from analysis.reading.cells import missing_cells, missing_expected
from analysis.reading.improvements import Improvements, finetunings, read_improvements
from analysis.reading.source import Source
from analysis.record import publish
from analysis.result import Result
from worldrep.names import TASK_NAMES

NAME = "exp1_heatmaps"
ONE, TWO = finetunings("ftwb1"), finetunings("ftwb2")


def exp1_heatmaps(source: Source, options: Options, only: Collection[str] | None = None) -> Result:
    """Heatmaps of the ftwb1 and ftwb2 models. Raises StateError when there is nothing to draw.

    only: evaluations to which the choice is limited, by run id.
    """
    found = read_improvements(source, options, (*ONE, *TWO), only=only)
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=panels(found),
        missing=pd.concat(
            [
                missing_cells(found.cells, "ftwb1", ONE),
                missing_cells(found.cells, "ftwb2", TWO),
                missing_expected(found.cells, "ftwb2_expected", TWO, actual=False),
                missing_expected(found.cells, "ftwb2_difference", TWO, actual=True),
            ]
        ),
        runs_used=found.runs_used,
        caveats=found.caveats,
        tables={"values": found.cells},
        tags={"pretrain": "pt1", "ft": "ftwb1,ftwb2", "tasks": ",".join(TASK_NAMES)},
    )


def panels(found: Improvements) -> list[Panel]:
    """Actual, expected and difference matrices of each seed and of their mean."""
    one, two = found.matrices(ONE), found.matrices(TWO)
    expected = {seed: expected_matrix(TWO, one[seed]) for seed in found.seeds}
    difference = {seed: two[seed] - expected[seed] for seed in found.seeds}
    pair = "Fine-tuned on two tasks (ftwb2)"
    return [
        *panels_of("ftwb1", "Fine-tuned on one task (ftwb1)", PERFORMANCE, one, cells=found.cells),
        *panels_of("ftwb2", pair, PERFORMANCE, two, cells=found.cells),
        *panels_of("ftwb2_expected", f"{pair}: expected", EXPECTED, expected),
        *panels_of("ftwb2_difference", f"{pair}: actual - expected", DIFFERENCE, difference),
    ]


main = analysis_command(NAME, exp1_heatmaps)


def draw_exp1(
    *,
    out: Path | str,
    experiment: str | None = None,
    scale: str = "mini",
    width: str = "base",
    world: str = "standard",
    seeds: Iterable[int] = (),
    log: bool = True,
    runs: Collection[str] | None = None,
    parent_run_id: str | None = None,
) -> Path:
    """Draw from within another program; the folder of the files.

    runs: the evaluations to use, by run id, instead of all that fit; parent_run_id: run that the
    analysis is listed below. Raises InputError and StateError.
    """
    options = Options(Path(out), experiment, scale, width, world, tuple(seeds), log)
    with open_source(options) as source:
        result = exp1_heatmaps(source, options, runs)
        return publish(result, source.store, parent=parent_run_id)


if __name__ == "__main__":
    main()
