"""Charts of probed models: errors, maps of the cities, and a heatmap of disparities."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.heatmap import Panel
from analysis.figures.histogram import Histogram
from analysis.figures.intervals import Intervals
from analysis.figures.kinds import Kind
from analysis.figures.scatter import Scatter
from analysis.panels import seeds_in_words
from analysis.probes.models import (
    GROUPS,
    Probed,
    by_group,
    comparison,
    component_table,
    map_limits,
    model_label,
    pair_masks,
    position_table,
)
from analysis.statistics.matrices import aggregate
from worldrep.names import NO_FT

ERROR = "probe error on Atlantis (0.1 degree)"
MOST_LABELS = 14
MANY_CITIES = 500
WIDE = 3.6  # inches of one map
EACH, MEANS = "each model and seed", "each model, mean over its seeds"
MEAN_POSITION = "error of always saying the mean position of the cities fitted on"
DISPARITY_LIMITS = (0.05, 0.1, 0.2, 0.5, 1.0)  # the colour scale ends at the least that fits
HOVER = ("model", "seed", "tasks", "world_error", "atlantis_error", "layer", "run_id")
CITY = ("name", "city_id", "region", "model", "seed")
DISPARITY = Kind(
    "Procrustes disparity (no unit)",
    (
        "First three principal components of all cities, shifted, scaled and turned onto those of "
        "another model of the same seed. 0: the same shape. 1: nothing in common.",
        "Below: cells of two models with distance, of one with and one without, of two without, "
        "and of the base with another. Each pair of models counts once.",
    ),
    "viridis_r", (0.0, 1.0), columns="fine-tuned on", row_label=model_label, masks=pair_masks,
    shown=("distance-distance", "distance-other", "other-other", "base"), marked="",
)  # fmt: skip


def histogram(table: pd.DataFrame, models: pd.DataFrame, guess: float) -> Histogram:
    """Chart Atlantis errors with and without distance. models: of `by_model`."""
    facts, units = _facts(table, models, "atlantis_error"), {EACH: table}
    if MEANS in facts:
        units[MEANS] = models
    table = pd.concat([rows.assign(unit=unit) for unit, rows in units.items()], ignore_index=True)
    is_log = _spans_decades(table["atlantis_error"])
    return Histogram(
        name="atlantis_histogram", title="Reading the positions of Atlantis off the hidden states",
        table=table[["unit", "model", "seed", "fine_tuned", "tasks", "atlantis_error", "run_id"]],
        value="atlantis_error", x_label=ERROR + (", logarithmic" if is_log else ""),
        y_label="number of models", group="fine_tuned", facet="unit", size=(5.2, 3.6), log=is_log,
        reference=guess, hover=HOVER,
        lines=(
            "Models by whether distance was among the tasks that they were fine-tuned on.",
            f"Dashed: median. Dotted: {MEAN_POSITION} ({guess:.0f}).",
        ),
        notes=tuple(f"Atlantis error, {unit}: {_in_words(own)}" for unit, own in facts.items()),
        statistics={"atlantis_error": facts},
    )  # fmt: skip


def _facts(table: pd.DataFrame, models: pd.DataFrame, column: str) -> dict[str, Any]:
    """Summarise a column by model and seed; the means over seeds, if there are several, are tested.

    models: of `by_model`.
    """
    if table["seed"].nunique() == 1:
        return {EACH: comparison(models, column)}
    return {EACH: by_group(table, column), MEANS: comparison(models, column)}


def _in_words(facts: dict[str, Any]) -> str:
    parts = [
        f"{group}: median {facts[group]['median']:.0f} (n = {facts[group]['n']})"
        for group in GROUPS.categories
        if facts[group]["n"]
    ]
    if "mann_whitney" not in facts:
        return "; ".join(parts)
    u, p = facts["mann_whitney"]["u"], facts["mann_whitney"]["p"]
    test = f"Mann-Whitney U = {u:g}, p = {p:.2g}"
    return "; ".join([*parts, "no test, as one group is empty" if np.isnan(u) else test])


def _spans_decades(values: pd.Series) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= 10)


def error_scatter(table: pd.DataFrame, models: pd.DataFrame, guess: Mapping[str, float]) -> Scatter:
    """Chart errors on Atlantis against those on held-out world cities. models: of `by_model`."""
    first = table.iloc[0]
    is_log = _spans_decades(table[["world_error", "atlantis_error"]].stack())
    names = table["ft"].where(table["ft"] != NO_FT, "pt1")
    return Scatter(
        name="probe_errors", title="Probe errors on held-out cities of the world and on Atlantis",
        table=table.assign(label=names + " s" + table["seed"].astype(str)), marker_size=34,
        x="world_error",
        x_label=f"mean error on {first['n_baseline']} held-out world cities (0.1 degree)",
        y="atlantis_error",
        y_label=f"mean error on {first['n_atlantis']} cities of Atlantis (0.1 degree)",
        group="fine_tuned", label="label" if len(table) <= MOST_LABELS else "", identity=True,
        log_x=is_log, log_y=is_log, hover=HOVER,
        lines=(
            "One point for each model and seed. Dashed: as good on Atlantis as on held-out cities.",
        ),
        notes=(
            f"Fitted on {first['n_fitted']} cities. Their mean position, said for every city, has "
            f"an error of {guess['world_error']:.0f} on held-out cities and of "
            f"{guess['atlantis_error']:.0f} on Atlantis.",
        ),
        statistics={"world_error": _facts(table, models, "world_error")},
    )  # fmt: skip


def model_intervals(
    table: pd.DataFrame, models: pd.DataFrame, guess: float, seeds: Sequence[int]
) -> Intervals:
    """Chart every model's Atlantis error, the smallest first. models: of `by_model`."""
    n_seeds, is_log = table["seed"].nunique(), _spans_decades(table["atlantis_error"])
    spread = "Line: 95% interval of the mean over seeds (Student), cut where it leaves the axes. "
    fewer = models[models["n_seeds"] < n_seeds]
    names = ", ".join(f"{row.model} ({row.n_seeds})" for row in fewer.itertuples())
    return Intervals(
        name="atlantis_by_model",
        title=f"Probe error on Atlantis by model, {seeds_in_words(seeds)}",
        table=models.assign(label=[model_label(ft) for ft in models["ft"]]),
        value="atlantis_error", parts="atlantis_errors", log=is_log,
        x_label=("mean " if n_seeds > 1 else "") + ERROR + (", logarithmic" if is_log else ""),
        group="fine_tuned", size=(5.6, max(2.0, 0.24 * len(models))), reference=guess,
        hover=("model", "tasks", "atlantis_error", "std", "n_seeds", "seeds", "atlantis_errors"),
        lines=(
            f"{spread if n_seeds > 1 else ''}Rings: single seeds.",
            f"Grey: {MEAN_POSITION} ({guess:.0f}).",
        ),
        notes=(f"Fewer than {n_seeds} seeds: {names}.",) if names else (),
    )  # fmt: skip


def position_map(found: Probed, shown: Mapping[str, str], seed: int) -> Scatter:
    """Chart true and probed positions of Atlantis and of the held-out cities, in degrees."""
    table = position_table(found, shown)
    x_limits, y_limits = map_limits(table)
    inside = table["predicted_lon"].between(*x_limits) & table["predicted_lat"].between(*y_limits)
    outside = int((~inside).sum())
    notes = ["Error in the headings: mean Euclidean error on Atlantis, in 0.1 degree."]
    if outside:
        notes.append(f"{outside} of {len(table)} probed positions lie outside the axes.")
    return Scatter(
        name="position_map", table=table, facet="shown",
        title=f"Where a linear probe finds the cities that it was not fitted on, seed {seed}",
        x="lon", y="lat", towards=("predicted_lon", "predicted_lat"), group="city",
        x_label="longitude (degrees)", y_label="latitude (degrees)", x_limits=x_limits,
        y_limits=y_limits, size=(WIDE, WIDE * float(np.ptp(y_limits) / np.ptp(x_limits))),
        marker_size=16 if len(table) <= MANY_CITIES else 8, hover=(*CITY, "error", "run_id"),
        lines=(
            "Open: where the city is. Filled, at the end of the line: where the probe puts it.",
            "Shown: the base, the median model, and the best and the worst on Atlantis of those "
            "with and without distance.",
        ),
        notes=tuple(notes),
        statistics={"position_map": {"n": len(table), "outside": outside, "seed": seed}},
    )  # fmt: skip


def component_map(found: Probed, shown: Mapping[str, str], seed: int) -> Scatter:
    """Chart the first two principal components of all cities; a page may show the third."""
    n = len(found.world.cities)
    table, shares = component_table(found, shown)
    return Scatter(
        name="pca_map", table=table, facet="shown", size=(WIDE, WIDE), equal=True,
        title=f"Principal components of the cities' representations, seed {seed}",
        x="pc1", y="pc2", x_label="first component", y_label="second component", group="region",
        marker_size=26 if n <= MANY_CITIES else 5, hover=(*CITY, "pc3", "run_id"),
        lines=(
            f"All {n} cities, world and Atlantis, centred together; the unit is that of the "
            "hidden states. Sign and rotation mean nothing.",
            "Headings: shares of the variance that the first three components have.",
        ),
        notes=("The same models as in position_map.",),
        statistics={"pca_map": shares},
    )  # fmt: skip


def disparity_panel(matrices: Mapping[int, pd.DataFrame], largest: float) -> Panel:
    """Return the mean over seeds of Procrustes disparities; largest: of all pairs."""
    title = f"Procrustes disparity between models, {seeds_in_words(list(matrices))}"
    top = next(limit for limit in DISPARITY_LIMITS if limit >= largest)
    kind = replace(DISPARITY, limits=(0.0, top))
    return Panel("procrustes", title, kind, aggregate(list(matrices.values())))
