"""How well cities' positions can be read off the models' hidden states, Atlantis's above all.

A linear probe is fitted on world cities and tried on held-out ones and on Atlantis; models that
were fine-tuned on distance are compared with those that were not. Also principal components of the
cities, and how much their shape differs from model to model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np
import pandas as pd

from analysis.charts.city_maps import component_map, model_label, position_map
from analysis.command import analysis_command
from analysis.figures.chart import Chart
from analysis.figures.histogram import Histogram
from analysis.figures.intervals import Intervals
from analysis.figures.kinds import Frame, Kind
from analysis.figures.scatter import Scatter
from analysis.options import Options
from analysis.panels import Panel, make_panel, seeds_in_words
from analysis.result import Part, Result
from analysis.statistics.matrices import Masks, aggregate, summary
from analysis.statistics.probing import BASE, WITH, WITHOUT, by_model, comparison, shown_models
from analysis.statistics.similarity import procrustes_table
from analysis.store.extractions import DEFAULT, parse_layer
from analysis.store.improvements import PRETRAIN
from analysis.store.probings import NAME, Probings, read_probings
from analysis.store.source import Source
from worldrep.names import FINETUNINGS, NO_FT

ERROR = "probe error on Atlantis (0.1 degree)"
EACH, MEANS = "each model and seed", "each model, mean over its seeds"
MOST_LABELS = 14
LIMITS = (0.05, 0.1, 0.2, 0.5, 1.0)  # of disparities: the least that has room for all
HOVER = ("model", "seed", "tasks", "world_error", "atlantis_error", "layer", "run_id")


def probes(source: Source, options: Options, layer: str = DEFAULT) -> Result:
    """Probe errors, maps of the cities and Procrustes disparities of pt1 and its fine-tunings.

    layer: `default` or a number. Raises InputError for another one, NothingThere when there are no
    representations.
    """
    found = read_probings(source, options, parse_layer(layer))
    models = by_model(found.table)
    parts: list[Part] = [
        histogram(found, models),
        error_scatter(found),
        model_intervals(found, models),
        *maps(found),
    ]
    panel, tables, facts = procrustes(found)
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=[*parts, *panel],
        missing=found.missing,
        runs_used=found.runs_used,
        caveats=found.caveats,
        tables={"probes": found.table, **tables},
        statistics={"guessed": found.guessed, **facts},
        tags={"pretrain": "pt1", "layer": layer},
    )


def histogram(found: Probings, models: pd.DataFrame) -> Histogram:
    """Atlantis errors of models with and without distance, by two units of counting."""
    units = {EACH: found.table}
    if found.table["seed"].nunique() > 1:
        units[MEANS] = models
    facts = {unit: comparison(rows) for unit, rows in units.items()}
    table = pd.concat([rows.assign(unit=unit) for unit, rows in units.items()], ignore_index=True)
    guess = found.guessed["atlantis_error"]
    return Histogram(
        name="atlantis_histogram",
        title="Reading the positions of Atlantis off the hidden states",
        table=table[["unit", "model", "seed", "fine_tuned", "tasks", "atlantis_error", "run_id"]],
        value="atlantis_error",
        x_label=ERROR + (", logarithmic" if spans_decades(table["atlantis_error"]) else ""),
        y_label="number of models",
        lines=(
            "Models by whether distance was among the tasks that they were fine-tuned on.",
            "Dashed: median. Dotted: error of always saying the mean position of the cities "
            f"fitted on ({guess:.0f}).",
        ),
        group="fine_tuned",
        facet="unit",
        size=(5.2, 3.6),
        log=spans_decades(table["atlantis_error"]),
        reference=guess,
        hover=HOVER,
        notes=tuple(f"{unit}: {in_words(facts[unit])}" for unit in units),
        said=tuple(f"Atlantis error, {unit}: {in_words(facts[unit])}" for unit in units),
        statistics={"atlantis_error": facts},
    )


def in_words(facts: dict[str, Any]) -> str:
    """A comparison as text."""
    parts = [
        f"{group}: median {facts[group]['median']:.0f} (n = {facts[group]['n']})"
        for group in (WITH, WITHOUT, BASE)
        if facts[group]["n"]
    ]
    test = facts["mann_whitney"]
    if np.isnan(test["u"]):
        return "; ".join([*parts, "no test, as one group is empty"])
    return "; ".join([*parts, f"Mann-Whitney U = {test['u']:g}, p = {test['p']:.2g}"])


def spans_decades(values: pd.Series) -> bool:
    """Whether values are better seen on a logarithmic axis."""
    return bool(values.min() > 0 and values.max() / values.min() >= 10)


def error_scatter(found: Probings) -> Scatter:
    """Errors on Atlantis against those on held-out cities of the world."""
    errors = found.table[["world_error", "atlantis_error"]]
    is_log = spans_decades(errors.stack())
    few = len(found.table) <= MOST_LABELS
    guess = found.guessed
    names = found.table["ft"].where(found.table["ft"] != NO_FT, "pt1")
    labels = names + " s" + found.table["seed"].astype(str)
    facts = {part: comparison(found.table, f"{part}_error") for part in ("world", "atlantis")}
    first = found.table.iloc[0]
    return Scatter(
        name="probe_errors",
        marker_size=34,
        title="Probe errors on held-out cities of the world and on Atlantis",
        table=found.table.assign(label=labels),
        x="world_error",
        y="atlantis_error",
        x_label=f"mean error on {first['n_baseline']} held-out world cities (0.1 degree)",
        y_label=f"mean error on {first['n_atlantis']} cities of Atlantis (0.1 degree)",
        lines=(
            "One point for each model and seed. Dashed: as good on Atlantis as on held-out cities.",
        ),
        group="fine_tuned",
        label="label" if few else "",
        identity=True,
        log_x=is_log,
        log_y=is_log,
        hover=HOVER,
        notes=(
            f"Fitted on {first['n_fitted']} cities. Their mean position, said for every city, has "
            f"an error of {guess['world_error']:.0f} on held-out cities and of "
            f"{guess['atlantis_error']:.0f} on Atlantis.",
        ),
        statistics={"world_error": {EACH: facts["world"]}},
    )


def model_intervals(found: Probings, models: pd.DataFrame) -> Intervals:
    """Every model's Atlantis error, the smallest first."""
    n_seeds = found.table["seed"].nunique()
    is_log = spans_decades(found.table["atlantis_error"])
    spread = (
        "Line: 95% interval of the mean over seeds (Student), cut where it leaves the axes. "
        if n_seeds > 1
        else ""
    )
    return Intervals(
        name="atlantis_by_model",
        title=f"Probe error on Atlantis by model, {seeds_in_words(list(found.seeds))}",
        table=models.assign(label=[model_label(ft) for ft in models["ft"]]),
        label="label",
        value="atlantis_error",
        low="low",
        high="high",
        parts="atlantis_errors",
        x_label=("mean " if n_seeds > 1 else "") + ERROR + (", logarithmic" if is_log else ""),
        log=is_log,
        lines=(
            f"{spread}Rings: single seeds.",
            "Grey: error of always saying the mean position of the cities fitted on "
            f"({found.guessed['atlantis_error']:.0f}).",
        ),
        group="fine_tuned",
        size=(5.6, max(2.0, 0.24 * len(models))),
        reference=found.guessed["atlantis_error"],
        hover=("model", "tasks", "atlantis_error", "std", "n_seeds", "seeds", "atlantis_errors"),
        notes=_seed_notes(models, n_seeds),
    )


def _seed_notes(models: pd.DataFrame, n_seeds: int) -> tuple[str, ...]:
    fewer = models[models["n_seeds"] < n_seeds]
    if fewer.empty:
        return ()
    names = ", ".join(f"{row.model} ({row.n_seeds})" for row in fewer.itertuples())
    return (f"Fewer than {n_seeds} seeds: {names}.",)


def maps(found: Probings) -> list[Chart]:
    """Maps of a few models of one seed: the one with most models, the smallest of several."""
    counts = found.table["seed"].value_counts()
    seed = int(counts.index[counts == counts.max()].min())
    shown = shown_models(found.table[found.table["seed"] == seed])
    return [position_map(found, shown, seed), component_map(found, shown, seed)]


def procrustes(
    found: Probings,
) -> tuple[list[Panel], dict[str, pd.DataFrame], dict[str, Any]]:
    """Disparity of the first three components between models of one seed, and its mean over seeds.

    Also each seed's matrix, and how models differ by seed.
    """
    table = found.table
    disparity = procrustes_table([found.cities[run_id].components for run_id in table["run_id"]])
    fts = pd.Index(list(dict.fromkeys(table["ft"].replace(NO_FT, PRETRAIN))), name="model")
    matrices = {}
    for seed in sorted(set(table["seed"])):
        own = (table["seed"] == seed).to_numpy()
        names = table.loc[own, "ft"].replace(NO_FT, PRETRAIN)
        matrix = pd.DataFrame(disparity[np.ix_(own, own)], index=names, columns=names)
        matrices[int(seed)] = matrix.reindex(index=fts, columns=fts)
    pairs = np.triu(np.ones_like(disparity, dtype=bool), 1)
    same_model = np.equal.outer(table["ft"].to_numpy(), table["ft"].to_numpy())
    same_seed = np.equal.outer(table["seed"].to_numpy(), table["seed"].to_numpy())
    facts = {
        "different models, same seed": summary(disparity[pairs & same_seed]),
        "same model, different seeds": summary(disparity[pairs & same_model]),
    }
    if len(fts) < 2:
        return [], {}, {"procrustes_pairs": facts}
    title = f"Procrustes disparity between models, {seeds_in_words(list(matrices))}"
    top = next(limit for limit in LIMITS if limit >= disparity.max())
    kind = replace(DISPARITY, limits=(0.0, top))
    panel = make_panel("procrustes", title, kind, aggregate(list(matrices.values())))
    tables = {f"procrustes_seed{seed}": matrix for seed, matrix in matrices.items()}
    return [panel], tables, {"procrustes_pairs": facts}


def pair_masks(matrix: pd.DataFrame) -> Masks:
    """The pairs of models, each once, by which of the two were fine-tuned on distance."""
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


def _row_label(name: str) -> str:
    return model_label(NO_FT if name == PRETRAIN else name)


DISPARITY = Kind(
    "Procrustes disparity (no unit)",
    (
        "First three principal components of all cities, shifted, scaled and turned onto those "
        "of another model of the same seed.",
        "0: the same shape. 1: nothing in common. Below: cells of two models with distance, of one "
        "with and one without, of two without, and of the base with another.",
        "Each pair of models counts once.",
    ),
    "viridis_r",
    (0.0, 1.0),
    "neither",
    "{:.2f}",
    None,
    Frame(
        "fine-tuned on",
        "fine-tuned on",
        _row_label,
        pair_masks,
        ("distance-distance", "distance-other", "other-other", "base"),
    ),
)


main = analysis_command(
    NAME,
    probes,
    click.option(
        "--layer",
        default=DEFAULT,
        show_default=True,
        help="A layer (0: embeddings), or the default one of extractions.",
    ),
)

if __name__ == "__main__":
    main()
