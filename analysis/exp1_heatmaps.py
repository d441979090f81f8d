"""Which tasks carry new cities over to which others: heatmaps of the ftwb1 and ftwb2 models.

For every seed and for their mean: the normalised improvement of each model on each task, what is
expected of ftwb2 models from the ftwb1 models of their tasks, and the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.options import Options, analysis_command
from worldrep.names import FINETUNINGS, TASK_NAMES, ModelName

if TYPE_CHECKING:
    import pandas as pd

    from analysis.panels import Panel
    from analysis.record import Result
    from worldrep.tracking import Store

NAME, PRETRAIN = "exp1_heatmaps", "pt1"
OUT = f"figures/{NAME}"
ONE = tuple(ft for ft in FINETUNINGS if ft.startswith("ftwb1-"))
TWO = tuple(ft for ft in FINETUNINGS if ft.startswith("ftwb2-"))


@analysis_command(OUT)
def main(options: Options) -> None:
    """Draw how well fine-tuned models take in Atlantis, task by task, from the store."""
    draw(options, launched=True)


def draw_exp1(
    *,
    out: Path | str = OUT,
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
    return draw(options, runs=runs, parent=parent_run_id)


def draw(
    options: Options,
    *,
    runs: Collection[str] | None = None,
    parent: str | None = None,
    launched: bool = False,
) -> Path:
    """Read the store, write tables and figures, record them as a run, and say what came out."""
    from analysis.record import publish
    from worldrep.collector import sparing_collector
    from worldrep.tracking import Store

    with sparing_collector():
        store = Store.connect(options.experiment, create=False)
        result = exp1_result(store, options, runs)
        return publish(result, store, parent=parent, launched=launched)


def exp1_result(store: Store, options: Options, runs: Collection[str] | None = None) -> Result:
    """All tables and matrices. Raises StateError when the store has nothing to draw."""
    from analysis.cells import improvement_cells
    from analysis.commands import Commands
    from analysis.record import Result
    from analysis.seeds import choose_seeds
    from analysis.store import read_evaluations

    names = options.names | {"pretrain": PRETRAIN}
    evaluations = read_evaluations(store, (*ONE, *TWO), runs, **names)
    seeds, caveats = choose_seeds(evaluations, options, store)
    evaluations = evaluations.of_seeds(seeds)
    models = [ModelName(PRETRAIN, ft, options.width) for ft in (*ONE, *TWO)]
    cells = improvement_cells(evaluations, models, seeds, Commands.of(store, **names))
    return Result(
        name=NAME,
        options=options,
        seeds=seeds,
        panels=exp1_panels(cells, seeds),
        values=cells,
        missing=exp1_missing(cells),
        runs=evaluations.runs,
        caveats=[*caveats, *evaluations.caveats],
        tags={"pretrain": PRETRAIN, "ft": "ftwb1,ftwb2", "tasks": ",".join(TASK_NAMES)},
    )


def exp1_panels(cells: pd.DataFrame, seeds: Iterable[int]) -> list[Panel]:
    """Actual, expected and difference matrices of each seed and of their mean."""
    from analysis.heatmap import DIFFERENCE, EXPECTED, PERFORMANCE
    from analysis.matrices import expected_matrix, to_matrix
    from analysis.panels import panels_of

    one = {seed: to_matrix(cells, ONE, seed) for seed in seeds}
    two = {seed: to_matrix(cells, TWO, seed) for seed in seeds}
    expected = {seed: expected_matrix(TWO, one[seed]) for seed in seeds}
    difference = {seed: two[seed] - expected[seed] for seed in seeds}
    pair = "Fine-tuned on two tasks (ftwb2)"
    return [
        *panels_of("ftwb1", "Fine-tuned on one task (ftwb1)", PERFORMANCE, one),
        *panels_of("ftwb2", pair, PERFORMANCE, two),
        *panels_of("ftwb2_expected", f"{pair}: expected", EXPECTED, expected),
        *panels_of("ftwb2_difference", f"{pair}: actual - expected", DIFFERENCE, difference),
    ]


def exp1_missing(cells: pd.DataFrame) -> pd.DataFrame:
    """Every missing cell of the seeds' matrices, with the command that fills it."""
    import pandas as pd

    from analysis.cells import missing_cells, missing_expected

    return pd.concat(
        [
            missing_cells(cells, "ftwb1", ONE),
            missing_cells(cells, "ftwb2", TWO),
            missing_expected(cells, "ftwb2_expected", TWO, actual=False),
            missing_expected(cells, "ftwb2_difference", TWO, actual=True),
        ]
    )


if __name__ == "__main__":
    main()
