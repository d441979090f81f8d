"""What a linear probe of many models' representations comes to: pure functions of its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.comparison import rank_sum
from analysis.statistics.matrices import summary
from worldrep.data.world import World
from worldrep.evaluation.improvement import spread_of
from worldrep.evaluation.probe import ProbeResult

WITH, WITHOUT, BASE = "with distance", "without distance", "not at all (base)"
GROUPS = pd.CategoricalDtype([WITH, WITHOUT, BASE], ordered=False)


def position_errors(probe: ProbeResult) -> dict[str, float]:
    """Mean error in 0.1 degree of the cities fitted on, of the held-out ones and of Atlantis."""
    found = probe.summary()
    return {f"{name}_error": found[part] for name, part in
            (("fitted", "train"), ("world", "world"), ("atlantis", "atlantis"))}  # fmt: skip


def guessed_errors(world: World, probe: ProbeResult) -> dict[str, float]:
    """The same for a probe that knows nothing: the mean position of the cities fitted on."""
    middle = world.positions[probe.trained].mean(axis=0)
    errors = np.linalg.norm(world.positions - middle, axis=1)
    known = ProbeResult(probe.predicted, errors, probe.trained, probe.baseline, probe.atlantis)
    return position_errors(known)


def by_model(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each model: the spread of its Atlantis error over seeds, the smallest first.

    table: one row for each model and seed. n_seeds: how many seeds the model has; atlantis_errors:
    of each of them, in the order of `seeds`; world_error: mean of the held-out cities' errors.
    """
    rows = []
    for model, own in table.groupby("model", sort=False):
        spread = spread_of(own["atlantis_error"].to_list())
        first = own.iloc[0]
        rows.append(
            {
                "model": model,
                **{name: first[name] for name in ("ft", "tasks", "fine_tuned")},
                "atlantis_error": spread.mean,
                **{name: getattr(spread, name) for name in ("std", "low", "high")},
                "n_seeds": spread.n,
                "seeds": tuple(own["seed"]),
                "atlantis_errors": tuple(own["atlantis_error"]),
                "world_error": float(own["world_error"].mean()),
            }
        )
    found = pd.DataFrame(rows).sort_values("atlantis_error", kind="stable", ignore_index=True)
    return found.astype({"fine_tuned": GROUPS})


def comparison(table: pd.DataFrame, column: str = "atlantis_error") -> dict[str, Any]:
    """Fine-tuned models with against those without distance, by rank, and each group's errors.

    table: one row for each unit, with `fine_tuned` and the column.
    """
    groups = {group: table.loc[table["fine_tuned"] == group, column] for group in GROUPS.categories}
    facts: dict[str, Any] = {
        group: summary(values.to_numpy(dtype=float)) | {"median": float(values.median())}
        for group, values in groups.items()
    }
    test = rank_sum(groups[WITH].to_list(), groups[WITHOUT].to_list())
    return facts | {"mann_whitney": vars(test)}


def shown_models(table: pd.DataFrame) -> dict[str, str]:
    """Run id -> why it is drawn: the base, the best and worst of both groups, and a middle one.

    table: the models of one seed. The median is that of all fine-tuned ones; each occurs once.
    """
    ordered = table.sort_values("atlantis_error", kind="stable").set_index("run_id")["fine_tuned"]
    tuned = ordered.index[ordered != BASE]
    wanted = [("base", run_id) for run_id in ordered.index[ordered == BASE]]
    for group in (WITH, WITHOUT):
        own = ordered.index[ordered == group]
        wanted += [(f"best {group}", own[0]), (f"worst {group}", own[-1])] if len(own) else []
    if len(tuned):
        wanted.append(("median", tuned[(len(tuned) - 1) // 2]))
    chosen: dict[str, str] = {}
    for why, run_id in wanted:
        chosen.setdefault(run_id, why)
    return chosen
