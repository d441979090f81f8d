"""How sure the numbers are: spread over seeds, paired comparisons, and the seeds that they need.

For any set of models: mean, standard deviation and 95% interval over seeds of every quantity, the
models compared with each other seed by seed, and how many seeds a given difference would take.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click
import pandas as pd

from analysis.charts.over_seeds import (
    STANDARD,
    difference_chart,
    improvement_chart,
    standard_chart,
)
from analysis.command import analysis_command
from analysis.figures.chart import Chart
from analysis.options import ALL, Options
from analysis.result import Result
from analysis.statistics.over_seeds import Series, comparisons, spreads
from analysis.store.evaluations import PRETRAIN
from analysis.store.missing import missing_table
from analysis.store.scores import IMPROVEMENTS, MEANS, QUANTITIES, Scores, is_base, read_scores
from analysis.store.selection import NothingThere, in_order, named_models, used_runs
from analysis.store.source import Source
from worldrep.errors import InputError
from worldrep.names import ModelName

NAME = "seeds"
MANY_MODELS = 12  # more are compared with one instead of with each other
CHOSEN = "none"  # what stands for a model that was not named
COMPARED = tuple(name for name in QUANTITIES if not name.endswith("valid_ratio"))


def seeds(
    source: Source,
    options: Options,
    models: str = ALL,
    against: str = CHOSEN,
    difference: float = 0.05,
) -> Result:
    """Spreads and comparisons over seeds.

    models: such as `pt1,pt1_ftwb1-1..7`, or all; against: the model that all others are compared
    with, instead of every pair of a few models; difference: what the number of seeds is found for.
    Raises InputError for a wrong name or number, NothingThere when none of the models is evaluated.
    """
    if not 0 < difference < float("inf"):
        raise InputError(f"difference={difference} must be a number above 0")
    asked = named_models(models, options)
    other = _named(against, options)
    found = read_scores(source, options, in_order([*asked, *other]) if asked else ())
    if other and other[0] not in found.models:
        raise NothingThere(f"{other[0]} is not evaluated ({options.in_words})")
    reference = _reference(found.models, other)
    spread = spreads(found.values, found.seeds)
    compared = comparisons(_series(found), _pairs(found.models, reference), COMPARED, difference)
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=charts(spread, compared, found, str(reference or ""), difference),
        missing=missing_table(found.absent),
        runs_used=used_runs(found.runs, set(found.runs.index)),
        caveats=[*found.caveats, *_seed_caveats(found)],
        tables={"values": found.values, "spread": spread, "comparisons": compared},
        tags={"models": models, "against": str(reference or "each other")},
    )


def _named(against: str, options: Options) -> tuple[ModelName, ...]:
    if against == CHOSEN:
        return ()
    named = named_models(against, options)
    if len(named) != 1:
        raise InputError(f"against={against!r} is not the name of one model")
    return named


def _reference(models: Sequence[ModelName], named: Sequence[ModelName]) -> ModelName | None:
    """The model that all others are compared with; None for all pairs."""
    if named:
        return named[0]
    if len(models) <= MANY_MODELS:
        return None
    return next((model for model in models if is_base(model)), models[0])


def _pairs(models: Sequence[ModelName], reference: ModelName | None) -> list[tuple[str, str]]:
    if reference:
        return [(str(model), str(reference)) for model in models if model != reference]
    return [(str(later), str(first)) for first, later in itertools.combinations(models, 2)]


def _series(found: Scores) -> Series:
    """The values of each model and quantity by seed.

    The improvement of the base is 0 by definition, with every seed of it that is evaluated.
    """
    series: dict[tuple[str, str], dict[int, float]] = {}
    for row in found.values.itertuples():
        key = str(row.model), str(row.quantity)
        series.setdefault(key, {})[int(row.seed)] = float(row.value)
    for model in found.models:
        if is_base(model) and model.pretrain == PRETRAIN:
            own = found.values[found.values["model"] == str(model)]
            nought = dict.fromkeys(map(int, own["seed"].unique()), 0.0)
            series |= {(str(model), name): nought for name in IMPROVEMENTS if nought}
    return series


def _seed_caveats(found: Scores) -> list[str]:
    if len(found.seeds) > 1:
        return []
    return [f"seed {found.seeds[0]} is the only one: there is no spread and no test"]


def charts(
    spread: pd.DataFrame, compared: pd.DataFrame, found: Scores, against: str, difference: float
) -> list[Chart]:
    """What the models score, and how they differ."""
    parts: list[Chart] = []
    if spread["quantity"].isin(MEANS).any():
        parts.append(improvement_chart(spread, found.seeds))
    improved = set(spread["model"][spread["quantity"].isin(MEANS)])
    others = spread[~spread["model"].isin(improved)]
    if others["quantity"].isin(STANDARD).any():
        parts.append(standard_chart(others, found.seeds))
    if compared["quantity"].isin((*MEANS, *STANDARD)).any():
        parts.append(difference_chart(compared, found.seeds, against, difference))
    return parts


main = analysis_command(
    NAME,
    seeds,
    click.option(
        "--models", default=ALL, show_default=True, help="Such as pt1,pt1_ftwb1-1..7; or all."
    ),
    click.option(
        "--against",
        default=CHOSEN,
        show_default=True,
        help="Compare all models with this one; none: each pair, of many models with the base.",
    ),
    click.option(
        "--difference",
        type=float,
        default=0.05,
        show_default=True,
        help="Difference for which the number of seeds is found.",
    ),
)


if __name__ == "__main__":
    main()
