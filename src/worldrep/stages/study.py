"""A study as a recorded run: every model trained, evaluated and extracted below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worldrep.digests import digest
from worldrep.fingerprints import training_fingerprint
from worldrep.names import TASK_NAMES
from worldrep.settings import SHARED_GROUPS, Settings
from worldrep.stages.common import maker_of
from worldrep.stages.evaluate import evaluate_model
from worldrep.stages.extract import extract_model
from worldrep.stages.train import train_model
from worldrep.tracking import OpenRun, RunSpec, Store


def study_spec(name: str, models: Sequence[Settings]) -> RunSpec:
    """The run of a study: one for each name and list of models."""
    fingerprints = [training_fingerprint(maker_of(settings), settings) for settings in models]
    keys = ("pretrain", "ft", "width", "world", "scale", "seed")
    tags = {key: _joined(getattr(settings, key) for settings in models) for key in keys}
    tags |= {
        "study": name,
        "model": _joined(settings.model_name for settings in models),
        "tasks": ",".join(TASK_NAMES),
    }
    facts = {"study": name, "n_models": len(models)} | models[0].group(*SHARED_GROUPS)
    title, fingerprint = f"study {name} {models[0].scale}", digest(["study", name, fingerprints])
    return RunSpec("study", title, fingerprint, tags, facts, repeatable=True)


def _joined(values: Iterable[object]) -> str:
    return ",".join(dict.fromkeys(str(value) for value in values))


def run_study(store: Store, run: OpenRun, models: Sequence[Settings]) -> list[str]:
    """Train, evaluate and extract every model in order, as children of the study's run.

    Returns the run ids of the evaluations. A fine-tuned model starts from the study's own base,
    whose settings may have been overridden.
    """
    bases: dict[tuple[str, int], str] = {}
    evaluations: list[str] = []
    for done, settings in enumerate(models):
        print(f"[{done + 1}/{len(models)}] {settings.model_name} seed {settings.seed}")
        key = str(settings.model_name.base), settings.seed
        base = bases.get(key) if settings.is_finetuning else None
        trained = store.get(train_model(store, settings, base_run=base, parent=run.id))
        if not settings.is_finetuning:
            bases[key] = trained.id
        evaluations.append(evaluate_model(store, trained, parent=run.id))
        extract_model(store, trained, parent=run.id)
        run.metrics(done + 1, {"study/models_done": done + 1})
    return evaluations
