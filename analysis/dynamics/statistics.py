"""Statistics of training curves: pure functions on tables of points and of break-outs."""

import numpy as np
import pandas as pd

from analysis.statistics.comparison import over_seeds
from analysis.statistics.curves import CHANCE, breakout_step
from worldrep.data.tasks import TASKS
from worldrep.names import parse_model

DEVIATIONS = 2.0  # an accuracy this many standard errors above chance is above chance
COLUMNS = [
    "model", "label", "family", "stage", "seed", "split", "task", "trained",
    "breakout_step", "breakout_tokens", "first", "final", "chance", "near_chance", "n_points",
    "last_step", "last_tokens", "run_id",
]  # fmt: skip
GROUP = ["stage", "split", "task", "group"]
BREAKOUT = ["mean", "std", "low", "high", "n_seeds", "runs", "broken_out", "near_chance"]


def breakouts(points: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Find the break-out of each validation curve of each run.

    points: run_id, split, task, step, value, in order of step; runs: by run_id, with val_rows,
    tokens_per_step. Returns COLUMNS. breakout_step is NaN if there is none. near_chance: whether an
    accuracy ends no more than DEVIATIONS standard errors above chance: its break-out is noise.
    """
    curves = points[points["split"] != "loss"].groupby(["run_id", "split", "task"], sort=False)
    table = curves.agg(
        first=("value", lambda own: own.iat[0]),
        final=("value", lambda own: own.iat[-1]),
        n_points=("step", "size"),
        last_step=("step", "last"),
    )
    table["breakout_step"] = [
        breakout_step(own["step"], own["value"], TASKS[task].accuracy, CHANCE.get(task))
        for (_, _, task), own in curves
    ]
    table = table.reset_index().join(runs, on="run_id")
    chance = table["task"].map(CHANCE).astype(float)
    error = np.sqrt(chance * (1 - chance) / table["val_rows"])
    return table.assign(
        trained=[row.task in parse_model(row.model).tasks for row in table.itertuples()],
        breakout_tokens=table["breakout_step"] * table["tokens_per_step"],
        chance=chance,
        near_chance=table["final"] - chance <= DEVIATIONS * error,  # never, if chance is NaN
        last_tokens=table["last_step"] * table["tokens_per_step"],
    )[COLUMNS]


def add_groups(broken: pd.DataFrame, by: str) -> pd.DataFrame:
    """Add the column group: label or family (`by`), split by trained and other tasks if mixed."""
    names = broken[by]
    mixed = broken.groupby(names)["trained"].transform(lambda trained: not trained.all())
    kinds = pd.Series(np.where(broken["trained"], " trained", " transfer"), index=broken.index)
    groups = names + kinds.where(mixed, "")
    order = [f"{name}{kind}" for name in names.unique() for kind in ("", " trained", " transfer")]
    return broken.assign(group=pd.Categorical(groups, order).remove_unused_categories())


def summarize_breakouts(broken: pd.DataFrame, column: str) -> pd.DataFrame:
    """Average the break-outs of each group over the runs of a seed, then over seeds.

    The runs of one seed share a base and count as one value. Runs without a break-out are not
    averaged. broken: break-outs with group; column: breakout_step or breakout_tokens. Returns
    GROUP, BREAKOUT (broken_out: runs with a break-out), parts (means of the seeds), seeds.
    """
    noise = broken["near_chance"] & broken[column].notna()
    noise = noise.groupby([broken[key] for key in GROUP], sort=False, observed=True).sum()
    table = over_seeds(broken, GROUP, column).rename(columns={"n": "n_seeds", "rows": "runs"})
    table = table.assign(broken_out=table["runs"] - table["missing"], near_chance=noise.to_numpy())
    return table[[*GROUP, *BREAKOUT, "parts", "seeds"]]


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
