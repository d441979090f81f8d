"""Evaluate a trained model in all 15 suites."""

from __future__ import annotations

import time
from typing import Any

from entrypoints.command import (
    announce,
    chosen_model,
    command,
    connect,
    flag,
    name_options,
    option,
    override_options,
)


@command
@option("model", "none", "Name such as pt1_ftwb1-3; its seed, scale and world stand beside it.")
@option("run_id", "none", "Run id of a finished training, instead of a name.")
@option("checkpoints", "last", "last, all, or steps such as 100,200.")
@option("answers", "false", "Store every question with its generation as answers.parquet.")
@name_options
@override_options
def main(checkpoints: str, answers: str, **options: Any) -> None:
    """Evaluate a trained model on standard, Atlantis and multi-task rows."""
    began = time.time()
    keep_answers = flag("answers", answers)
    store = connect(options)
    from worldrep.stages import evaluate_model

    run = chosen_model(store, options)
    run_id = evaluate_model(
        store, run, checkpoints=checkpoints, keep_answers=keep_answers, launched=True
    )
    announce(store, run_id, began)


if __name__ == "__main__":
    main()
