"""Run a study, by default the demo, and draw its heatmaps and report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entrypoints import command as cli
from worldrep.errors import InputError

if TYPE_CHECKING:
    from worldrep.studies import Graph
    from worldrep.studies.driver import StudyResult


@cli.command("main")
@cli.option("study", "demo", "Which study: demo, exp1..6, ftset, or a YAML file.")
@cli.option("seed", None, "Seeds such as 1,2,3.")
@cli.option("scale", None, "paper, small, mini, smoke.")
@cli.option("world", None, "standard, scattered, with_atlantis.")
@cli.option("out", "figures", "Folder for the figures.")
@cli.shared_options
def main(study: str, out: str, **options: Any) -> None:
    """Do what is left of a study and draw it; default seed, scale and world are its own."""
    from worldrep.executors import ExecutorOptions
    from worldrep.studies import expand, load_definition

    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"cannot write to out={out!r}: {fault.strerror}") from None
    names = {"seeds": options["seed"], "worlds": options["world"], "scale": options["scale"]}
    settings = cli.overrides_from(options)
    graph = expand(load_definition(study).asked_for(**names, settings=settings))
    store = cli.connect(options)
    from worldrep.studies.driver import run_study

    result = run_study(store, graph, ExecutorOptions(workers=0), **cli.asked(options))
    store.point_launch(result.run_id)
    result.check()
    draw_figures(graph, result, store.experiment_name, Path(out))
    click.echo(f"figures: {Path(out).resolve()}; store: {store.address}")


def draw_figures(graph: Graph, result: StudyResult, experiment: str, out: Path) -> None:
    """Draw heatmaps and report of every world and width in which the study fine-tunes pt1."""
    from analysis.command import draw
    from analysis.exp1_heatmaps import exp1_heatmaps
    from analysis.options import Options
    from analysis.report import report

    evaluated = [step for step in graph.steps.values() if step.kind == "evaluate"]
    tuned = [s for s in (step.settings for step in evaluated) if s.ft.startswith("ftwb")]
    kinds = dict.fromkeys((s.world, s.width) for s in tuned if s.pretrain == "pt1")
    runs = [result.run_ids[step.fingerprint] for step in evaluated]
    heatmaps = partial(exp1_heatmaps, only=runs)
    analyses: dict[str, Callable] = {"exp1_heatmaps": heatmaps, "report": report}
    scale, seeds = graph.definition.scale, graph.definition.seeds
    for world, width in kinds:
        folder = out if len(kinds) == 1 else out / f"{world}_{width}"
        for name, analyse in analyses.items():
            options = Options(folder / name, experiment, scale, width, world, seeds=seeds)
            draw(analyse, options, result.run_id)
    if not kinds:
        click.echo("no figures: the study has no model that is fine-tuned from pt1")


if __name__ == "__main__":
    main()
