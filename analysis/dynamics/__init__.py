"""How models learn: training and validation curves of many runs, and when each task breaks out.

Imports `worldrep` and the shared modules of `analysis`; of its own modules, `charts` imports
`reading` and `statistics`.
"""

from __future__ import annotations

import click
import pandas as pd

from analysis.command import analysis_command
from analysis.dynamics.charts import ALIGN, charts
from analysis.dynamics.reading import read_curves
from analysis.dynamics.statistics import breakouts
from analysis.options import ALL, Options
from analysis.result import Result
from analysis.store.selection import (
    STAGES,
    NothingThere,
    Trained,
    choose_models,
    named_models,
    nothing_of,
    used_runs,
)
from analysis.store.source import Source
from worldrep.errors import unknown

NAME = "dynamics"


def dynamics(source: Source, options: Options, models: str = ALL, align: str = "step") -> Result:
    """Plot curves and break-out steps of finished trainings.

    models: names such as `pt1,pt1_ftwb1-1..7`, or all; align: unit of the x axis, step or tokens.
    Raises InputError for an unknown name, NothingThere if none of the models is trained.
    """
    if align not in ALIGN:
        raise unknown("align", align, ALIGN)
    asked = named_models(models, options)
    trained = Trained.read(source, options)
    if not trained.runs:
        if held := "; ".join(filter(None, map(source.held, STAGES))):
            raise NothingThere(
                f"{source.place} has no finished training of {options.in_words}: it has {held}"
            )
        raise nothing_of("finished training", "pretrain", options, source)
    runs = [*trained.runs.values()]
    kept, seeds, strangers = choose_models(runs, asked, "training", options, source)
    found = read_curves(source, trained, kept, seeds)
    if found.points.empty:
        raise NothingThere(f"the trainings in {source.place} hold no curve ({options.in_words})")
    broken = breakouts(found.points, found.runs)
    chosen = found.runs[found.runs["chosen"]]
    return Result(
        name=NAME,
        options=options,
        seeds=seeds,
        parts=charts(found, broken, align),
        missing=found.missing,
        runs_used=used_runs(found.runs, set(chosen.index)),
        caveats=[*strangers, *found.caveats, *_token_caveats(chosen, align)],
        tables={"breakout": broken},
        tags={"models": models, "align": align},
    )


def _token_caveats(chosen: pd.DataFrame, align: str) -> list[str]:
    if align != "tokens":
        return []
    unknown_runs = chosen[chosen["tokens_per_step"].isna()]
    names = ", ".join(f"{run.model} seed {run.seed}" for run in unknown_runs.itertuples())
    text = "tokens are not logged with the steps: they are steps times the mean number of real "
    text += "tokens in a step, from the lengths of a sample of the rows (about 1% off)"
    return [text] + ([f"{names}: how many tokens a step has is not known"] if names else [])


main = analysis_command(
    NAME,
    dynamics,
    click.option(
        "--models", default=ALL, show_default=True, help="Such as pt1,pt1_ftwb1-1..7; or all."
    ),
    click.option(
        "--align", default="step", show_default=True, help="x axis of curves: step or tokens."
    ),
)
