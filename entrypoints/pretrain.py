"""Pretrain a model on the world's cities."""

from typing import Any

from entrypoints import command as cli
from worldrep.names import ModelName


@cli.command("pretrain")
@cli.option("pretrain", "pt1", "Mixture: pt1 (all tasks), pt1-1..7, pt2-1..8, pt3-1..8.")
@cli.width_option
@cli.name_options
@cli.positional("pretrain")
def main(pretrain: str, width: str, **options: Any) -> None:
    """Pretrain a model; done before, it is reused; interrupted, it is resumed."""
    settings = cli.settings_from(ModelName(pretrain, width=width), options)
    store = cli.connect(options)
    from worldrep.stages.train import train_model

    cli.announce(store, train_model(store, settings, **cli.asked(options)))


if __name__ == "__main__":
    main()
