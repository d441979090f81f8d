"""Run a study, or say how far it is."""

from __future__ import annotations

import json
from typing import Any

import click

from entrypoints.command import (
    command,
    connect,
    executor_options,
    given,
    named,
    option,
    override_options,
    overrides_from,
)

ACTIONS = ("run", "status", "plan")


@command
@option("name", "demo", "Study: demo, exp1..6, ftset, or a YAML file.")
@option("seeds", "none", "Seeds such as 1,2,3; none: the study's own.")
@option("widths", "none", "Widths such as wide,narrow; none: the study's own.")
@option("worlds", "none", "Worlds such as standard,scattered; none: the study's own.")
@option("scale", "none", "paper, mini, smoke; none: the study's own.")
@option("action", "run", "run; status: what is done; plan: what would run.")
@option("format", "table", "Of status and plan: table or json.")
@option("shard", "1/1", "Do the second of seven parts: 2/7.")
@option("experiment", "none", "MLflow experiment; none: the one in force, or worldrep.")
@executor_options
@override_options
def main(name: str, action: str, format: str, shard: str, **options: Any) -> None:
    """Train, evaluate and extract every model of a study that is not done yet."""
    named("action", action, ACTIONS)
    named("format", format, ("table", "json"))
    from worldrep.executors import ExecutorOptions
    from worldrep.studies import Shard, expand, load_definition

    names = {key: given(options[key]) for key in ("seeds", "widths", "worlds", "scale")}
    definition = load_definition(name).asked_for(**names, settings=overrides_from(options))
    graph = expand(definition)
    mine = Shard.parse(shard).steps_of(graph)
    choice = ExecutorOptions.parse(options)
    if action == "run":
        _run(graph, choice, mine, options)
    else:
        _show(action, format, graph, mine, options)


def _run(graph, choice, mine: set[str], options: dict[str, Any]) -> None:
    from worldrep.studies.driver import run_study

    store = connect(options)
    result = run_study(store, graph, choice, mine=mine, launched=True)
    store.point_launch(result.run_id)
    result.check()
    click.echo(f"study {graph.definition.name}: done; store: {store.address}")


def _show(action: str, format: str, graph, mine: set[str], options: dict[str, Any]) -> None:
    from worldrep.studies.report import Overview

    store = connect(options)
    store.launch.rename(f"{action} of study {graph.definition.name}")
    found = Overview.read(store, graph, mine)
    if format == "json":
        content = found.status_json() if action == "status" else found.plan_json()
        click.echo(json.dumps(content, indent=1))
    else:
        click.echo(found.status_text() if action == "status" else found.plan_text())


if __name__ == "__main__":
    main()
