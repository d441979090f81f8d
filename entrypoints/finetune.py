"""Fine-tune a pretrained model so that it takes in Atlantis."""

from __future__ import annotations

import time
from typing import Any

from entrypoints.command import (
    announce,
    command,
    connect,
    given,
    name_options,
    option,
    override_options,
    settings_from,
)
from worldrep.errors import unknown
from worldrep.names import FINETUNINGS, STRATEGIES, ModelName


@command
@option("ft", "ftwb1-1", "Mixture: ft1-1..7, ft2-1..21, ft3-1..7, or ftwb* with warm-up rows.")
@option("pretrain", "pt1", "The base's mixture; the base is trained first if it is not there.")
@option("width", "base", "Model size: base, wide, narrow, wider.")
@option("strategy", "plain", f"What keeps the base's knowledge: {', '.join(STRATEGIES)}.")
@option("base_run", "none", "Run id of the base to start from, instead of the one by name.")
@name_options
@override_options
def main(ft: str, pretrain: str, width: str, strategy: str, base_run: str, **options: Any) -> None:
    """Fine-tune a model; done before, it is reused; interrupted, it is resumed."""
    if ft not in FINETUNINGS:
        raise unknown("ft", ft, FINETUNINGS)
    began = time.time()
    settings = settings_from(ModelName(pretrain, ft, width, strategy), options)
    store = connect(options)
    from worldrep.stages import train_model

    run_id = train_model(store, settings, base_run=given(base_run), launched=True)
    announce(store, run_id, began)


if __name__ == "__main__":
    main()
