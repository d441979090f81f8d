"""Extract a trained model's representations of all cities."""

from typing import Any

from entrypoints import command as cli


@cli.command("extract")
@cli.model_options
@cli.option("layers", "default", "Layers such as 0,3,5 (0 = embeddings), all, or default.")
@cli.option("task", "default", "Whose prompt is used; default: the model's first trained task.")
@cli.option("positions", "default", "last_digit, delimiter, or both (default), joined by a comma.")
@cli.name_options
@cli.positional("model")
def main(checkpoints: str, layers: str, task: str, positions: str, **options: Any) -> None:
    """Extract hidden states of all cities, and draw where a linear probe puts them."""
    find = cli.model_named(options)
    store = cli.connect(options)
    from worldrep.stages.measure import extract_model

    run = find(store)
    choices: dict[str, Any] = {"checkpoints": checkpoints, "layers": layers, "task": task}
    choices |= {"positions": positions}
    cli.announce(store, extract_model(store, run, **choices, **cli.asked(options)))


if __name__ == "__main__":
    main()
