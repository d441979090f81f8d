"""Compare what the published study found with the tables of a scale: `docs/replication.md`.

The tables are those that the analyses write. Published figures: arXiv 2602.00533 and the authors'
earlier system, at the scale `paper`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from scipy import stats

from analysis.cka_generalization import WITHOUT, associate, point_table
from analysis.statistics.matrices import trained_masks
from worldrep.data.tasks import TASKS
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
    """A number with its 95% interval, or with a two-sided p value.

    n: what was counted, in words; missing: cells that a complete store has and this one lacks.
    """

    value: float
    n: str
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    missing: int = 0

    def __str__(self) -> str:
        if not math.isnan(self.p):
            spread = f", p = {self.p:.3g}"
        else:  # one value has no interval
            spread = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        lacking = f", {self.missing} cells missing" if self.missing else ""
        return f"{self.value:.3f}{spread}, {self.n}{lacking}"


@dataclass(frozen=True)
class Finding:
    """A published finding.

    claim: the range in which the number lies if the finding holds; analysis, figure: where it is
    drawn; measure: returns None if its tables do not have the number; needs: the analyses whose
    tables it is computed from, if they are others.
    """

    text: str
    published: str
    claim: tuple[float, float]
    analysis: str
    figure: str
    measure: Callable[["Tables"], "Measured | None"]
    needs: tuple[str, ...] = ()

    def folders(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.needs or (self.analysis,)]

    @property
    def holds_if(self) -> str:
        low, high = self.claim
        if math.isinf(low):
            return f"below {high:g}"
        if math.isinf(high):
            return f"above {low:g}"
        return f"{low:g} to {high:g}"

    def verdict(self, found: Measured) -> str:
        """Judge by the whole interval, or by the number if its p value is small.

        Nothing can be told if cells are missing.
        """
        low, high = self.claim
        if found.missing or math.isnan(found.value):
            return "cannot be told"
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
        return pd.read_csv(self._path(analysis, name))

    def has(self, analysis: str, name: str) -> bool:
        return self._path(analysis, name).is_file()

    def _path(self, analysis: str, name: str) -> Path:
        return self.folder / analysis / f"{name}.csv"

    def by_seed(self, analysis: str, matrix: str, cells: str) -> dict[int, dict[str, Any]]:
        """Return seed -> mean and number of missing ones of the trained or transfer cells."""
        facts = self.statistics(analysis)
        named = {seed: facts["statistics"].get(f"{matrix}_seed{seed}") for seed in facts["seeds"]}
        return {seed: own[cells] for seed, own in named.items() if own}


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON makes of NaN."""
    return {key: math.nan if value is None else value for key, value in values.items()}


def _in_seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def over_seeds(values: Sequence[float], missing: int = 0) -> Measured | None:
    """Average the values of seeds, with Student's 95% interval; no interval from one seed."""
    if not values:
        return None
    found = spread_of([*values])
    return Measured(found.mean, _in_seeds(found.n), found.low, found.high, missing=missing)


def mean_of(analysis: str, matrix: str, cells: str) -> Callable[[Tables], Measured | None]:
    """Measure the mean over seeds of the trained or transfer cells of a matrix."""

    def measure(tables: Tables) -> Measured | None:
        own = tables.by_seed(analysis, matrix, cells).values()
        return over_seeds([one["mean"] for one in own], sum(one["missing"] for one in own))

    return measure


def gain_of_pairs(tables: Tables) -> Measured | None:
    """Transfer of ftwb2 minus that of ftwb1, of the same seed."""
    one, two = (tables.by_seed(EXP1, f"ftwb{n}", "transfer") for n in (1, 2))
    both = [(one[seed], two[seed]) for seed in one if seed in two]
    missing = sum(first["missing"] + second["missing"] for first, second in both)
    return over_seeds([second["mean"] - first["mean"] for first, second in both], missing)


def warm_up(cells: str) -> Callable[[Tables], Measured | None]:
    """Measure what warm-up rows add to models of three tasks, in trained or transfer cells."""

    def measure(tables: Tables) -> Measured | None:
        compared = tables.statistics("ft_heatmaps")["statistics"].get("warm_up", {})
        own = compared.get(f"ftwb3 - ft3: {cells}")
        if own is None:
            return None
        seeds = len(own["seeds"].split())
        words = f"{own['n']} models, {_in_seeds(seeds)}"
        return Measured(own["difference"], words, own["low"], own["high"])

    return measure


def givers(tables: Tables) -> Measured:
    """Rank correlation of net reciprocity with the published one; exact, two-sided p value."""
    facts = tables.statistics("reciprocity")
    own = [facts["statistics"]["net"][task]["mean"] for task in NET]
    counted = f"{len(NET)} tasks, {_in_seeds(len(facts['seeds']))}"
    if not np.isfinite(own).all():
        return Measured(math.nan, counted)

    def correlation(order: Sequence[float]) -> float:
        return float(stats.spearmanr(order, [*NET.values()]).statistic)

    test = stats.permutation_test(
        (own,), correlation, permutation_type="pairings", n_resamples=math.factorial(len(NET))
    )
    return Measured(float(test.statistic), counted, p=float(test.pvalue))


def same_task(tables: Tables) -> Measured | None:
    """CKA between models of the same task minus that between models of different tasks."""
    found = tables.statistics("cka")["statistics"]
    layers = [own for name, own in found.items() if re.fullmatch(r"cka_pt1_.*_pairs", name)]
    if not layers:
        return None
    _one_layer(range(len(layers)))
    numbers = [layers[0][kind]["n"] for kind in ("same tasks", "different tasks, different seeds")]
    test = layers[0]["comparison"]
    return Measured(test["difference"], "{} and {} pairs".format(*numbers), p=test["p"])


def alike_and_carried_over(tables: Tables) -> Measured | None:
    """Correlation of the CKA of two tasks with their transfer, without crossing.

    It is the number of `cka_generalization`, also where CKA and transfer are from two stores.
    Raises ValueError if the table of CKA has several layers.
    """
    pairs = tables.table("cka", "pairs")
    of_one_task = pairs[["model", "other_model"]].isin(
        [f"pt1-{k}" for k in range(1, len(TASK_NAMES) + 1)]
    )
    pairs = pairs[of_one_task.all(axis=1)]
    if pairs.empty:
        return None
    _one_layer(pairs["layer"].unique())
    seeds = tables.statistics(EXP1)["seeds"]
    matrices = pd.concat([tables.table(EXP1, f"ftwb1_seed{seed}") for seed in seeds])
    cells = matrices.rename(columns={"model": "ft"}).melt("ft", None, "task", "normalised")
    others = [task for task in TASK_NAMES if task != WITHOUT]
    found = associate(point_table(pairs, cells), others)
    own = {*pairs["seed"], *pairs["other_seed"]}
    counted = f"{found.n} pairs of tasks, {_in_seeds(len(own))} of CKA, {len(seeds)} of transfer"
    return Measured(found.r, counted, p=found.permutation_p)


def _one_layer(layers: Sized) -> None:
    if len(layers) != 1:
        raise ValueError(f"{len(layers)} layers instead of one")


def growth_of_error(task: str) -> Callable[[Tables], Measured | None]:
    """Measure the error on standard questions after ftwb1 over that before: geometric mean."""

    def measure(tables: Tables) -> Measured | None:
        values = tables.table("reciprocity", "values")
        before = values[values["task"] == task].set_index(["model", "seed"])["base_standard"]
        change = tables.table("forgetting", "raw_change").set_index(["model", "seed"])
        change.columns = change.columns.str.split().str[0]  # without units
        ratio = np.log(1 + change[task].loc[before.index] / before)
        found = over_seeds([*ratio.groupby("seed").mean()], int(ratio.isna().sum()))
        if found is None:
            return None
        value, low, high = (math.exp(end) for end in (found.value, found.low, found.high))
        return replace(found, value=value, low=low, high=high)

    return measure


def wider(tables: Tables) -> Measured | None:
    """Transfer of ftwb2 at width wide minus that at base, over the seeds and cells of both."""
    differences, missing = [], 0
    for seed in tables.statistics("exp3_heatmaps")["seeds"]:
        names = [f"{width}_ftwb2_seed{seed}" for width in ("base", "wide")]
        if all(tables.has("exp3_heatmaps", name) for name in names):
            base, wide = (tables.table("exp3_heatmaps", name).set_index("model") for name in names)
            cells = (wide - base).to_numpy()[trained_masks(base)["transfer"]]
            differences.append(float(np.nanmean(cells)))
            missing += int(np.isnan(cells).sum())
    return over_seeds(differences, missing)


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
                (100, math.inf), "forgetting", "change_ftwb1_aggregate", growth_of_error(task),
                needs=("forgetting", "reciprocity"))
        for task in ("distance", "trianglearea", "angle", "perimeter")
    ),
    Finding("ftwb2, wide minus base, transfer", "0.496 and 0.607", LESS, "exp3_heatmaps",
            "wide_ftwb2_aggregate", wider),
)  # fmt: skip


def replication_table(folder: Path) -> str:
    """Return the findings as a Markdown table, from the tables of one scale in a folder.

    A finding whose tables, or whose models in them, are not there is "not measured". Raises
    StateError if no table is there.
    """
    if not any((folder / finding.analysis).is_dir() for finding in FINDINGS):
        raise StateError(f"{folder} has no tables of an analysis, such as {folder / EXP1}")
    tables = Tables(folder)
    names = (
        "finding", "published", "holds if", "here, 95% interval", "verdict", "analysis, figure",
    )  # fmt: skip
    rows = []
    for finding in FINDINGS:
        measured = None
        if all(own.is_dir() for own in finding.folders(folder)):
            measured = _measured(finding, tables)
        cells = (
            finding.text, finding.published, finding.holds_if,
            "" if measured is None else str(measured),
            "not measured" if measured is None else finding.verdict(measured),
            f"`{finding.analysis}`, `{finding.figure}`",
        )  # fmt: skip
        rows.append(cells)
    return _markdown(names, rows)


def bases_table(folder: Path) -> str:
    """Return the mean scores of the bases as a Markdown table: by seed, then on Atlantis.

    Empty if there are no tables of `reciprocity`. Raises StateError if they cannot be used.
    """
    if not (folder / "reciprocity").is_dir():
        return ""
    try:
        values = Tables(folder).table("reciprocity", "values").groupby(["seed", "task"])
        scores = values[["base_standard", "base_atlantis"]].first().unstack()
        known = scores["base_standard"][[*TASK_NAMES]]
        unknown = scores["base_atlantis"][[*TASK_NAMES]].mean()
    except (OSError, ValueError, KeyError) as fault:
        path = folder / "reciprocity" / "values.csv"
        raise StateError(f"{path} cannot be used ({fault!r}): make it again") from None
    rows = [
        [str(name), *(_score(value, TASKS[task].accuracy) for task, value in row.items())]
        for name, row in [*known.iterrows(), ("on Atlantis, mean", unknown)]
    ]
    return _markdown(("seed", *TASK_NAMES), rows)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"


def _score(value: float, accuracy: bool) -> str:
    """Return an accuracy with two decimals, an error with three significant digits."""
    return f"{value:.2f}" if accuracy else f"{float(f'{value:.3g}'):,.12g}"


def _measured(finding: Finding, tables: Tables) -> Measured | None:
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
    """Print the tables of bases and of findings, from the tables of one scale in FOLDER."""
    click.echo("\n".join(filter(None, (bases_table(folder), replication_table(folder)))), nl=False)


if __name__ == "__main__":
    main()
