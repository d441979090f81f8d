"""Evaluate a trained model in all suites."""

from typing import Any

from entrypoints import command as cli


@cli.command("evaluate")
@cli.model_options
@cli.option("answers", "false", "Store every question with its generation as answers.parquet.")
@cli.name_options
@cli.positional("model")
def main(checkpoints: str, answers: str, **options: Any) -> None:
    """Evaluate a trained model on standard, Atlantis and multi-task rows."""
    keep_answers = cli.parse_flag("answers", answers)
    find, settings = cli.model_named(options), cli.settings_named(options)
    store = cli.connect(options)
    from worldrep.stages.measure import evaluate_model

    run = find(store)
    choices: dict[str, Any] = {"checkpoints": checkpoints, "keep_answers": keep_answers}
    choices["multi_rows"] = settings.multi_rows if settings else None
    cli.announce(store, evaluate_model(store, run, **choices, **cli.asked(options)))


if __name__ == "__main__":
    main()
