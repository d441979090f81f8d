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
    settings_from,
)
from worldrep.errors import InputError
from worldrep.studies import study_models


@command
@option("study", "demo", "Which study.")
@option("out", "figures", "Folder for the figures.")
@name_options
@override_options
def main(study: str, out: str, **options: Any) -> None:
    """Train, evaluate and extract every model of a study, then draw its heatmaps."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"cannot write to out={out!r}: {fault.strerror}") from None
    settings = [settings_from(model, options) for model in study_models(study)]
    store = connect(options)
    from analysis.exp1_heatmaps import draw_exp1
    from worldrep.stages.study import run_study, study_spec

    with store.run(study_spec(study, settings), launched=True) as run:
        evaluations = run_study(store, run, settings)
        draw_exp1(
            scale=settings[0].scale,
            world=settings[0].world,
            seeds=[settings[0].seed],
            out=Path(out) / "exp1_heatmaps",
            experiment=store.experiment_name,
            runs=evaluations,
            parent_run_id=run.id,
        )
    store.point_launch(run.id)
    click.echo(f"figures: {Path(out).resolve()}; store: {store.uri}")


if __name__ == "__main__":
    main()
