"""Compare what the published study found with the tables of a scale: `docs/replication.md`.

The tables are those that the analyses write. Published figures: arXiv 2602.00533 and the authors'
earlier system, at the scale `paper`.
"""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from scipy import stats

from analysis.cka_generalization import WITHOUT, associate, point_table
from analysis.statistics.matrices import trained_masks
from worldrep.errors import StateError, one_sentence
from worldrep.evaluation.improvement import spread_of
from worldrep.names import TASK_NAMES

NET = {  # published net reciprocity; that of crossing was not
    "perimeter": 2.04, "angle": 1.97, "trianglearea": 1.77,
    "distance": -1.66, "compass": -1.81, "inside": -2.31,
}  # fmt: skip
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval, or with a p value. n: what was counted, in words."""

    value: float
    n: str
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.p):
            return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], {self.n}"
        return f"{self.value:.3f}, p = {self.p:.3g}, {self.n}"


@dataclass(frozen=True)
class Finding:
    """A published finding.

    claim: the range in which the number lies if the finding holds; analysis, figure: where it is
    drawn; needs: the analyses whose tables it is computed from, if they are others.
    """

    text: str
    published: str
    claim: tuple[float, float]
    analysis: str
    figure: str
    measure: Callable[["Tables"], Measured]
    needs: tuple[str, ...] = ()

    def folders(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.needs or (self.analysis,)]

    def verdict(self, found: Measured) -> str:
        """Judge by the whole interval, or by the sign of the number if its p value is small."""
        low, high = self.claim
        if math.isnan(found.p):
            inside = low <= found.low and found.high <= high
            outside = found.high < low or found.low > high
        else:
            inside, outside = (
                found.p < SIGNIFICANT and is_so
                for is_so in (low <= found.value <= high, not low <= found.value <= high)
            )
        return "replicated" if inside else "not replicated" if outside else "cannot be told"


@dataclass(frozen=True)
class Tables:
    """The tables of one scale: a folder for each analysis."""

    folder: Path

    def statistics(self, analysis: str) -> dict[str, Any]:
        text = (self.folder / analysis / "statistics.json").read_text(encoding="utf-8")
        return json.loads(text, object_hook=_with_nan)

    def table(self, analysis: str, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / analysis / f"{name}.csv")

    def by_seed(self, analysis: str, matrix: str, cells: str) -> dict[int, float]:
        """Return seed -> mean of the trained or transfer cells of a matrix."""
        facts = self.statistics(analysis)
        named = {seed: facts["statistics"].get(f"{matrix}_seed{seed}") for seed in facts["seeds"]}
        return {seed: own[cells]["mean"] for seed, own in named.items() if own}


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON makes of NaN."""
    return {key: math.nan if value is None else value for key, value in values.items()}


def _in_seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def over_seeds(values: Sequence[float]) -> Measured:
    """Average the values of seeds, with Student's 95% interval; none from one seed."""
    found = spread_of([*values])
    return Measured(found.mean, _in_seeds(found.n), found.low, found.high)


def mean_of(analysis: str, matrix: str, cells: str) -> Callable[[Tables], Measured]:
    """Measure the mean over seeds of the trained or transfer cells of a matrix."""
    return lambda tables: over_seeds([*tables.by_seed(analysis, matrix, cells).values()])


def gain_of_pairs(tables: Tables) -> Measured:
    """Transfer of ftwb2 minus that of ftwb1, of the same seed."""
    one, two = (tables.by_seed("exp1_heatmaps", f"ftwb{n}", "transfer") for n in (1, 2))
    return over_seeds([two[seed] - one[seed] for seed in one if seed in two])


def warm_up(cells: str) -> Callable[[Tables], Measured]:
    """Measure what warm-up rows add to models of three tasks, in trained or transfer cells."""

    def measure(tables: Tables) -> Measured:
        own = tables.statistics("ft_heatmaps")["statistics"]["warm_up"][f"ftwb3 - ft3: {cells}"]
        seeds = len(own["seeds"].split())
        words = f"{own['n']} models, {_in_seeds(seeds)}"
        return Measured(own["difference"], words, own["low"], own["high"])

    return measure


def givers(tables: Tables) -> Measured:
    """Rank correlation of net reciprocity with the published one; exact, one-sided p value."""
    facts = tables.statistics("reciprocity")
    own = [facts["statistics"]["net"][task]["mean"] for task in NET]
    found = float(stats.spearmanr(own, [*NET.values()]).statistic)
    published = np.argsort(np.argsort([*NET.values()]))
    orders = np.array([*itertools.permutations(range(len(NET)))])
    distance = ((orders - published) ** 2).sum(axis=1)
    n = len(NET)
    possible = 1 - 6 * distance / (n * (n**2 - 1))  # Spearman's formula, without ties
    p = float((possible >= found - 1e-9).mean())
    return Measured(found, f"{n} tasks, {len(facts['seeds'])} seeds", p=p)


def same_task(tables: Tables) -> Measured:
    """CKA between models of the same task minus that between models of different tasks."""
    (own,) = (v for k, v in tables.statistics("cka")["statistics"].items() if k.endswith("_pairs"))
    numbers = [own[kind]["n"] for kind in ("same tasks", "different tasks, different seeds")]
    test = own["comparison"]
    return Measured(test["difference"], "{} and {} pairs".format(*numbers), p=test["p"])


def alike_and_carried_over(tables: Tables) -> Measured:
    """Correlation of the CKA of two tasks with their transfer, without crossing.

    It is the number of `cka_generalization`, also where CKA and transfer are from two stores.
    Raises ValueError if the table of CKA has several layers.
    """
    pairs = tables.table("cka", "pairs")
    if pairs["layer"].nunique() != 1:
        raise ValueError(f"layers {sorted(pairs['layer'].unique())} instead of one")
    of_one_task = pairs[["model", "other_model"]].isin(
        [f"pt1-{k}" for k in range(1, len(TASK_NAMES) + 1)]
    )
    pairs = pairs[of_one_task.all(axis=1)]
    seeds = tables.statistics(EXP1)["seeds"]
    matrices = pd.concat([tables.table(EXP1, f"ftwb1_seed{seed}") for seed in seeds])
    cells = matrices.rename(columns={"model": "ft"}).melt("ft", None, "task", "normalised")
    others = [task for task in TASK_NAMES if task != WITHOUT]
    found = associate(point_table(pairs, cells), others)
    own = {*pairs["seed"], *pairs["other_seed"]}
    counted = f"{found.n} pairs of tasks, {_in_seeds(len(own))} of CKA, {len(seeds)} of transfer"
    return Measured(found.r, counted, p=found.permutation_p)


def growth_of_error(task: str) -> Callable[[Tables], Measured]:
    """Measure the error on standard questions after ftwb1 over that before: geometric mean."""

    def measure(tables: Tables) -> Measured:
        values = tables.table("reciprocity", "values")
        before = values[values["task"] == task].set_index(["model", "seed"])["base_standard"]
        change = tables.table("forgetting", "raw_change").set_index(["model", "seed"])
        change.columns = change.columns.str.split().str[0]  # without units
        ratio = np.log(1 + change[task].loc[before.index] / before)
        found = over_seeds([*ratio.groupby("seed").mean()])
        return Measured(math.exp(found.value), found.n, math.exp(found.low), math.exp(found.high))

    return measure


def wider(tables: Tables) -> Measured:
    """Transfer of ftwb2 at width wide minus that at base, over the cells that both have."""
    differences = []
    for seed in tables.statistics("exp3_heatmaps")["seeds"]:
        base, wide = (
            tables.table("exp3_heatmaps", f"{width}_ftwb2_seed{seed}").set_index("model")
            for width in ("base", "wide")
        )
        differences.append((wide - base).where(trained_masks(base)["transfer"]).stack().mean())
    return over_seeds(differences)


EXP1, MORE, LESS = "exp1_heatmaps", (0.0, math.inf), (-math.inf, 0.0)
FINDINGS = (
    Finding("ftwb1, trained", "0.803 ± 0.146 (wide)", (0.8, math.inf), EXP1, "ftwb1_aggregate",
            mean_of(EXP1, "ftwb1", "trained")),
    Finding("ftwb1, transfer", "0.491 ± 0.267 (wide)", (0.45, math.inf), EXP1, "ftwb1_aggregate",
            mean_of(EXP1, "ftwb1", "transfer")),
    Finding("ftwb2, trained", "0.861, 0.931, 0.896", (0.8, math.inf), EXP1, "ftwb2_aggregate",
            mean_of(EXP1, "ftwb2", "trained")),
    Finding("ftwb2, transfer", "0.548, 0.640, 0.632", (0.45, math.inf), EXP1, "ftwb2_aggregate",
            mean_of(EXP1, "ftwb2", "transfer")),
    Finding("ftwb2 minus ftwb1, transfer", "+0.005 (wide)", MORE, EXP1, "ftwb2_aggregate",
            gain_of_pairs),
    Finding("ftwb2, actual minus expected, trained", "+0.042 (wide)", MORE, EXP1,
            "ftwb2_difference_aggregate", mean_of(EXP1, "ftwb2_difference", "trained")),
    Finding("ftwb2, actual minus expected, transfer", "-0.056 (wide)", LESS, EXP1,
            "ftwb2_difference_aggregate", mean_of(EXP1, "ftwb2_difference", "transfer")),
    Finding("ftwb3 minus ft3, trained: about none", "+0.008", (-0.05, 0.05), "ft_heatmaps",
            "ftwb3_minus_ft3", warm_up("trained")),
    Finding("ftwb3 minus ft3, transfer", "+0.204", MORE, "ft_heatmaps", "ftwb3_minus_ft3",
            warm_up("transfer")),
    Finding("givers and takers: rank correlation with the published net order", "1", MORE,
            "reciprocity", "reciprocity", givers),
    Finding("CKA, same task minus different tasks", "above 0", MORE, "cka", "cka_pt1", same_task),
    Finding("CKA against transfer, r without crossing", "0.354, p = 0.055", MORE,
            "cka_generalization", "cka_generalization_without_crossing", alike_and_carried_over,
            needs=("cka", EXP1)),
    *(
        Finding(f"error in {task} on standard questions, after ftwb1 over before", "100 to 500",
                (100, math.inf), "forgetting", "change_ftwb1_aggregate", growth_of_error(task))
        for task in ("distance", "trianglearea", "angle", "perimeter")
    ),
    Finding("ftwb2, wide minus base, transfer", "0.496 and 0.607", LESS, "exp3_heatmaps",
            "wide_ftwb2_aggregate", wider),
)  # fmt: skip


def replication_table(folder: Path) -> str:
    """Return the findings as a Markdown table, from the tables of one scale in a folder.

    A finding whose tables are not there is "not measured". Raises StateError if none is there.
    """
    if not any((folder / finding.analysis).is_dir() for finding in FINDINGS):
        raise StateError(f"{folder} has no tables of an analysis, such as {folder / EXP1}")
    tables = Tables(folder)
    names = ("finding", "published", "here, 95% interval", "verdict", "analysis, figure")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for finding in FINDINGS:
        found, verdict = "", "not measured"
        if all(own.is_dir() for own in finding.folders(folder)):
            measured = _measured(finding, tables)
            found, verdict = str(measured), finding.verdict(measured)
        source = f"`{finding.analysis}`, `{finding.figure}`"
        lines.append(f"| {finding.text} | {finding.published} | {found} | {verdict} | {source} |")
    return "\n".join(lines) + "\n"


def _measured(finding: Finding, tables: Tables) -> Measured:
    try:
        return finding.measure(tables)
    except (OSError, ValueError, KeyError) as fault:
        places = finding.folders(tables.folder)
        again = " and ".join(f"`python -m analysis.{own.name} --out {own}`" for own in places)
        where = " and ".join(map(str, places))
        message = f"the tables in {where} cannot be used ({fault!r}): make them again by {again}"
        raise StateError(message) from None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@one_sentence
def main(folder: Path) -> None:
    """Print the table of findings, from the tables of one scale in FOLDER."""
    click.echo(replication_table(folder), nl=False)


if __name__ == "__main__":
    main()
