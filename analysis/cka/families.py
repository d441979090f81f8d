"""CKA within a family of pretrained models: of one task (pt1-X), of two (pt2-k) or three (pt3-k).

Only world cities count, as the models have not seen Atlantis.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import ALL, Options
from analysis.statistics.matrices import Aggregate, Masks, Summary, diagonal_masks, summary
from analysis.statistics.similarity import cka_table, linear_cka
from analysis.store.extractions import (
    Extractions,
    check_depth,
    default_layer,
    layers_of,
    read_extractions,
)
from analysis.store.selection import NothingThere, Trained, choose_models, used_runs
from analysis.store.source import Source
from worldrep.digests import random_stream
from worldrep.errors import StateError
from worldrep.names import PRETRAININGS, ModelName, parse_model
from worldrep.tracking import StoredRun

USUAL_SEEDS = (42, 1, 2, 3)
SAME = "same tasks"
OTHER, OTHER_SEED = "different tasks", "different tasks, different seeds"
SHARED_SEED = "different tasks, same seed"
SHUFFLED = "cities shuffled"
MOST_DRAWS = 8
PERMUTATIONS = 9_999
TIE = 1e-9  # means of CKA this close are equal, added in another order
PAIR_COLUMNS = [
    "model", "seed", "other_model", "other_seed", "layer", "cka", "same_model", "same_seed",
    "run_id", "other_run_id",
]  # fmt: skip

Row = dict[str, Any]  # of `missing_table`


@dataclass(frozen=True)
class Likeness:
    """CKA of every two models of a family at one layer.

    pairs: a row for every two runs, with PAIR_COLUMNS; n_cities, n_features: of the compared
    tables; chance: CKA when the cities of one table are shuffled.
    """

    family: str
    layer: int
    models: tuple[ModelName, ...]
    seeds: tuple[int, ...]
    pairs: pd.DataFrame
    n_cities: int
    n_features: tuple[int, ...]
    chance: Summary

    @property
    def name(self) -> str:
        return f"cka_{self.family}_layer{self.layer}"

    @property
    def labels(self) -> pd.Index:
        """Labels of the models: the task of one pretrained on a single task, else its name."""
        if self.family == "pt1":
            return pd.Index([model.tasks[0] for model in self.models], name="task")
        return pd.Index([model.pretrain for model in self.models], name="model")

    @property
    def features_in_words(self) -> str:
        return f"{' or '.join(map(str, self.n_features))} features"


@dataclass(frozen=True)
class Family:
    """CKA of a family's models at each layer."""

    name: str
    layers: list[Likeness]
    runs_used: pd.DataFrame
    caveats: list[str]
    missing: list[Row]


def compare_family(
    source: Source, options: Options, trained: Trained, name: str, layer: int | str
) -> Family | None:
    """Compute the CKA of a family's models at a layer, or at `all` that they have in common.

    None if the store has none of the models. Raises InputError for a layer that the models do not
    have, NothingThere if none is of the seeds and the layer, or a single one.
    """
    names = [own for own in PRETRAININGS if own.startswith(f"{name}-")]
    family = {str(own): own for own in (ModelName(own, width=options.width) for own in names)}
    every = source.runs(stage="extract", **options.names)
    runs = [run for run in every if run.tag("model") in family]
    if not runs:
        return None
    models, seeds, _ = choose_models(runs, [*family.values()], "extraction", options, source)
    at = ALL if layer == ALL else _choose_layer(runs, layer)
    asked = product(models, seeds)
    found = read_extractions(source, trained, asked, layer=at, **options.names)
    n_cities, missing, compared = int((~found.world.is_atlantis).sum()), [], []
    for number in [at] if isinstance(at, int) else found.layers:
        tables, faults = _read_tables(found, number)
        arrays = [*tables.values()]
        pairs = pair_table(found.runs.loc[[*tables]], arrays, number)
        sizes = n_cities, tuple(sorted({array.shape[1] for array in arrays}))
        compared.append(Likeness(name, number, models, seeds, pairs, *sizes, chance_of(arrays)))
        missing += _missing(found, compared[-1], faults, trained)
    if at == ALL:
        missing += _missing_layers(found, f"cka_{name}", trained)
    pairs = pd.concat([likeness.pairs for likeness in compared])
    if pairs.empty:
        raise NothingThere(
            f"{source.place} has representations of a single model of {models[0]}, ... "
            f"{models[-1]} at layer {compared[0].layer} ({options.in_words}): CKA needs two"
        )
    used = used_runs(found.runs, {*pairs["run_id"], *pairs["other_run_id"]})
    return Family(name, compared, used, [*_bias_caveats(compared[0]), *found.caveats], missing)


def _choose_layer(runs: Sequence[StoredRun], layer: int | str) -> int:
    """Return the layer that was asked for, or the default one of most models."""
    if isinstance(layer, str):
        return Counter(default_layer(run) for run in runs).most_common(1)[0][0]
    check_depth(layer, runs)
    held = sorted({at for run in runs for at in layers_of(run)})
    if layer not in held:
        raise NothingThere(
            f"the store has no representations of layer {layer}, only of "
            f"{', '.join(map(str, held))}; `-e extract -P layers={layer}` makes them"
        )
    return layer


def _read_tables(
    found: Extractions, layer: int
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Return run id -> (n_cities, d) of the world cities, and run id -> why it has no CKA."""
    tables, faults = {}, {}
    for run_id in found.runs.index:
        try:
            tables[run_id] = found.table(run_id, layer)[~found.world.is_atlantis]
        except StateError as fault:
            faults[run_id] = str(fault)
    return tables, faults


def _bias_caveats(likeness: Likeness) -> list[str]:
    if likeness.n_cities > max(likeness.n_features, default=0):
        return []
    return [
        f"{likeness.family}: {likeness.n_cities} cities are fewer than "
        f"{likeness.features_in_words}, so CKA is biased upwards: compare it with that of shuffled "
        "cities, not with 0"
    ]


def _missing(
    found: Extractions, likeness: Likeness, faults: dict[str, str], trained: Trained
) -> list[Row]:
    """Return what the matrix of a layer lacks. faults: as `_read_tables` returns them."""
    layer, rows = likeness.layer, list(found.absent)
    for run in found.runs.loc[[*faults]].itertuples():
        command = trained.to_extract(parse_model(run.model), run.seed, layers=layer)
        again = trained.again(run.Index, command)
        rows.append(_row(run.model, run.seed, faults[run.Index], again))
    if len(likeness.seeds) == 1:
        seed = next(seed for seed in USUAL_SEEDS if seed not in likeness.seeds)
        reason = "the diagonal compares two seeds, and there is one"
        for model in likeness.models:
            rows.append(_row(model, seed, reason, trained.to_extract(model, seed, layers=layer)))
    return [{"matrix": likeness.name, **row} for row in rows]


def _missing_layers(found: Extractions, matrix: str, trained: Trained) -> list[Row]:
    """Return the models that lack layers which others have."""
    held, rows = set().union(*found.runs["layers"]), []
    for run in found.runs.itertuples():
        if lacking := sorted(held - set(run.layers)):
            reason = f"no representations of layers {', '.join(map(str, lacking))}"
            command = trained.to_extract(parse_model(run.model), run.seed, layers=ALL)
            rows.append({"matrix": matrix, **_row(run.model, run.seed, reason, command)})
    return rows


def _row(model: ModelName | str, seed: int, reason: str, command: str) -> Row:
    return {"model": str(model), "seed": seed, "reason": reason, "command": command}


def pair_table(
    runs: pd.DataFrame, tables: Sequence[NDArray[np.floating]], layer: int
) -> pd.DataFrame:
    """Return the CKA of every two runs, with PAIR_COLUMNS.

    runs: model and seed, indexed by run id; tables: (n_cities, d), one for each run.
    """
    first, second = np.triu_indices(len(tables), k=1)
    named = runs.reset_index()[["model", "seed", "run_id"]]
    one, other = (named.iloc[rows].reset_index(drop=True) for rows in (first, second))
    return one.join(other.add_prefix("other_")).assign(
        layer=layer,
        cka=cka_table(tables)[first, second],
        same_model=one["model"] == other["model"],
        same_seed=one["seed"] == other["seed"],
    )[PAIR_COLUMNS]


def mirrored(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of `pair_table` with their two models exchanged."""
    names = {name: f"other_{name}" for name in ("model", "seed", "run_id")}
    return pairs.rename(columns=names | {other: name for name, other in names.items()})


def chance_of(tables: Sequence[NDArray[np.floating]]) -> Summary:
    """Return the CKA of a table with another, whose cities are shuffled: at most MOST_DRAWS draws.

    The draws are spread evenly over the tables; the other is half of the tables further on. CKA by
    chance is above 0, the more so the fewer cities there are for the features. The draws are the
    same in every process.
    """
    stream, n = random_stream(0, "cka", "chance"), len(tables)
    chosen = np.linspace(0, n, min(n, MOST_DRAWS), endpoint=False).astype(int) if n > 1 else ()
    draws = [linear_cka(tables[k], stream.permutation(tables[(k + n // 2) % n])) for k in chosen]
    return summary(np.array(draws, dtype=float))


def mean_over_pairs(likeness: Likeness) -> Aggregate:
    """Return the CKA of every two models over pairs of seeds: a symmetric matrix.

    Off the diagonal all pairs of seeds count; on it (a model with itself) different seeds only.
    """
    pairs, models, n_seeds = likeness.pairs, [*map(str, likeness.models)], len(likeness.seeds)
    both = pd.concat([pairs, mirrored(pairs[~pairs["same_model"]])])
    groups = both.groupby(["model", "other_model"])["cka"]

    def framed(values: pd.Series) -> pd.DataFrame:
        table = values.unstack().reindex(index=models, columns=models)
        return table.set_axis(likeness.labels, axis=0).set_axis(likeness.labels, axis=1)

    n = framed(groups.count()).fillna(0).astype(int)
    all_pairs, different = n_seeds**2, n_seeds * (n_seeds - 1) // 2
    full = pd.DataFrame(np.where(np.eye(len(n)), different, all_pairs), n.index, n.columns)
    spread = framed(groups.std(ddof=0)).where(n > 1)
    over = f"the pairs of seeds ({all_pairs}; {different} on the diagonal)"
    return Aggregate(framed(groups.mean()), spread, n, n_seeds, full, over)


def pair_statistics(likeness: Likeness) -> dict[str, Any]:
    """Summarise the pairs of the same tasks and of different ones, and compare them.

    Mean and standard deviation (ddof=0) of each kind. Compared are pairs of different seeds, as
    those of the same tasks are never of one seed.
    """
    same, seed = likeness.pairs["same_model"], likeness.pairs["same_seed"]
    n_models, n_seeds = len(likeness.models), len(likeness.seeds)
    others, different = n_models * (n_models - 1) // 2, n_seeds * (n_seeds - 1)
    kinds = {  # which pairs, and their number if nothing were missing
        SAME: (same, n_models * different // 2),
        OTHER: (~same, others * n_seeds**2),
        OTHER_SEED: (~same & ~seed, others * different),
        SHARED_SEED: (~same & seed, others * n_seeds),
    }
    cka = {kind: likeness.pairs["cka"][which].to_numpy() for kind, (which, _) in kinds.items()}
    counts = {kind: {"missing": full - len(cka[kind])} for kind, (_, full) in kinds.items()}
    return {
        **{kind: summary(cka[kind]) | counts[kind] for kind in kinds},
        "comparison": task_permutation_test(likeness),
        SHUFFLED: likeness.chance,
        "n_cities": likeness.n_cities,
        "n_features": list(likeness.n_features),
    }


def task_permutation_test(likeness: Likeness) -> dict[str, float | None]:
    """Test whether pairs of the same tasks are more alike than pairs of different tasks.

    All pairs are of different seeds. difference: mean CKA of the first minus that of the second.
    The labels (tasks) of the models of each seed are permuted within it, PERMUTATIONS times at
    random. p: two-sided, the share of permutations, the observed one included, whose mean of the
    same tasks is at least as far from its expectation as the observed one. It is at least
    1 / n!^(k - 1) for n models of k seeds, so two tasks are too few. Both are None if pairs of one
    kind are missing.
    """
    pairs = likeness.pairs[~likeness.pairs["same_seed"]]
    of_kind = pairs.groupby("same_model")["cka"].mean()
    if len(of_kind) < 2 or pairs["cka"].isna().any():
        return {"difference": None, "p": None}
    both = pd.concat([pairs, mirrored(pairs)])
    stream = random_stream(0, "cka", "permutations")
    models = {seed: np.unique(own) for seed, own in both.groupby("seed")["model"]}
    orders = {
        seed: np.tile(np.arange(len(own)), (PERMUTATIONS + 1, 1)) for seed, own in models.items()
    }
    for order in orders.values():
        order[1:] = stream.permuted(order[1:], axis=1)  # the first: as observed
    sums, expected, n = np.zeros(PERMUTATIONS + 1), 0.0, 0
    for one, other in combinations(models, 2):
        of_both = both[(both["seed"] == one) & (both["other_seed"] == other)]
        cka = of_both.pivot(index="model", columns="other_model", values="cka").to_numpy()
        _, *places = np.intersect1d(models[one], models[other], return_indices=True)
        rows, columns = (orders[s][:, own] for s, own in zip((one, other), places, strict=True))
        sums += cka[rows, columns].sum(axis=1)
        expected += len(places[0]) * cka.mean()
        n += len(places[0])
    distance = abs(sums - expected) / n
    p = float((distance >= distance[0] - TIE).mean())
    return {"difference": float(of_kind[True] - of_kind[False]), "p": p}


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
