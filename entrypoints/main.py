"""The demo study: a base, its fine-tuned models, their evaluations, maps and heatmaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from entrypoints.command import (
    command,
    connect,
    name_options,
    option,
    override_options,
    overrides_from,
)
from worldrep.errors import InputError


@command
@option("study", "demo", "Which study: demo, exp1..6, ftset, or a YAML file.")
@option("out", "figures", "Folder for the figures.")
@name_options
@override_options
def main(study: str, out: str, **options: Any) -> None:
    """Train, evaluate and extract every model of a study, then draw its heatmaps."""
    from worldrep.executors import Choice
    from worldrep.studies import expand, load_definition
    from worldrep.studies.definition import parse_seeds

    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"cannot write to out={out!r}: {fault.strerror}") from None
    definition = load_definition(study)
    definition = definition.changed(
        scale=options["scale"],
        worlds=(options["world"],),
        seeds=parse_seeds(options["seed"]),
        settings={**definition.settings, **overrides_from(options)},
    )
    graph = expand(definition)
    store = connect(options)
    from analysis.exp1_heatmaps import draw_exp1
    from worldrep.studies.drive import run_study

    result = run_study(store, graph, Choice(), launched=True)
    store.point_launch(result.run_id)
    result.check()
    steps = graph.steps.values()
    draw_exp1(
        scale=definition.scale,
        world=options["world"],
        seeds=definition.seeds,
        out=Path(out) / "exp1_heatmaps",
        experiment=store.experiment_name,
        runs=[result.run_ids[s.fingerprint] for s in steps if s.kind == "evaluate"],
        parent_run_id=result.run_id,
    )
    click.echo(f"figures: {Path(out).resolve()}; store: {store.uri}")


if __name__ == "__main__":
    main()
