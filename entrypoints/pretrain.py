"""Pretrain a model on the world's cities."""

from __future__ import annotations

import time
from typing import Any

from entrypoints.command import (
    announce,
    command,
    connect,
    name_options,
    option,
    override_options,
    settings_from,
)
from worldrep.names import ModelName


@command
@option("pretrain", "pt1", "Mixture: pt1 (all tasks), pt1-1..7, pt2-1..8, pt3-1..8.")
@option("width", "base", "Model size: base, wide, narrow, wider.")
@name_options
@override_options
def main(pretrain: str, width: str, **options: Any) -> None:
    """Pretrain a model; done before, it is reused; interrupted, it is resumed."""
    began = time.time()
    settings = settings_from(ModelName(pretrain, width=width), options)
    store = connect(options)
    from worldrep.stages import train_model

    announce(store, train_model(store, settings, launched=True), began)


if __name__ == "__main__":
    main()
