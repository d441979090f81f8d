"""Extract a trained model's representations of all cities."""

from __future__ import annotations

import time
from typing import Any

from entrypoints.command import (
    announce,
    chosen_model,
    command,
    connect,
    name_options,
    option,
    override_options,
)


@command
@option("model", "none", "Name such as pt1_ftwb1-3; its seed, scale and world stand beside it.")
@option("run_id", "none", "Run id of a finished training, instead of a name.")
@option("checkpoints", "last", "last, all, or steps such as 100,200.")
@option("layers", "default", "Layers such as 0,3,5 (0 = embeddings), all, or default.")
@option("task", "default", "Whose prompt is used; default: the model's first trained task.")
@option("positions", "default", "last_digit, delimiter, or both (default), joined by a comma.")
@name_options
@override_options
def main(checkpoints: str, layers: str, task: str, positions: str, **options: Any) -> None:
    """Extract hidden states of all cities, and draw where a linear probe puts them."""
    began = time.time()
    store = connect(options)
    from worldrep.stages import extract_model

    run = chosen_model(store, options)
    chosen = {"layers": layers, "task": task, "positions": positions}
    run_id = extract_model(store, run, checkpoints=checkpoints, **chosen, launched=True)
    announce(store, run_id, began)


if __name__ == "__main__":
    main()
