"""Linear probe and principal components of the representations of pt1 and its fine-tunings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.statistics.comparison import over_seeds, rank_sum
from analysis.statistics.matrices import Masks, summary
from analysis.statistics.similarity import principal_components, procrustes_table
from analysis.store.evaluations import PRETRAIN
from analysis.store.extractions import Extractions
from worldrep.data.world import ATLANTIS, X_LIMIT, Y_LIMIT, World
from worldrep.errors import StateError
from worldrep.evaluation.representations import ProbeResult, probe_positions
from worldrep.names import FINETUNINGS, NO_FT, parse_model

COMPONENTS = 3
MODEL_COLUMNS = ["atlantis_error", "std", "low", "high", "n_seeds", "seeds", "atlantis_errors"]
WITH, WITHOUT, BASE = "with distance", "without distance", "not at all (base)"
DEGREE = 10  # units of 0.1 degree
GROUPS = pd.CategoricalDtype([WITH, WITHOUT, BASE], ordered=False)


class Cities(NamedTuple):
    """One model's probe, and components (n, 3) of all cities with their shares of the variance."""

    probe: ProbeResult
    components: NDArray[np.float64]
    explained: NDArray[np.float64]


@dataclass(frozen=True)
class Probed:
    """The models that could be probed.

    table: one row for each model and seed (`run_id`: the extraction); cities: by run id.
    """

    table: pd.DataFrame
    cities: Mapping[str, Cities]
    world: World

    @property
    def guessed(self) -> dict[str, float]:
        """The errors of the mean position of the cities fitted on, whatever the city."""
        probe = next(iter(self.cities.values())).probe
        middle = self.world.positions[probe.trained].mean(axis=0)
        errors = np.linalg.norm(self.world.positions - middle, axis=1)
        return _position_errors(replace(probe, errors=errors))


def probe_models(found: Extractions) -> tuple[Probed, dict[str, str]]:
    """Probe extractions, one after the other; and run id -> why one cannot be used."""
    rows, cities, faults = [], {}, {}
    for run in found.runs.itertuples():
        try:
            features = found.table(run.Index, run.layer)
            components = principal_components(features, COMPONENTS)
            cities[run.Index] = Cities(probe_positions(features, found.world), *components)
        except StateError as fault:
            faults[run.Index] = str(fault)
        else:
            rows.append(_row(run, cities[run.Index].probe, features.shape[1]))
    table = pd.DataFrame(rows).astype({"fine_tuned": GROUPS} if rows else {})
    return Probed(table, cities, found.world), faults


def _row(run: Any, probe: ProbeResult, n_features: int) -> dict[str, Any]:
    model = parse_model(run.model)
    is_base, has_distance = model.ft == NO_FT, "distance" in model.tasks
    return {
        "model": run.model,
        "ft": model.ft,
        "seed": run.seed,
        "tasks": ",".join(model.tasks),
        "with_distance": None if is_base else has_distance,
        "fine_tuned": BASE if is_base else WITH if has_distance else WITHOUT,
        "layer": run.layer,
        **_position_errors(probe),
        "n_features": n_features,
        "n_fitted": int(probe.trained.sum()),
        "n_baseline": int(probe.baseline.sum()),
        "n_atlantis": int(probe.atlantis.sum()),
        "run_id": run.Index,
    }


def _position_errors(probe: ProbeResult) -> dict[str, float]:
    """Return mean errors in 0.1 degree: cities fitted on, held-out world cities, Atlantis."""
    found = probe.summary()
    names = {"fitted_error": "train", "world_error": "world", "atlantis_error": "atlantis"}
    return {name: found[part] for name, part in names.items()}


def by_model(table: pd.DataFrame) -> pd.DataFrame:
    """Return each model's Atlantis error over seeds, the smallest first.

    table: one row for each model and seed. n_seeds, seeds and atlantis_errors: the model's seeds
    and the error of each; world_error: mean of the held-out cities' errors.
    """
    keys = ["model", "ft", "tasks", "fine_tuned"]
    spread = over_seeds(table, keys, "atlantis_error")
    names = {"mean": "atlantis_error", "n": "n_seeds", "parts": "atlantis_errors"}
    found = spread.rename(columns=names)[[*keys, *MODEL_COLUMNS]]
    found["seeds"] = [tuple(map(int, seeds.split())) for seeds in found["seeds"]]
    means = table.groupby(keys, sort=False, observed=True)["world_error"].mean()
    found = found.join(means, on=keys)
    return found.sort_values("atlantis_error", kind="stable", ignore_index=True)


def by_group(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Summarise a column for each group of `fine_tuned`."""
    groups = {group: table.loc[table["fine_tuned"] == group, column] for group in GROUPS.categories}
    return {
        group: summary(values.to_numpy(dtype=float)) | {"median": float(values.median())}
        for group, values in groups.items()
    }


def comparison(models: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return `by_group` and compare with and without distance (`mann_whitney`).

    models: of `by_model`, as seeds of one model are not independent.
    """
    own = models.set_index("fine_tuned")[column]
    groups = [[*own[own.index == group]] for group in (WITH, WITHOUT)]
    return by_group(models, column) | {"mann_whitney": rank_sum(*groups)}


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
    return {run_id: next(why for why, own in wanted if own == run_id) for _, run_id in wanted}


def model_label(ft: str) -> str:
    """Return a label such as `distance + perimeter (ftwb2-13)`."""
    return "base (pt1)" if ft in (NO_FT, PRETRAIN) else f"{' + '.join(FINETUNINGS[ft])} ({ft})"


def position_table(found: Probed, shown: Mapping[str, str]) -> pd.DataFrame:
    """Return true and probed positions in degrees of Atlantis and the held-out cities."""
    tables = []
    for run_id, row in found.table.set_index("run_id").loc[[*shown]].iterrows():
        probe = found.cities[run_id].probe
        kept = probe.baseline | probe.atlantis
        cities, predicted = found.world.cities[kept], probe.predicted[kept] / DEGREE
        why = "" if row["ft"] == NO_FT else f", {shown[run_id]}"
        own = {
            "shown": f"{model_label(row['ft'])}{why}: error {row['atlantis_error']:.0f}",
            **row[["model", "seed"]],
            **cities[["city_id", "name", "region"]],
            "city": np.where(probe.atlantis, ATLANTIS, "held-out world city")[kept],
            "lon": cities["x"] / DEGREE,
            "lat": cities["y"] / DEGREE,
            "predicted_lon": predicted[:, 0],
            "predicted_lat": predicted[:, 1],
            "error": probe.errors[kept],
            "run_id": run_id,
        }
        tables.append(pd.DataFrame(own).sort_values("city", kind="stable", ascending=False))
    return pd.concat(tables, ignore_index=True)


def map_limits(table: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return limits in degrees with all true and 98% of the probed positions, within the map."""
    true, most = table[["lon", "lat"]].to_numpy(), np.array([X_LIMIT, Y_LIMIT]) / DEGREE
    low, high = np.percentile(table[["predicted_lon", "predicted_lat"]], [1, 99], axis=0)
    low = np.minimum(low, true.min(axis=0)).clip(min=-most)
    high = np.maximum(high, true.max(axis=0)).clip(max=most)
    margin = 0.04 * (high - low) + 0.5
    low, high = low - margin, high + margin
    width, height = high - low
    further = np.maximum(0, [height - width, width / 2 - height]) / 2  # from 1:1 to 2:1
    (left, bottom), (right, top) = (low - further).tolist(), (high + further).tolist()
    return (left, right), (bottom, top)


def component_table(
    found: Probed, shown: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Return principal components of every city for the shown models, and their variance shares."""
    cities, tables, shares = found.world.cities, [], {}
    regions = [*sorted(set(cities["region"]) - {ATLANTIS}), ATLANTIS]  # drawn in this order
    for run_id, row in found.table.set_index("run_id").loc[[*shown]].iterrows():
        _, components, explained = found.cities[run_id]
        percent = ", ".join(f"{100 * share:.0f}" for share in explained) + "%"
        shares[row["model"]] = {f"share_{i + 1}": float(explained[i]) for i in range(COMPONENTS)}
        own = {
            **cities[["city_id", "name"]],
            "region": pd.Categorical(cities["region"], regions),
            "shown": f"{model_label(row['ft'])}: {percent}",
            **row[["model", "seed"]],
            "run_id": run_id,
            **{f"pc{i + 1}": components[:, i] for i in range(COMPONENTS)},
        }
        tables.append(pd.DataFrame(own))
    return pd.concat(tables, ignore_index=True), shares


def disparities(found: Probed) -> tuple[dict[int, pd.DataFrame], float, dict[str, Any]]:
    """Return each seed's Procrustes disparities, the largest of all pairs, and summaries."""
    names, seeds = found.table["ft"].replace(NO_FT, PRETRAIN), found.table["seed"]
    values = procrustes_table([found.cities[run_id].components for run_id in found.table["run_id"]])
    labels = pd.MultiIndex.from_arrays([seeds, names])
    table, every = pd.DataFrame(values, labels, labels), pd.Index(names.unique(), name="model")
    matrices = {
        int(seed): table.loc[seed, seed].reindex(index=every, columns=every)
        for seed in sorted(set(seeds))
    }
    pairs = np.triu(np.ones_like(values, dtype=bool), 1)
    same_model, same_seed = (np.equal.outer(*[own.to_numpy()] * 2) for own in (names, seeds))
    facts = {
        "different models, same seed": summary(values[pairs & same_seed]),
        "same model, different seeds": summary(values[pairs & same_model]),
    }
    return matrices, float(values.max()), facts


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
