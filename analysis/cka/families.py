"""CKA within a family of pretrained models: of one task (pt1-X), of two (pt2-k) or three (pt3-k).

Only world cities count, as the models have not seen Atlantis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import ALL, Options
from analysis.statistics.comparison import rank_sum
from analysis.statistics.matrices import Aggregate, Masks, Summary, diagonal_masks, summary
from analysis.statistics.similarity import cka_table, linear_cka
from analysis.store.extractions import (
    DEFAULT,
    Extractions,
    check_depth,
    default_layer,
    layers_of,
    read_extractions,
)
from analysis.store.missing import Commands
from analysis.store.selection import NothingThere, Trained, used_runs
from analysis.store.source import Source
from worldrep.digests import random_stream
from worldrep.errors import StateError
from worldrep.names import PRETRAININGS, ModelName, parse_model
from worldrep.tracking import StoredRun

USUAL_SEEDS = (42, 1, 2, 3)
SAME = "same tasks"
OTHER, OTHER_SEED = "different tasks", "different tasks, different seeds"
SHARED_SEED = "different tasks, same seed"
MOST_DRAWS = 8
PAIR_COLUMNS = [
    "model", "seed", "other_model", "other_seed", "layer", "cka", "same_model", "same_seed",
    "run_id", "other_run_id",
]  # fmt: skip


@dataclass(frozen=True)
class Likeness:
    """CKA of every two models of a family at one layer.

    pairs: a row for every two runs, with PAIR_COLUMNS; n_cities, n_features: of the compared
    tables; chance: CKA when the cities of one table are shuffled.
    """

    family: str
    layer: int
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    pairs: pd.DataFrame
    n_cities: int
    n_features: tuple[int, ...]
    chance: Summary

    @property
    def name(self) -> str:
        """Name of its matrix."""
        return f"cka_{self.family}_layer{self.layer}"

    @property
    def labels(self) -> pd.Index:
        """Labels of the models: the task of one pretrained on a single task, else its name."""
        names = [parse_model(model).pretrain for model in self.models]
        if self.family == "pt1":
            return pd.Index([PRETRAININGS[name][0] for name in names], name="task")
        return pd.Index(names, name="model")

    @property
    def features_in_words(self) -> str:
        """Number of features, such as `256 features`."""
        return f"{' or '.join(map(str, self.n_features))} features"


@dataclass(frozen=True)
class Family:
    """CKA of a family's models at each layer. missing: rows for `missing_table`."""

    name: str
    layers: list[Likeness]
    runs_used: pd.DataFrame
    caveats: list[str]
    missing: list[dict[str, Any]]


def compare_family(
    source: Source, options: Options, trained: Trained, name: str, layer: int | str = DEFAULT
) -> Family | None:
    """Compute the CKA of a family's models at a layer, or at `all` that they have in common.

    None if the store has none of the models. Raises InputError for a layer that the models do not
    have, NothingThere if none is of the seeds and the layer, or a single one.
    """
    of_family = [own for own in PRETRAININGS if own.startswith(f"{name}-")]
    models = tuple(str(ModelName(own, width=options.width)) for own in of_family)
    runs = [r for r in source.runs(stage="extract", **options.names) if r.tag("model") in models]
    if not runs:
        return None
    seeds = _choose_seeds(runs, options, models)
    at = ALL if layer == ALL else _choose_layer(runs, layer)
    asked = [(parse_model(model), seed) for model, seed in product(models, seeds)]
    found = read_extractions(source, trained, asked, layer=at, **options.names)
    compared, missing = [], []
    for number in [at] if isinstance(at, int) else found.layers:
        tables, faults = _read_tables(found, number)
        compared.append(_likeness(name, number, models, seeds, found, tables))
        missing += _missing(found, compared[-1], faults, trained.commands)
    if at == ALL:
        missing += _missing_layers(found, f"cka_{name}", trained.commands)
    pairs = pd.concat([likeness.pairs for likeness in compared])
    used = {*pairs["run_id"], *pairs["other_run_id"]}
    if not used:
        raise NothingThere(
            f"{source.place} has representations of a single model of {models[0]}, ... "
            f"{models[-1]} at layer {compared[0].layer} ({options.in_words}): CKA needs two"
        )
    caveats = [*_bias_caveats(compared[0]), *found.caveats]
    return Family(name, compared, used_runs(found.runs, used), caveats, missing)


def _choose_seeds(
    runs: Sequence[StoredRun], options: Options, models: Sequence[str]
) -> tuple[int, ...]:
    """Return the seeds that were asked for, else all. Raises NothingThere if none is there."""
    held = tuple(sorted({int(run.tag("seed")) for run in runs}))
    if options.seeds and not set(options.seeds) & set(held):
        raise NothingThere(
            f"the store has representations of {models[0]}, ... {models[-1]} of seeds "
            f"{', '.join(map(str, held))}, not of {', '.join(map(str, options.seeds))} "
            f"({options.in_words})"
        )
    return options.seeds or held


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
            table = found.table(run_id, layer)[~found.world.is_atlantis]
        except StateError as fault:
            faults[run_id] = str(fault)
            continue
        if not np.isfinite(table).all():
            faults[run_id] = f"extraction {run_id} holds NaN or infinity at layer {layer}"
        elif (table == table[0]).all():
            faults[run_id] = f"extraction {run_id} is the same for every city at layer {layer}"
        else:
            tables[run_id] = table
    return tables, faults


def _likeness(
    family: str,
    layer: int,
    models: tuple[str, ...],
    seeds: tuple[int, ...],
    found: Extractions,
    tables: dict[str, NDArray[np.float32]],
) -> Likeness:
    arrays = list(tables.values())
    pairs = pair_table(found.runs.loc[list(tables)], arrays, layer)
    n_cities = int((~found.world.is_atlantis).sum())
    n_features = tuple(sorted({table.shape[1] for table in arrays}))
    return Likeness(family, layer, models, seeds, pairs, n_cities, n_features, chance_of(arrays))


def _bias_caveats(likeness: Likeness) -> list[str]:
    if not likeness.n_features or likeness.n_cities > max(likeness.n_features):
        return []
    return [
        f"{likeness.family}: {likeness.n_cities} cities are fewer than "
        f"{likeness.features_in_words}, so CKA is biased upwards: compare it with that of shuffled "
        "cities, not with 0"
    ]


def _missing(
    found: Extractions, likeness: Likeness, faults: dict[str, str], commands: Commands
) -> list[dict[str, Any]]:
    """Return what the matrix of a layer lacks. faults: as `_read_tables` returns them."""
    layer, rows = likeness.layer, list(found.absent)
    for run in found.runs.loc[list(faults)].itertuples():
        command = commands.extract(parse_model(run.model), run.seed, layers=layer)
        again = commands.again(run.Index, command)
        rows.append(_row(run.model, run.seed, faults[run.Index], again))
    if len(likeness.seeds) == 1:
        other = next(seed for seed in USUAL_SEEDS if seed != likeness.seeds[0])
        reason = "the diagonal compares two seeds, and there is one"
        for model in likeness.models:
            command = commands.extract(parse_model(model), other, layers=layer)
            rows.append(_row(model, other, reason, command))
    return [{"matrix": likeness.name, **row} for row in rows]


def _missing_layers(found: Extractions, matrix: str, commands: Commands) -> list[dict[str, Any]]:
    """Return the models that lack layers which others have."""
    held, rows = {at for layers in found.runs["layers"] for at in layers}, []
    for run in found.runs.itertuples():
        if lacking := sorted(held - set(run.layers)):
            reason = f"no representations of layers {', '.join(map(str, lacking))}"
            command = commands.extract(parse_model(run.model), run.seed, layers=ALL)
            rows.append({"matrix": matrix, **_row(run.model, run.seed, reason, command)})
    return rows


def _row(model: str, seed: int, reason: str, command: str) -> dict[str, Any]:
    return {"model": model, "seed": seed, "reason": reason, "command": command}


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
    facts: dict[str, Any] = {
        kind: summary(values[kind]) | {"missing": full - len(values[kind])}
        for kind, (_, full) in kinds.items()
    }
    for name, other in (("comparison", OTHER_SEED), ("comparison with all", OTHER)):
        facts[name] = asdict(rank_sum(values[SAME], values[other]))
    return facts


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
