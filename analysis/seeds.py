"""How sure the numbers are: spread over seeds, paired comparisons, and the seeds that they need.

For any set of models: mean, standard deviation and 95% interval over seeds of every quantity, the
models compared with each other seed by seed, and how many seeds a given difference would take.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.command import analysis_command
from analysis.figures.intervals import Intervals
from analysis.options import ALL, Options
from analysis.panels import seeds_in_words
from analysis.result import Result
from analysis.statistics.comparison import LEVEL, comparisons, nested, over_seeds, spread_bounds
from analysis.store import evaluations
from analysis.store.missing import missing_table
from analysis.store.selection import NothingThere, in_order, named_models, used_runs
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError
from worldrep.names import NO_FT, TASK_NAMES

NAME = "seeds"
SPREAD_COLUMNS = [
    "model", "family", "quantity", "mean", "std", "low", "high", "n", "missing", "seeds", "parts",
]  # fmt: skip
MANY_MODELS = 12  # more are compared with one instead of with each other
NOT_GIVEN = "none"
COMPARED = tuple(name for name in evaluations.QUANTITIES if not name.endswith("valid_ratio"))
STANDARD = tuple(f"standard/{task}/mean" for task in TASK_NAMES)
TITLES = {
    evaluations.MEANS[0]: "mean over the tasks trained on",
    evaluations.MEANS[1]: "mean over the other tasks (transfer)",
    **{f"standard/{task}/mean": f"standard: {task} ({TASKS[task].unit})" for task in TASK_NAMES},
}
TESTED, NO_TEST = [f"below {LEVEL:g}", f"{LEVEL:g} or more"], "no test"
SPREADS: dict[str, tuple[str, str, float, dict[str, Any]]] = {
    # Name of the chart -> title, how to read it, width of one axes in inches, further fields
    "improvement": (
        "Normalised improvement on Atlantis",
        "0: as the base on Atlantis; 1: as the base on ordinary cities (clipped to 0..1.5)",
        4.6,
        {"columns": 2, "x_label": "normalised improvement"},
    ),
    "standard": (
        "Scores on ordinary cities",
        "Errors: lower is better; shares of right answers: higher is better",
        3.0,
        {"columns": 4},
    ),
}
HOW = (
    "Large: the mean{of} over seeds, with Student's 95% interval (cut at the frame where it is "
    "wider). Rings: the seeds."
)


def seeds(
    source: Source,
    options: Options,
    models: str = ALL,
    against: str = NOT_GIVEN,
    difference: float = 0.05,
) -> Result:
    """Return spreads and comparisons over seeds.

    models: names such as `pt1,pt1_ftwb1-1..7`, or all; against: model that all others are compared
    with, instead of every pair of a few models; difference: the one whose number of seeds is found.
    Raises InputError for a wrong name or number, NothingThere if no model is evaluated.
    """
    if not 0 < difference < float("inf"):
        raise InputError(f"difference={difference} must be a number above 0")
    asked = named_models(models, options)
    named = () if against == NOT_GIVEN else named_models(against, options)
    if against != NOT_GIVEN and len(named) != 1:
        raise InputError(f"against={against!r} is not the name of one model")
    found = evaluations.read_scores(source, options, in_order([*asked, *named]) if asked else ())
    if named and named[0] not in found.models:
        raise NothingThere(f"{named[0]} is not evaluated ({options.in_words})")
    if not named and len(found.models) > MANY_MODELS:
        named = (next((model for model in found.models if model.ft == NO_FT), found.models[0]),)
    pairs = [(str(later), str(first)) for first, later in itertools.combinations(found.models, 2)]
    if named:
        pairs = [(str(model), str(named[0])) for model in found.models if model != named[0]]
    spread = spreads(found.values, found.seeds)
    compared = comparisons(_series(found), pairs, COMPARED, difference)
    caveats = list(found.caveats)
    if len(found.seeds) == 1:
        caveats.append(f"seed {found.seeds[0]} is the only one: there is no spread and no test")
    parts = _spread_charts(spread, found.seeds)
    if compared["quantity"].isin(TITLES).any():
        reference = str(named[0]) if named else ""
        parts.append(_difference_chart(compared, found.seeds, reference, difference))
    return Result(
        name=NAME, options=options, seeds=found.seeds, parts=parts,
        missing=missing_table(found.absent), runs_used=used_runs(found.runs, set(found.runs.index)),
        caveats=caveats, tables={"values": found.values, "spread": spread, "comparisons": compared},
        tags={"models": models, "against": str(named[0]) if named else "each other"},
    )  # fmt: skip


def spreads(values: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return the spread of each model's quantities; missing: the `seeds` that one lacks."""
    table = over_seeds(values, ["model", "family", "quantity"], "value")
    return table.assign(missing=len(seeds) - table["n"])[SPREAD_COLUMNS]


def _series(found: evaluations.Scores) -> pd.DataFrame:
    """Return the values by model and quantity (index) and seed (columns).

    The improvement of a base is 0 by definition, for every seed of it that is evaluated.
    """
    bases = [str(m) for m in found.models if m.ft == NO_FT and m.pretrain == evaluations.PRETRAIN]
    evaluated = found.values.loc[found.values["model"].isin(bases), ["model", "seed"]]
    zeros = pd.DataFrame({"quantity": evaluations.IMPROVEMENTS, "value": 0.0})
    values = pd.concat([found.values, evaluated.drop_duplicates().merge(zeros, how="cross")])
    return values.pivot(index=["model", "quantity"], columns="seed", values="value")


def _spread_charts(spread: pd.DataFrame, seeds: Sequence[int]) -> list[Intervals]:
    """Chart the improvements of models, and the standard scores of models without improvements."""
    improved = spread["model"].isin(spread.loc[spread["quantity"].isin(evaluations.MEANS), "model"])
    tables = {
        "improvement": _of(spread[improved], evaluations.MEANS),
        "standard": _of(spread[~improved], STANDARD),
    }
    words = seeds_in_words(seeds)
    return [_spread_chart(name, table, words) for name, table in tables.items() if len(table)]


def _spread_chart(name: str, table: pd.DataFrame, seeds: str) -> Intervals:
    title, line, width, fields = SPREADS[name]
    lacking, models = table["missing"] != 0, table.groupby("model", sort=False)
    note = f"{lacking.sum()} of {len(table)} rows lack some of the seeds: n in brackets"
    labels = table["model"] + table["n"].map(" (n = {})".format).where(lacking, "")
    facts = nested(table, ["model", "quantity"], ["mean", "std", "low", "high", "n", "missing"])
    return Intervals(
        name=name, title=f"{title}, by model, {seeds}", table=table.assign(label=labels),
        group="family", facet="what", size=(width, _height(table, "model")),
        hover=("model", "mean", "std", "low", "high", "n", "seeds"),
        lines=(f"{HOW.format(of='')} {line}",), notes=(note,) if lacking.any() else (),
        said=tuple(f"{name}: {model}: {_in_words(own)}" for model, own in models),
        statistics={name: facts}, parts="parts", **fields,
    )  # fmt: skip


def _in_words(table: pd.DataFrame) -> str:
    parts = [
        f"{row.quantity.removeprefix('improvement/').removesuffix('/mean')} {row.mean:.3g}"
        + ("" if math.isnan(row.low) else f" [{row.low:.3g}, {row.high:.3g}]")
        for row in table.itertuples()
    ]
    return f"{', '.join(parts)} (n = {table['n'].max()})"


def _difference_chart(
    compared: pd.DataFrame, seeds: Sequence[int], against: str, difference: float
) -> Intervals:
    """Chart the improvements' differences, or those of the standard scores if there are none."""
    improved = bool(compared["quantity"].isin(evaluations.MEANS).any())
    table = _of(compared, evaluations.MEANS if improved else STANDARD)
    tested = pd.cut(table["p_holm"], [-math.inf, LEVEL, math.inf], right=False, labels=TESTED)
    tested = tested.cat.add_categories(NO_TEST).fillna(NO_TEST)
    labels = [_pair_label(row, against) for row in table.itertuples()]
    table = table.assign(label=labels, corrected_p=tested)
    below = compared.assign(below=compared["p_holm"] < LEVEL)
    facts = below.groupby("quantity", sort=False).agg(
        pairs=("first", "size"),
        tests=("p", "count"),
        below_level=("below", "sum"),
        detectable_median=("detectable", "median"),
        seeds_needed_median=("seeds_needed", "median"),
    )
    shown = facts.loc[table["quantity"].unique()]
    what = f"Differences from {against}" if against else "Differences between models"
    return Intervals(
        name="differences", title=f"{what}, paired by seed: {seeds_in_words(seeds)}",
        table=table, value="difference", reference=0.0, group="corrected_p", facet="what",
        columns=2 if improved else 4, size=(4.2 if improved else 2.6, _height(table, "label")),
        x_label="difference of the normalised improvement" if improved else "difference",
        hover=("first", "second", "difference", "std", "n", "p", "p_holm", "detectable", "seeds"),
        lines=(
            HOW.format(of=" difference"),
            "p: paired t test, two-sided, corrected (Holm) for the tests in the same axes.",
        ),
        notes=tuple(_difference_notes(int(compared["n"].max()), improved, shown, difference)),
        statistics={"differences": facts.to_dict("index")}, parts="parts",
    )  # fmt: skip


def _of(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return the rows of some quantities, in their order, with the title of each one's axes."""
    own = table[table["quantity"].isin(quantities)]
    titles = pd.Categorical(own["quantity"].map(TITLES), [TITLES[q] for q in quantities])
    return own.assign(what=titles).sort_values("what", kind="stable", ignore_index=True)


def _height(table: pd.DataFrame, rows: str) -> float:
    most = table.groupby("what", observed=True)[rows].nunique().max()
    return max(1.2, 0.22 * float(most))  # inches


def _pair_label(row: Any, against: str) -> str:
    names = row.first if against else f"{row.first} - {row.second}"
    p = row.p_holm
    short = "1" if p >= 0.995 else f"{p:.2f}" if p >= 0.01 else f"{p:.1g}"
    return f"{names} (n = {row.n}{'' if math.isnan(p) else f', p = {short}'})"


def _difference_notes(
    n_seeds: int, improved: bool, facts: pd.DataFrame, difference: float
) -> list[str]:
    notes = [f"paired by seed; most seeds of a pair: {n_seeds}; comparisons.csv has all quantities"]
    if improved:
        notes.append("tasks trained on: each model's own; the improvement of a base is 0")
    if n_seeds < 2:
        return notes
    for row in facts[facts["tests"] > 0].itertuples():
        needed = row.seeds_needed_median
        takes = f"; a difference of {difference:g} takes {needed:,.0f} seeds (median)"
        notes.append(
            f"{row.Index}: {row.below_level} of {row.tests} differences have a corrected p below "
            f"{LEVEL:g}; detectable with power 0.8: {row.detectable_median:.2g} (median)"
            + ("" if math.isnan(needed) else takes)
        )
    low, high = spread_bounds(n_seeds)
    return [
        *notes,
        f"such numbers rest on the spread of {n_seeds} seeds; the true one may be {low:.2g} to "
        f"{high:.2g} times as large (95%)",
    ]


main = analysis_command(
    NAME,
    seeds,
    models="Such as pt1,pt1_ftwb1-1..7; or all.",
    against="Compare all models with this one; none: each pair, of many models with the base.",
    difference="Difference for which the number of seeds is found.",
)

if __name__ == "__main__":
    main()
