"""Run a study, by default the demo, and draw its heatmaps and report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entrypoints import command as cli
from worldrep.errors import InputError, reason_of

if TYPE_CHECKING:
    from worldrep.studies import Graph
    from worldrep.studies.driver import StudyResult


@cli.command("main")
@cli.option("study", "demo", "Which study: demo, exp1..6, ftset, mitigation, or a YAML file.")
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
        raise InputError(f"cannot write to out={out!r}: {reason_of(fault)}") from None
    names = {"seeds": options["seed"], "worlds": options["world"], "scale": options["scale"]}
    settings = cli.overrides_from(options)
    graph = expand(load_definition(study).asked_for(**names, settings=settings))
    store = cli.connect(options)
    from worldrep.stages.commands import to_look
    from worldrep.studies.driver import run_study
    from worldrep.studies.report import report_done

    result = run_study(store, graph, ExecutorOptions(workers=0), **cli.asked(options))
    store.point_launch(result.run_id)
    result.check()
    took = report_done(store, graph)
    for line in draw_figures(graph, result, store.experiment_name, Path(out)):
        click.echo(line)
    click.echo(f"\nstudy {graph.definition.name}: {took}; store: {store.address}")
    click.echo(f"to look at runs, metrics and maps: {to_look(store, result.run_id)}")


def draw_figures(graph: Graph, result: StudyResult, experiment: str, out: Path) -> Iterator[str]:
    """Draw heatmaps and report of every world and width in which the study fine-tunes pt1.

    Yields what to tell: a table of the improvements, and where the figures are.
    """
    from analysis.command import open_source
    from analysis.exp1_heatmaps import exp1_heatmaps, overview
    from analysis.options import Options
    from analysis.report import report
    from analysis.result import publish

    evaluated = [step for step in graph.steps.values() if step.kind == "evaluate"]
    tuned = [s for s in (step.settings for step in evaluated) if s.ft.startswith("ftwb")]
    kinds = dict.fromkeys((s.world, s.width) for s in tuned if s.pretrain == "pt1")
    runs = [result.run_ids[step.fingerprint] for step in evaluated]
    scale, seeds = graph.definition.scale, graph.definition.seeds
    for world, width in kinds:
        folder = out if len(kinds) == 1 else out / f"{world}_{width}"
        heatmaps = Options(
            folder / "exp1_heatmaps", experiment, scale, width, world, seeds=seeds, quiet=True
        )
        with open_source(heatmaps) as source:
            found = exp1_heatmaps(source, heatmaps, only=runs)
            publish(found, source.store, parent=result.run_id)
            options = replace(heatmaps, out=folder / "report")
            publish(report(source, options), source.store, parent=result.run_id)
        yield f"\n{overview(found)}"
        yield f"figure: {(heatmaps.out / found.parts[0].name).resolve()}.png"
        yield f"report: {(options.out / 'report.html').resolve()}"
    if not kinds:
        yield "no figures: the study has no model that is fine-tuned from pt1"


if __name__ == "__main__":
    main()
