"""Fine-tune a pretrained model on rows with the cities of Atlantis."""

from typing import Any

from entrypoints import command as cli
from worldrep.names import FINETUNINGS, STRATEGIES, ModelName


@cli.command("finetune")
@cli.option("ft", "ftwb1-1", "Mixture: ft1-1..7, ft2-1..21, ft3-1..7, or ftwb* with warm-up rows.")
@cli.option("pretrain", "pt1", "The base's mixture; the base is trained first if it is not there.")
@cli.width_option
@cli.option("strategy", "plain", f"What keeps the base's knowledge: {', '.join(STRATEGIES)}.")
@cli.option("base_run", None, "Run id or models:/ URI of the base; default: the base by its name.")
@cli.name_options
@cli.positional("ft")
def main(
    ft: str, pretrain: str, width: str, strategy: str, base_run: str | None, **options: Any
) -> None:
    """Fine-tune a model; done before, it is reused; interrupted, it is resumed."""
    cli.check_name("ft", ft, tuple(FINETUNINGS))
    settings = cli.settings_from(ModelName(pretrain, ft, width, strategy), options)
    store = cli.connect(options)
    from worldrep.stages.train import train_model

    cli.announce(store, train_model(store, settings, base_run=base_run, **cli.asked(options)))


if __name__ == "__main__":
    main()
