"""Finding a trained model in the store, by name or by run id, and its weights at a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Qwen2ForCausalLM

from worldrep.data.rows import RowMaker
from worldrep.data.sets import maker_of, training_sets
from worldrep.errors import InputError, StateError
from worldrep.model.qwen2 import load_model
from worldrep.scales import changed_settings
from worldrep.settings import Settings
from worldrep.stages.common import (
    MODEL,
    TRAINING_STAGES,
    describe,
    kind_of,
)
from worldrep.stages.fingerprints import training_fingerprint
from worldrep.tracking import Store, StoredRun
from worldrep.tracking.run import CHECKPOINTS
from worldrep.training.checkpoint import folder_name, verify
from worldrep.training.device import best_device
from worldrep.training.feed import Schedule


def find_model(store: Store, settings: Settings) -> StoredRun:
    """The finished training that these settings describe.

    Raises StateError, with the command that trains it, when the store has none.
    """
    found = store.finished(training_fingerprint(maker_of(settings), settings))
    if found:
        return found
    raise StateError(
        f"{describe(settings)} is not in the store{_others(store, settings)}; "
        f"train it with: {training_command(settings)}"
    )


def training_command(settings: Settings) -> str:
    """The command that trains this very model, with every setting that is not its scale's."""
    entry, own = "pretrain", ["pretrain"]
    if settings.is_finetuning:
        entry, own = "finetune", ["ft", *(["strategy"] if settings.of_strategy else [])]
    names = dict.fromkeys([*own, "pretrain", "seed", "scale", "width", "world"])
    names |= dict.fromkeys(changed_settings(settings))
    given = " ".join(f"-P {key}={getattr(settings, key)}" for key in names)
    return f"mlflow run . -e {entry} {given} --env-manager local"


def _others(store: Store, settings: Settings) -> str:
    """Finished models of the same name with other settings, which a run id would choose."""
    names = {key: getattr(settings, key) for key in ("width", "world", "scale")}
    runs = store.find(model=str(settings.model_name), seed=str(settings.seed), **names)
    ids = [
        run.id
        for run in runs
        if run.status == "FINISHED" and run.tags.get("worldrep.stage") in TRAINING_STAGES
    ]
    return f" with these settings (with others: run_id {', '.join(ids)})" if ids else ""


def model_by_run_id(store: Store, run_id: str) -> StoredRun:
    """A finished training by its run id. Raises InputError for any other run."""
    run = store.get(run_id)
    if run.tags.get("worldrep.stage") not in TRAINING_STAGES or run.status != "FINISHED":
        raise InputError(
            f"run_id {run_id} is {kind_of(run)}; needed is a finished run of stage "
            f"{' or '.join(TRAINING_STAGES)}"
        )
    return run


def choose_steps(
    store: Store, run: StoredRun, settings: Settings, maker: RowMaker, choice: str
) -> list[int]:
    """Steps of `last`, `all` or a list such as `100,200`.

    Raises InputError for anything else, and for a step that was not kept.
    """
    rowsets = training_sets(settings, maker.world)
    rows = sum(rowset.rows for rowset in rowsets)
    last = Schedule.of(settings, rows).steps
    if choice == "last":
        return [last]
    kept = store.checkpoint_steps(run.id)
    if choice == "all":
        return sorted({*kept, last})
    steps = []
    for text in choice.split(","):
        digits = text.strip()
        if not (digits.isascii() and digits.isdecimal()) or int(digits) not in {*kept, last}:
            raise InputError(
                f"checkpoint {text!r} was not kept; allowed: last, all, "
                f"or steps among {', '.join(map(str, kept))}"
            )
        steps.append(int(text))
    return sorted(set(steps))


@contextmanager
def model_at(store: Store, run: StoredRun, step: int, choice: str) -> Iterator[Qwen2ForCausalLM]:
    """The model at a step, on the best device. Raises StateError when a file is damaged."""
    path = MODEL if choice == "last" else f"{CHECKPOINTS}/{folder_name(step)}"
    with store.download(run.id, path) as folder:
        verify(folder)
        yield load_model(folder).to(best_device())
