"""Where a few models place the cities: probed positions of Atlantis, principal components of all.

Pure functions from what was read to charts; `analysis.probes` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.figures.scatter import Scatter
from analysis.store.probings import Cities, Probings
from worldrep.data.world import ATLANTIS, X_LIMIT, Y_LIMIT
from worldrep.names import FINETUNINGS, NO_FT

DEGREE = 10  # units of 0.1 degree
HELD_OUT = "held-out world city"
WIDE = 3.6  # inches of one map
MANY_CITIES = 500
SHARE_INSIDE = 0.98
FLATTEST = 0.5  # height of a map as a share of its width, that of the world


def model_label(ft: str) -> str:
    """Such as `distance + perimeter (ftwb2-13)`."""
    return "base (pt1)" if ft == NO_FT else f"{' + '.join(FINETUNINGS[ft])} ({ft})"


def position_map(found: Probings, shown: Mapping[str, str], seed: int) -> Scatter:
    """True and probed positions of Atlantis and of the held-out cities, in degrees."""
    table = pd.concat([_positions(found, run_id, why) for run_id, why in shown.items()])
    x_limits, y_limits = map_limits(table)
    outside = sum(
        (~table[column].between(*limits)).to_numpy()
        for column, limits in (("predicted_lon", x_limits), ("predicted_lat", y_limits))
    )
    n_outside = int((outside > 0).sum())
    ratio = (y_limits[1] - y_limits[0]) / (x_limits[1] - x_limits[0])
    return Scatter(
        name="position_map",
        title=f"Where a linear probe finds the cities that it was not fitted on, seed {seed}",
        table=table.reset_index(drop=True),
        x="lon",
        y="lat",
        towards=("predicted_lon", "predicted_lat"),
        x_label="longitude (degrees)",
        y_label="latitude (degrees)",
        lines=(
            "Open: where the city is. Filled, at the end of the line: where the probe puts it.",
            "Shown: the base, the median model, and the best and the worst on Atlantis of those "
            "with and without distance.",
        ),
        group="city",
        facet="shown",
        size=(WIDE, WIDE * ratio),
        x_limits=x_limits,
        y_limits=y_limits,
        marker_size=16 if len(table) <= MANY_CITIES else 8,
        hover=("name", "city_id", "region", "model", "seed", "error", "run_id"),
        notes=(
            "Error in the headings: mean Euclidean error on Atlantis, in 0.1 degree.",
            *([f"{n_outside} of {len(table)} probed positions lie outside the axes."]
              if n_outside else []),
        ),
        statistics={"position_map": {"n": len(table), "outside": n_outside, "seed": seed}},
    )  # fmt: skip


def map_limits(table: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits in degrees with all true and nearly all probed positions, within the map."""
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


def _positions(found: Probings, run_id: str, why: str) -> pd.DataFrame:
    """One row for each city of Atlantis and each held-out one."""
    row = found.row(run_id)
    probe, cities = found.cities[run_id].probe, found.world.cities
    kept = probe.baseline | probe.atlantis
    heading = model_label(row["ft"]) + (f", {why}" if row["ft"] != NO_FT else "")
    return pd.DataFrame(
        {
            "shown": f"{heading}: error {row['atlantis_error']:.0f}",
            "model": row["model"],
            "seed": row["seed"],
            **{name: cities.loc[kept, name] for name in ("city_id", "name", "region")},
            "city": np.where(probe.atlantis, ATLANTIS, HELD_OUT)[kept],
            "lon": cities.loc[kept, "x"] / DEGREE,
            "lat": cities.loc[kept, "y"] / DEGREE,
            "predicted_lon": probe.predicted[kept, 0] / DEGREE,
            "predicted_lat": probe.predicted[kept, 1] / DEGREE,
            "error": probe.errors[kept],
            "run_id": run_id,
        }
    ).sort_values("city", kind="stable", ascending=False)


def component_map(found: Probings, shown: Mapping[str, str], seed: int) -> Scatter:
    """The first two principal components of all cities, the third for a page."""
    table = pd.concat([_components(found, run_id, why) for run_id, why in shown.items()])
    n = len(found.world.cities)
    return Scatter(
        name="pca_map",
        title=f"Principal components of the cities' representations, seed {seed}",
        table=table.reset_index(drop=True),
        x="pc1",
        y="pc2",
        z="pc3",
        x_label="first component",
        y_label="second component",
        lines=(
            f"All {n} cities, world and Atlantis, centred together; the unit is that of the "
            "hidden states. Sign and rotation mean nothing.",
            "Headings: shares of the variance that the first three components have.",
        ),
        group="region",
        facet="shown",
        size=(WIDE, WIDE),
        equal=True,
        marker_size=26 if n <= MANY_CITIES else 5,
        hover=("name", "city_id", "region", "model", "seed", "run_id"),
        notes=("The same models as in position_map.",),
        statistics={
            "pca_map": {
                found.row(run_id)["model"]: {
                    f"share_{i}": float(share)
                    for i, share in enumerate(found.cities[run_id].explained, start=1)
                }
                for run_id in shown
            }
        },
    )


def _components(found: Probings, run_id: str, why: str) -> pd.DataFrame:
    """One row for each city, Atlantis last."""
    row, own = found.row(run_id), found.cities[run_id]
    cities = found.world.cities
    table = cities[["city_id", "name"]].assign(
        region=cities["region"].astype(_regions(cities["region"])),
        shown=f"{model_label(row['ft'])}: {shares(own)}",
        model=row["model"],
        seed=row["seed"],
        run_id=run_id,
    )
    return table.assign(**{f"pc{i + 1}": own.components[:, i] for i in range(3)})


def _regions(found: pd.Series) -> pd.CategoricalDtype:
    """The regions by name, Atlantis last: it is drawn above the others."""
    names = sorted(set(found) - {ATLANTIS})
    return pd.CategoricalDtype([*names, ATLANTIS])


def shares(own: Cities) -> str:
    """Such as `45, 20, 9%`."""
    return ", ".join(f"{100 * share:.0f}" for share in own.explained) + "%"
