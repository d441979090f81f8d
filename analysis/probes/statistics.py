"""Statistics and tables of probed models: errors by group, positions, components, disparities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.probes.models import BASE, GROUPS, WITH, WITHOUT, Probed
from analysis.statistics.comparison import rank_sum
from analysis.statistics.matrices import Masks, summary
from analysis.statistics.similarity import procrustes_table
from analysis.store.evaluations import PRETRAIN
from worldrep.data.world import ATLANTIS, X_LIMIT, Y_LIMIT
from worldrep.evaluation.improvement import spread_of
from worldrep.names import FINETUNINGS, NO_FT

DEGREE = 10  # units of 0.1 degree
HELD_OUT = "held-out world city"
SHARE_INSIDE = 0.98
FLATTEST = 0.5  # height of a map as a share of its width, that of the world

Limits = tuple[float, float]


def by_model(table: pd.DataFrame) -> pd.DataFrame:
    """Return each model's Atlantis error over seeds, the smallest first.

    table: one row for each model and seed. n_seeds, seeds and atlantis_errors: the model's seeds
    and the error of each; world_error: mean of the held-out cities' errors.
    """
    rows = []
    for model, own in table.groupby("model", sort=False):
        spread, first = spread_of(own["atlantis_error"].to_list()), own.iloc[0]
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
    """Summarise a column for each group of `fine_tuned`, and compare with and without distance."""
    groups = {group: table.loc[table["fine_tuned"] == group, column] for group in GROUPS.categories}
    facts: dict[str, Any] = {
        group: summary(values.to_numpy(dtype=float)) | {"median": float(values.median())}
        for group, values in groups.items()
    }
    test = rank_sum(groups[WITH].to_list(), groups[WITHOUT].to_list())
    return facts | {"mann_whitney": vars(test)}


def fullest_seed(table: pd.DataFrame) -> int:
    """Return the seed with most models, the smallest of several."""
    counts = table["seed"].value_counts()
    return int(counts.index[counts == counts.max()].min())


def shown_models(table: pd.DataFrame) -> dict[str, str]:
    """Choose models to draw: run id -> why (the base, best and worst of both groups, the median).

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


def model_label(ft: str) -> str:
    """Return a label such as `distance + perimeter (ftwb2-13)`."""
    return "base (pt1)" if ft in (NO_FT, PRETRAIN) else f"{' + '.join(FINETUNINGS[ft])} ({ft})"


def position_table(found: Probed, shown: Mapping[str, str]) -> pd.DataFrame:
    """Return true and probed positions in degrees of Atlantis and the held-out cities.

    shown: as `shown_models` returns it.
    """
    models = found.table.set_index("run_id")
    tables = []
    for run_id, why in shown.items():
        row, probe = models.loc[run_id], found.cities[run_id].probe
        kept = probe.baseline | probe.atlantis
        cities = found.world.cities[kept]
        heading = model_label(row["ft"]) + (f", {why}" if row["ft"] != NO_FT else "")
        own = pd.DataFrame(
            {
                "shown": f"{heading}: error {row['atlantis_error']:.0f}",
                "model": row["model"],
                "seed": row["seed"],
                **{name: cities[name] for name in ("city_id", "name", "region")},
                "city": np.where(probe.atlantis, ATLANTIS, HELD_OUT)[kept],
                "lon": cities["x"] / DEGREE,
                "lat": cities["y"] / DEGREE,
                "predicted_lon": probe.predicted[kept, 0] / DEGREE,
                "predicted_lat": probe.predicted[kept, 1] / DEGREE,
                "error": probe.errors[kept],
                "run_id": run_id,
            }
        )
        tables.append(own.sort_values("city", kind="stable", ascending=False))
    return pd.concat(tables, ignore_index=True)


def map_limits(table: pd.DataFrame) -> tuple[Limits, Limits]:
    """Return limits in degrees with all true and nearly all probed positions, within the map."""
    tail = 100 * (1 - SHARE_INSIDE) / 2
    limits = []
    for name, most in (("lon", X_LIMIT / DEGREE), ("lat", Y_LIMIT / DEGREE)):
        true = table[name]
        low, high = np.percentile(table[f"predicted_{name}"], [tail, 100 - tail])
        low, high = max(min(low, true.min()), -most), min(max(high, true.max()), most)
        margin = 0.04 * (high - low) + 0.5
        limits.append((float(low - margin), float(high + margin)))
    (left, right), (bottom, top) = limits
    narrow = max(0.0, (top - bottom) - (right - left)) / 2
    flat = max(0.0, FLATTEST * (right - left) - (top - bottom)) / 2
    return (left - narrow, right + narrow), (bottom - flat, top + flat)


def component_table(
    found: Probed, shown: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Return principal components of every city for the shown models, and their variance shares."""
    models, cities = found.table.set_index("run_id"), found.world.cities
    names = sorted(set(cities["region"]) - {ATLANTIS})
    regions = pd.CategoricalDtype([*names, ATLANTIS])  # Atlantis last: drawn above the others
    tables, shares = [], {}
    for run_id in shown:
        row, own = models.loc[run_id], found.cities[run_id]
        percent = ", ".join(f"{100 * share:.0f}" for share in own.explained) + "%"
        shares[row["model"]] = {f"share_{i + 1}": float(own.explained[i]) for i in range(3)}
        table = cities[["city_id", "name"]].assign(
            region=cities["region"].astype(regions),
            shown=f"{model_label(row['ft'])}: {percent}",
            model=row["model"],
            seed=row["seed"],
            run_id=run_id,
            **{f"pc{i + 1}": own.components[:, i] for i in range(3)},
        )
        tables.append(table)
    return pd.concat(tables, ignore_index=True), shares


def disparities(found: Probed) -> tuple[dict[int, pd.DataFrame], float, dict[str, Any]]:
    """Return each seed's Procrustes disparities, the largest of all pairs, and summaries."""
    table = found.table
    disparity = procrustes_table([found.cities[run_id].components for run_id in table["run_id"]])
    names = table["ft"].replace(NO_FT, PRETRAIN)
    every = pd.Index(names.unique(), name="model")
    matrices = {}
    for seed in sorted(set(table["seed"])):
        own = (table["seed"] == seed).to_numpy()
        matrix = pd.DataFrame(disparity[np.ix_(own, own)], index=names[own], columns=names[own])
        matrices[int(seed)] = matrix.reindex(index=every, columns=every)
    pairs = np.triu(np.ones_like(disparity, dtype=bool), 1)
    same_model, same_seed = (
        np.equal.outer(table[column].to_numpy(), table[column].to_numpy())
        for column in ("ft", "seed")
    )
    facts = {
        "different models, same seed": summary(disparity[pairs & same_seed]),
        "same model, different seeds": summary(disparity[pairs & same_model]),
    }
    return matrices, float(disparity.max()), facts


def pair_masks(matrix: pd.DataFrame) -> Masks:
    """Return the pairs of models, each once, by which of the two were fine-tuned on distance."""
    known = np.array(["distance" in FINETUNINGS.get(ft, ()) for ft in matrix.index])
    base = matrix.index.to_numpy() == PRETRAIN
    with_base = base[:, None] | base
    pairs = np.triu(np.ones(matrix.shape, dtype=bool), 1)
    tuned = pairs & ~with_base
    return {
        "distance-distance": tuned & known[:, None] & known,
        "other-other": tuned & ~known[:, None] & ~known,
        "distance-other": tuned & (known[:, None] != known),
        "base": pairs & with_base,
        "all": pairs,
    }
