"""CKA of every two models: as a table of pairs, as a matrix between models, and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.statistics.comparison import rank_sum
from analysis.statistics.matrices import Aggregate, Masks, Summary, diagonal_masks, summary
from analysis.statistics.similarity import cka_table, linear_cka
from worldrep.digests import random_stream
from worldrep.names import PRETRAININGS

SAME = "same tasks"
OTHER, OTHER_SEED = "different tasks", "different tasks, different seeds"
SHARED_SEED = "different tasks, same seed"
MOST_DRAWS = 8
PAIR_COLUMNS = [
    "model", "seed", "other_model", "other_seed", "layer", "cka", "same_model", "same_seed",
    "run_id", "other_run_id",
]  # fmt: skip


def pair_table(
    runs: pd.DataFrame, tables: Sequence[NDArray[np.floating]], layer: int
) -> pd.DataFrame:
    """Return the CKA of every two runs, with PAIR_COLUMNS.

    runs: model and seed, indexed by run id; tables: (n_cities, d), one for each run.
    """
    if len(tables) < 2:
        return pd.DataFrame(columns=PAIR_COLUMNS)
    first, second = np.triu_indices(len(tables), k=1)
    named = runs.reset_index()[["model", "seed", "run_id"]]
    one, other = (named.iloc[rows].reset_index(drop=True) for rows in (first, second))
    return one.join(other.add_prefix("other_")).assign(
        layer=layer,
        cka=cka_table(tables)[first, second],
        same_model=one["model"] == other["model"],
        same_seed=one["seed"] == other["seed"],
    )[PAIR_COLUMNS]


def chance_of(tables: Sequence[NDArray[np.floating]]) -> Summary:
    """Return the CKA of a table with another whose cities are shuffled.

    It is above 0, the more so the fewer cities there are for the features. At most MOST_DRAWS
    draws, each of one table and the next; the same in every process.
    """
    n = min(len(tables), MOST_DRAWS) if len(tables) > 1 else 0
    stream = random_stream(0, "cka", "chance")
    draws = [
        linear_cka(tables[i], stream.permutation(tables[(i + 1) % len(tables)])) for i in range(n)
    ]
    return summary(np.array(draws, dtype=float))


def mean_over_pairs(
    pairs: pd.DataFrame, models: Sequence[str], labels: pd.Index, n_seeds: int
) -> Aggregate:
    """Return the CKA of every two models over pairs of seeds: symmetric, with these labels.

    Off the diagonal all pairs of seeds count; on it (a model with itself) different seeds only.
    """
    swapped = pairs[~pairs["same_model"].astype(bool)].rename(
        columns={"model": "other_model", "other_model": "model"}
    )
    both = pd.concat([pairs, swapped]).astype({"cka": float})
    groups = both.groupby(["model", "other_model"])["cka"]

    def framed(values: pd.Series) -> pd.DataFrame:
        table = values.unstack().reindex(index=models, columns=models)
        return table.set_axis(labels, axis=0).set_axis(labels, axis=1)

    n = framed(groups.count()).fillna(0).astype(int)
    all_pairs, different = n_seeds**2, n_seeds * (n_seeds - 1) // 2
    full = pd.DataFrame(np.where(np.eye(len(n)), different, all_pairs), n.index, n.columns)
    return Aggregate(
        mean=framed(groups.mean()),
        spread=framed(groups.std(ddof=0)).where(n > 1),
        n=n,
        n_seeds=n_seeds,
        full=full,
        over=f"the pairs of seeds ({all_pairs}; {different} on the diagonal)",
    )


def pair_statistics(pairs: pd.DataFrame, n_models: int, n_seeds: int) -> dict[str, Any]:
    """Summarise the pairs of the same tasks and of different ones, and compare them.

    Mean and standard deviation (ddof=0) of each kind; Mann-Whitney of the same tasks against
    different ones of different seeds, as pairs of the same tasks are never of one seed, and
    against all. The p values are too small, as pairs that share a model are not independent.
    """
    same, seed = pairs["same_model"].astype(bool), pairs["same_seed"].astype(bool)
    others, different = n_models * (n_models - 1) // 2, n_seeds * (n_seeds - 1)
    kinds = {  # which pairs, and their number if nothing were missing
        SAME: (same, n_models * different // 2),
        OTHER: (~same, others * n_seeds**2),
        OTHER_SEED: (~same & ~seed, others * different),
        SHARED_SEED: (~same & seed, others * n_seeds),
    }
    values = {kind: pairs["cka"][which].to_numpy(dtype=float) for kind, (which, _) in kinds.items()}
    facts = {
        kind: summary(values[kind]) | {"missing": full - len(values[kind])}
        for kind, (_, full) in kinds.items()
    }
    return {
        **facts,
        "comparison": asdict(rank_sum(values[SAME], values[OTHER_SEED])),
        "comparison with all": asdict(rank_sum(values[SAME], values[OTHER])),
    }


def mixture_masks(matrix: pd.DataFrame) -> Masks:
    """Return the cells of a mixture with itself, with those that share a task, and with others."""
    masks = diagonal_masks(matrix)
    sets = [set(PRETRAININGS[name]) for name in matrix.index]
    shares = np.array([[bool(one & other) for other in sets] for one in sets])
    return {
        "same mixture": masks["same task"],
        "overlapping mixtures": masks["different tasks"] & shares,
        "disjoint mixtures": ~shares,
        "all": masks["all"],
    }
