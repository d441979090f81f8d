"""How well cities' positions can be read off the models' hidden states, Atlantis's above all.

A linear probe is fitted on world cities and tried on held-out ones and on Atlantis; models that
were fine-tuned on distance are compared with those that were not. Also principal components of the
cities, and how much their shape differs from model to model.
"""

from __future__ import annotations

import click

from analysis.command import analysis_command
from analysis.options import Options
from analysis.probes.charts import (
    component_map,
    disparity_panel,
    error_scatter,
    histogram,
    model_intervals,
    position_map,
)
from analysis.probes.models import by_model, disparities, probe_models, shown_models
from analysis.result import Part, Result
from analysis.store.extractions import DEFAULT, parse_layer
from analysis.store.source import Source

NAME = "probes"


def probes(source: Source, options: Options, layer: str = DEFAULT) -> Result:
    """Return probe errors, maps of the cities and Procrustes disparities of pt1 and its models.

    layer: `default` or a number. Raises InputError for another one, NothingThere when there are no
    representations.
    """
    found = probe_models(source, options, parse_layer(layer))
    table, models = found.table, by_model(found.table)
    seed = int(table["seed"].mode()[0])  # the one with most models
    shown = shown_models(table[table["seed"] == seed])
    parts: list[Part] = [
        histogram(found, models),
        error_scatter(found),
        model_intervals(models, found),
        position_map(found, shown, seed),
        component_map(found, shown, seed),
    ]
    tables = {"probes": table}
    matrices, largest, pairs = disparities(found)
    if len(models) > 1:
        parts.append(disparity_panel(matrices, largest))
        tables |= {f"procrustes_seed{seed}": matrix for seed, matrix in matrices.items()}
    return Result(
        name=NAME,
        options=options,
        seeds=found.seeds,
        parts=parts,
        missing=found.missing,
        runs_used=found.runs_used,
        caveats=found.caveats,
        tables=tables,
        statistics={"guessed": found.guessed, "procrustes_pairs": pairs},
        tags={"pretrain": "pt1", "layer": layer},
    )


main = analysis_command(
    NAME,
    probes,
    click.option("--layer", default=DEFAULT, show_default=True, help="A layer, or default."),
)
