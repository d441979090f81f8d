"""When each task breaks out in each training, and the means of that over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.statistics.curves import CHANCE, breakout_step
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import spread_of
from worldrep.names import parse_model

DEVIATIONS = 2.0  # an accuracy this many standard errors above chance is above chance
COLUMNS = [
    "model", "family", "stage", "seed", "split", "task", "trained", "breakout_step",
    "breakout_tokens", "first", "final", "chance", "near_chance", "n_points", "last_step",
    "last_tokens", "run_id",
]  # fmt: skip
KEYS = ["stage", "split", "task", "group"]


def breakouts(points: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The break-out step of each task in each run: one row per run and validation curve.

    points: run_id, split, task, step, value, by step; runs: indexed by run id, with model, family,
    stage, seed, val_rows and tokens_per_step. Columns: COLUMNS. breakout_step is NaN if it never
    happened; near_chance: an accuracy that ends no more than DEVIATIONS standard errors above
    chance, so that its step is noise.
    """
    facts = runs.to_dict("index")
    curves = points[points["split"] != "loss"].groupby(["run_id", "split", "task"], sort=False)
    rows = [
        _breakout(curve, facts[run_id], str(run_id), str(split), str(task))
        for (run_id, split, task), curve in curves
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _breakout(
    curve: pd.DataFrame, run: Mapping[str, Any], run_id: str, split: str, task: str
) -> dict[str, Any]:
    accuracy, chance = TASKS[task].accuracy, CHANCE.get(task)
    step = breakout_step(curve["step"].tolist(), curve["value"].tolist(), accuracy, chance)
    last = int(curve["step"].iloc[-1])
    final = float(curve["value"].iloc[-1])
    error = math.sqrt(chance * (1 - chance) / run["val_rows"]) if chance else math.nan
    return {
        **{key: run[key] for key in ("model", "family", "stage", "seed")},
        "split": split,
        "task": task,
        "trained": task in parse_model(run["model"]).tasks,
        "breakout_step": step,
        "breakout_tokens": step * run["tokens_per_step"],
        "first": float(curve["value"].iloc[0]),
        "final": final,
        "chance": math.nan if chance is None else chance,
        "near_chance": chance is not None and final - chance <= DEVIATIONS * error,
        "n_points": len(curve),
        "last_step": last,
        "last_tokens": last * run["tokens_per_step"],
        "run_id": run_id,
    }


def summarize_breakouts(broken: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over seeds of each group's break-outs, and how many runs never broke out.

    The runs of one seed share a base, so that a group's runs of one seed are averaged first. Those
    that never broke out are not in the mean. parts: the seeds' means.
    """
    rows = []
    for keys, own in broken.groupby(KEYS, sort=True, observed=True):
        seeds = own.dropna(subset=[column]).groupby("seed")[column].mean()
        spread = spread_of(seeds.tolist())
        rows.append(
            dict(zip(KEYS, keys, strict=True))
            | {
                "mean": spread.mean,
                "std": spread.std,
                "low": spread.low,
                "high": spread.high,
                "n_seeds": spread.n,
                "runs": len(own),
                "broken_out": int(own[column].notna().sum()),
                "near_chance": int((own["near_chance"] & own[column].notna()).sum()),
                "parts": tuple(seeds),
                "seeds": " ".join(map(str, seeds.index)),
            }
        )
    return pd.DataFrame(rows)
