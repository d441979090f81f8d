"""A study as a recorded run: every model trained, evaluated and extracted below it."""

from __future__ import annotations

from collections.abc import Sequence

from worldrep.digests import digest
from worldrep.fingerprints import training_fingerprint
from worldrep.settings import Settings
from worldrep.stages.common import maker_of
from worldrep.stages.evaluate import evaluate_model
from worldrep.stages.extract import extract_model
from worldrep.stages.train import train_model
from worldrep.tracking import OpenRun, RunSpec, Store


def study_spec(name: str, models: Sequence[Settings]) -> RunSpec:
    """The run of a study: one for each name and list of models."""
    fingerprints = [training_fingerprint(maker_of(settings), settings) for settings in models]
    common = {key: getattr(models[0], key) for key in ("scale", "world", "width")}
    seeds = ",".join(str(seed) for seed in dict.fromkeys(settings.seed for settings in models))
    tags = {"study": name, **common, "seed": seeds, "models": str(len(models))}
    title = f"study {name} {models[0].scale}"
    return RunSpec("study", title, digest(["study", name, fingerprints]), tags)


def run_study(store: Store, run: OpenRun, models: Sequence[Settings]) -> None:
    """Train, evaluate and extract every model in order, as children of the study's run."""
    for done, settings in enumerate(models):
        print(f"[{done + 1}/{len(models)}] {settings.model_name} seed {settings.seed}")
        trained = store.get(train_model(store, settings, parent=run.id))
        evaluate_model(store, trained, parent=run.id)
        extract_model(store, trained, parent=run.id)
        run.metrics(done + 1, {"study/models_done": done + 1})
