"""Run a study, or show its status."""

import json
from typing import Any

import click

from entrypoints import command as cli
from worldrep.errors import InputError


@cli.command("study")
@cli.option("name", None, "Study: demo (default), exp1..6, ftset, mitigation, or a YAML file.")
@cli.option("models", None, "Models such as pt1,pt1_ftwb2-1..21, in place of a study's name.")
@cli.option("seeds", None, "Seeds such as 1,2,3.")
@cli.option("widths", None, "Widths such as wide,narrow.")
@cli.option("worlds", None, "Worlds such as standard,scattered.")
@cli.option("scale", None, "paper, small, mini, smoke.")
@cli.option("steps", None, "evaluate,extract (default), or one of them; train: no more.")
@cli.option("checkpoints", None, "That are evaluated and extracted: last (default) or all.")
@cli.option("action", "run", "run; status: what is done; plan: what would run.")
@cli.option("format", "table", "Of status and plan: table or json.")
@cli.option("shard", "1/1", "Do the second of seven parts: 2/7.")
@cli.experiment_option
@cli.yes_option
@cli.executor_options
@cli.override_options
@cli.positional("name")
def main(
    name: str | None, models: str | None, action: str, format: str, shard: str, **options: Any
) -> None:
    """Do what is left of a study; seeds, widths, worlds and scale are its own by default."""
    cli.check_name("action", action, ("run", "status", "plan"))
    cli.check_name("format", format, ("table", "json"))
    from worldrep.executors import ExecutorOptions
    from worldrep.studies import Shard, expand, load_definition, named_study

    if name and models:
        raise InputError("name one study: either name=exp1 or models=pt1,pt1_ftwb1-1..7")
    study = named_study(models) if models else load_definition(name or "demo")
    keys = ("seeds", "widths", "worlds", "steps", "scale", "checkpoints")
    names = {key: options[key] for key in keys}
    graph = expand(study.asked_for(**names, settings=cli.overrides_from(options)))
    mine = Shard.parse(shard).steps_of(graph)
    executor = ExecutorOptions.parse(options)
    store = cli.connect(options)
    if action != "run":
        from worldrep.studies.report import Overview

        store.launch.rename(f"{action} of study {graph.definition.name}")
        command = cli.typed("study", store.experiment_name, without=("action", "format"))
        found = Overview.read(store, graph, mine, command)
        if format == "json":
            content = found.status_json() if action == "status" else found.plan_json()
            click.echo(json.dumps(content, indent=1))
        else:
            click.echo(found.status_text() if action == "status" else found.plan_text())
        return
    from worldrep.stages.commands import to_look
    from worldrep.studies.driver import run_study
    from worldrep.studies.report import report_done

    result = run_study(store, graph, executor, mine=mine, **cli.asked(options))
    store.point_launch(result.run_id)
    result.check()
    click.echo(f"study {graph.definition.name}: done; store: {store.address}")
    click.echo(report_done(store, graph))
    click.echo(f"to look at it: {to_look(store, result.run_id)}")


if __name__ == "__main__":
    main()
