"""Statistics of training curves: pure functions on tables of points and of break-outs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.curves import CHANCE, breakout_step
from analysis.statistics.spread import over_seeds
from worldrep.data.tasks import TASKS
from worldrep.names import parse_model

DEVIATIONS = 2.0  # an accuracy this many standard errors above chance is above chance
COLUMNS = [
    "model", "family", "stage", "seed", "split", "task", "trained", "breakout_step",
    "breakout_tokens", "first", "final", "chance", "near_chance", "n_points", "last_step",
    "last_tokens", "run_id",
]  # fmt: skip
GROUP = ["stage", "split", "task", "group"]


def breakouts(points: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Find the break-out of each validation curve of each run.

    Args:
        points: run_id, split, task, step, value, in order of step.
        runs: By run_id: model, family, stage, seed, val_rows, tokens_per_step.

    Returns:
        COLUMNS. breakout_step is NaN if there is none. near_chance: whether an accuracy ends no
        more than DEVIATIONS standard errors above chance, so that its break-out is noise.
    """
    facts = runs.to_dict("index")
    curves = points[points["split"] != "loss"].groupby(["run_id", "split", "task"], sort=False)
    rows = [
        {"run_id": run_id, "split": split, "task": task} | _breakout(curve, facts[run_id], task)
        for (run_id, split, task), curve in curves
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _breakout(curve: pd.DataFrame, run: Mapping[Any, Any], task: str) -> dict[str, Any]:
    steps, values = curve["step"].tolist(), curve["value"].tolist()
    chance = CHANCE.get(task, math.nan)
    step = breakout_step(steps, values, TASKS[task].accuracy, CHANCE.get(task))
    error = math.sqrt(chance * (1 - chance) / run["val_rows"])
    return {
        **{key: run[key] for key in ("model", "family", "stage", "seed")},
        "trained": task in parse_model(run["model"]).tasks,
        "breakout_step": step,
        "breakout_tokens": step * run["tokens_per_step"],
        "first": values[0],
        "final": values[-1],
        "chance": chance,
        "near_chance": values[-1] - chance <= DEVIATIONS * error,  # never, if chance is NaN
        "n_points": len(curve),
        "last_step": steps[-1],
        "last_tokens": steps[-1] * run["tokens_per_step"],
    }


def add_groups(broken: pd.DataFrame, by: str) -> pd.DataFrame:
    """Add the column group: model or family (`by`), split by trained and other tasks if mixed."""
    names = broken[by]
    mixed = broken.groupby(names)["trained"].transform(lambda trained: not trained.all())
    kinds = pd.Series(np.where(broken["trained"], " trained", " transfer"), index=broken.index)
    groups = names + kinds.where(mixed, "")
    order = [f"{name}{kind}" for name in names.unique() for kind in ("", " trained", " transfer")]
    there = set(groups)
    return broken.assign(group=pd.Categorical(groups, [name for name in order if name in there]))


def summarize_breakouts(broken: pd.DataFrame, column: str) -> pd.DataFrame:
    """Average the break-outs of each group over the runs of a seed, then over seeds.

    The runs of one seed share a base and count as one value. Runs without a break-out are not
    averaged.

    Args:
        broken: Break-outs with group.
        column: breakout_step or breakout_tokens.

    Returns:
        Columns GROUP, mean, std, low, high, n_seeds, runs, broken_out (runs with a break-out),
        near_chance, parts (means of the seeds), seeds.
    """
    broken = broken.assign(noise=broken["near_chance"] & broken[column].notna())
    noise = broken.groupby(GROUP, sort=False, observed=True)["noise"].sum()
    table = over_seeds(broken, GROUP, column)
    return table[[*GROUP, "mean", "std", "low", "high"]].assign(
        n_seeds=table["n"],
        runs=table["rows"],
        broken_out=table["rows"] - table["missing"],
        near_chance=noise.to_numpy(),
        parts=table["parts"],
        seeds=table["seeds"],
    )


def breakout_statistics(overview: pd.DataFrame) -> dict[str, Any]:
    """Nest the rows of `summarize_breakouts` by group, split and task."""
    kept = ["mean", "std", "low", "high", "n_seeds", "runs", "broken_out", "near_chance"]
    return {
        f"{row['group']}/{row['split']}/{row['task']}": {name: row[name] for name in kept}
        for row in overview.to_dict("records")
    }


def add_medians(points: pd.DataFrame, group: str) -> pd.DataFrame:
    """Add the median of each group's runs to their points, at the steps that most runs have.

    A median has thick=True, seed="median" and no run_id. The curve of a run without others of its
    group has thick=True, too.
    """
    keys = ["panel", "split", "task", group]
    sizes = points.groupby(keys)["run_id"].transform("nunique")
    many = points[sizes > 1].assign(size=sizes)
    by_step = many.groupby([*keys, "step"], sort=False)
    medians = by_step[["value", "tokens"]].median()
    medians = medians[2 * by_step["run_id"].nunique() > by_step["size"].first()].reset_index()
    medians["series"] = "median of " + medians[group].astype(str)
    medians = medians.assign(thick=True, run_id="", seed="median")
    return pd.concat([points.assign(thick=sizes == 1), medians], ignore_index=True)
