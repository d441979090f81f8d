"""Whether a task carries new cities over to tasks whose models represent the world alike.

For every ordered pair of tasks: the CKA of the models pretrained on one of them alone, against what
fine-tuning pt1 on the first gained on Atlantis in the second.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from analysis.cka import LABEL, compare_families
from analysis.cka.families import Likeness
from analysis.command import analysis_command
from analysis.figures.scatter import Scatter
from analysis.options import ALL, Options, listed
from analysis.result import Result
from analysis.statistics.similarity import CONSTANT
from analysis.store.evaluations import read_improvements
from analysis.store.extractions import DEFAULT, parse_layer
from analysis.store.missing import missing_cells, missing_table
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError
from worldrep.evaluation.improvement import HIGHEST, spread_of
from worldrep.names import FINETUNINGS, TASK_NAMES, finetunings, parse_model

NAME = "cka_generalization"
FTS = finetunings("ftwb1")
LETTERS = {task: task[0].upper() for task in TASK_NAMES} | {"crossing": "X"}
WITHOUT = "crossing"
TIE = 1e-9  # correlations this close are equal, computed in another order
MOST_LABELS = 8  # 8! = 40,320 permutations take a moment; 9! would take over 1 GB
POINT_COLUMNS = [
    "label", "fine_tuned_on", "tested_on", "task_tested", "cka", "cka_std", "n_seed_pairs",
    "normalised", "normalised_std", "n_seeds",
]  # fmt: skip

Array = npt.NDArray[np.float64]


def cka_generalization(source: Source, options: Options, layer: str = DEFAULT) -> Result:
    """Compare CKA with transfer, with and without crossing. NothingThere without any point."""
    at = parse_layer(layer, ALL)
    if at == ALL:
        raise InputError(f"layer={ALL!r} is for the analysis cka; one layer, or {DEFAULT!r}")
    (family,), _ = compare_families(source, options, at, ["pt1"])
    likeness = family.layers[0]
    found = read_improvements(source, options, FTS)
    points = point_table(likeness.pairs, found.cells)
    if points[["cka", "normalised"]].isna().any(axis=1).all():
        raise NothingThere(
            f"{source.place} has no pair of tasks with both the CKA of their models (pt1-X) and "
            f"the improvement of a model fine-tuned on one of them (ftwb1-X; {options.in_words})"
        )
    caveats = [*family.caveats, *found.caveats]
    if set(likeness.seeds) != set(found.seeds):
        caveats.append(
            f"CKA rests on seeds {listed(likeness.seeds)}, the improvement on seeds "
            f"{listed(found.seeds)}: the two sides are means of their own"
        )
    transfer = found.cells[~found.cells["trained"]]
    missing = [missing_table(family.missing), missing_cells(transfer, "ftwb1", FTS)]
    others = [task for task in TASK_NAMES if task != WITHOUT]
    return Result(
        name=NAME, options=options, seeds=tuple(sorted({*likeness.seeds, *found.seeds})),
        parts=[
            chart_of(NAME, points, TASK_NAMES, likeness, found.seeds),
            chart_of(f"{NAME}_without_{WITHOUT}", points, others, likeness, found.seeds),
        ],
        missing=pd.concat(missing), runs_used=pd.concat([family.runs_used, found.runs_used]),
        caveats=caveats, tables={"pairs": likeness.pairs, "values": found.cells},
        tags={"pretrain": "pt1", "ft": "ftwb1", "tasks": ",".join(TASK_NAMES)},
    )  # fmt: skip


def point_table(pairs: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a point for each ordered pair of different tasks, with POINT_COLUMNS; NaN: missing.

    pairs: of pt1-X models, as `pair_table` gives them; cells: of ftwb1 models, with ft, task and
    normalised, as `improvement_cells` gives them. Standard deviations (ddof=1) are over
    pairs of seeds for CKA, over seeds for the improvement.
    """
    one, other = (
        pairs[column].map(lambda name: parse_model(name).tasks[0])
        for column in ("model", "other_model")
    )
    tuned_on = cells["ft"].map(lambda ft: FINETUNINGS[ft][0])
    rows = []
    for first, second in itertools.permutations(TASK_NAMES, 2):
        of_both = (one == first) & (other == second) | (one == second) & (other == first)
        gains = cells["normalised"][(tuned_on == first) & (cells["task"] == second)]
        x, y = spread_of(pairs["cka"][of_both]), spread_of(gains.dropna())
        label = f"{LETTERS[first]}->{LETTERS[second]}"
        kind = "accuracy task" if TASKS[second].accuracy else "error task"
        rows.append((label, first, second, kind, x.mean, x.std, x.n, y.mean, y.std, y.n))
    return pd.DataFrame(rows, columns=POINT_COLUMNS)


@dataclass(frozen=True)
class Association:
    """Association of transfer with CKA over n pairs of tasks.

    r: Pearson correlation; p: its two-sided p value as if the points were independent (they are
    not: each task is in many of them); slope, intercept: least squares, transfer on CKA;
    permutation_p: of the test over task labels; n_permutations: those that had a correlation.
    All but the two counts are NaN with fewer than 3 points or no variance.
    """

    n: int
    r: float = math.nan
    p: float = math.nan
    slope: float = math.nan
    intercept: float = math.nan
    permutation_p: float = math.nan
    n_permutations: int = 0


def associate(points: pd.DataFrame, tasks: Sequence[str]) -> Association:
    """Return whether transfer goes with CKA, among these tasks."""
    table = points.set_index(["fine_tuned_on", "tested_on"])[["cka", "normalised"]].unstack()
    x, y = (table[name].reindex(index=tasks, columns=tasks) for name in ("cka", "normalised"))
    return label_permutation_test(x, y)


def label_permutation_test(cka: npt.ArrayLike, transfer: npt.ArrayLike) -> Association:
    """Test whether tasks with like representations carry more over to each other.

    cka: (k, k), symmetric, between tasks; transfer: (k, k), row = trained task, column = tested
    task; NaN = missing. The points are the off-diagonal cells present in both. As in Mantel's test
    (1967), rows and columns of `cka` are relabelled together, in all k! ways; permutation_p is the
    share, the identity included, whose |r| is at least the observed one. With missing cells, a
    permuted pair counts only where both are present, and a permutation without a correlation (fewer
    than 3 pairs, no variance) is left out. Raises InputError for other tables.
    """
    x, y = np.asarray(cka, dtype=np.float64), np.asarray(transfer, dtype=np.float64)
    _require_label_matrices(x, y)
    off_diagonal = ~np.eye(len(x), dtype=bool)
    orders = np.array(list(itertools.permutations(range(len(x)))), dtype=int)  # identity first
    relabelled = x[orders[:, :, None], orders[:, None, :]][:, off_diagonal]
    points, values = x[off_diagonal], y[off_diagonal]
    known = ~np.isnan(points) & ~np.isnan(values)
    correlations = _correlations(relabelled, values)
    r, n = float(correlations[0]), int(known.sum())
    if math.isnan(r):
        return Association(n)
    line = scipy.stats.linregress(points[known], values[known])
    found = np.abs(correlations[~np.isnan(correlations)])
    share = float((found >= abs(r) - TIE).mean())
    return Association(n, r, line.pvalue, line.slope, line.intercept, share, len(found))


def _require_label_matrices(cka: Array, transfer: Array) -> None:
    shapes = f"the shapes are {cka.shape} and {transfer.shape}"
    if cka.shape != transfer.shape or cka.ndim != 2 or cka.shape[0] != cka.shape[1]:
        raise InputError(f"CKA and transfer must be square tables of the same tasks; {shapes}")
    if len(cka) > MOST_LABELS:
        raise InputError(f"at most {MOST_LABELS} labels can be permuted in all ways; {shapes}")
    if np.isinf(cka).any() or np.isinf(transfer).any():
        raise InputError(f"CKA and transfer may have missing cells but no infinite ones; {shapes}")


def _correlations(x: Array, y: Array) -> Array:
    """Return Pearson's r of each row of x (m, n) with y (n,) where both are known; else NaN."""
    both = np.stack([x, np.broadcast_to(y, x.shape)])
    both[:, np.isnan(both).any(axis=0)] = np.nan
    n, largest = np.isfinite(both[0]).sum(axis=1), np.nanmax(np.abs(both), axis=2, initial=0)
    deviations = both - np.nansum(both, axis=2, keepdims=True) / np.maximum(n, 1)[:, None]
    varied = np.nanmax(np.abs(deviations), axis=2, initial=0) > CONSTANT * largest
    norms = np.sqrt(np.nansum(deviations**2, axis=2)).prod(axis=0)
    products, defined = np.nansum(deviations.prod(axis=0), axis=1), (n >= 3) & varied.all(axis=0)
    return np.divide(products, norms, out=np.full(len(x), np.nan), where=defined).clip(-1, 1)


def chart_of(
    name: str, points: pd.DataFrame, tasks: Sequence[str], likeness: Likeness, seeds: Sequence[int]
) -> Scatter:
    """Chart all pairs of these tasks with their fit. seeds: of the improvement."""
    points = points[points[["fine_tuned_on", "tested_on"]].isin(tasks).all(axis=1)]
    fit, letters = associate(points, tasks), ", ".join(f"{LETTERS[task]} {task}" for task in tasks)
    bars = "Bars: standard deviation over them, where there are two or more."
    if len(likeness.seeds) == len(seeds) == 1:
        bars = "One seed only: no spread."
    return Scatter(
        name=name,
        title="CKA against generalisation" + ("" if WITHOUT in tasks else f", without {WITHOUT}"),
        lines=(
            "A point such as D->T: how alike the models pretrained on distance alone and on "
            f"trianglearea alone represent the {likeness.n_cities} world cities, against what "
            "fine-tuning pt1 on distance gained on Atlantis in trianglearea.",
            f"{letters}. Improvement 0: as bad as the base on Atlantis, 1: as good as on the "
            f"cities that it knows; cut off at 0 and {HIGHEST}.",
            f"CKA: mean over pairs of seeds {listed(likeness.seeds)}. Improvement: mean over "
            f"seeds {listed(seeds)}. {bars}",
        ),
        table=points.reset_index(drop=True), x="cka", y="normalised",
        x_label=f"{LABEL} of the models pretrained on the two tasks, layer {likeness.layer}",
        y_label="normalised improvement (no unit), fine-tuned on the first, tested on the second",
        label="label", error=("cka_std", "normalised_std"),
        fit=(fit.slope, fit.intercept) if np.isfinite(fit.slope) else None, group="task_tested",
        size=(8.4, 6.2), hover=tuple(POINT_COLUMNS), notes=notes_of(name, fit, points),
        statistics={
            name: asdict(fit)
            | {
                "missing": len(points) - fit.n,
                "seeds_of_cka": list(likeness.seeds),
                "seeds_of_improvement": list(seeds),
                "layer": likeness.layer,
            }
        },
    )  # fmt: skip


def notes_of(name: str, fit: Association, points: pd.DataFrame) -> tuple[str, ...]:
    """Return the correlation, how far to trust it, and which points are missing."""
    counted = f"n = {fit.n}, missing {len(points) - fit.n}"
    notes = [f"{name}: no correlation, which needs 3 points that differ ({counted})"]
    if np.isfinite(fit.r):
        notes = [
            f"{name}: Pearson r = {fit.r:.2f}, permutation p = {fit.permutation_p:.2g}, "
            f"p = {fit.p:.2g} as if points were independent ({counted}). Line: least squares.",
            "Trust the permutation test (rows and columns of CKA relabelled together, "
            f"{fit.n_permutations:,} ways): CKA is symmetric, so that each x occurs twice, and "
            "every task is in many points; the other p takes them for independent.",
        ]
    lacking = points["label"][points[["cka", "normalised"]].isna().any(axis=1)]
    if len(lacking):
        notes.append(
            f"Missing: {len(lacking)} of {len(points)} points ({', '.join(lacking)}); missing.csv "
            "has the commands that fill them."
        )
    return tuple(notes)


main = analysis_command(NAME, cka_generalization, layer="A layer, or default.")

if __name__ == "__main__":
    main()
