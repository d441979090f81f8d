"""Doing one step of a study for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from worldrep.executors.work import Job
from worldrep.settings import Settings
from worldrep.stages import evaluate_model, extract_model, train_model
from worldrep.stages.models import cached_cities
from worldrep.tracking import Store
from worldrep.training.progress import ProgressCallback


def perform(store: Store, job: Job, watch: ProgressCallback) -> str:
    """Train, evaluate or extract; the id of the run that holds the result.

    Everything that a step needs comes from the store: the base's or the model's weights and, if
    the file is not on this machine, the cities.
    """
    if job.kind == "train":
        base, settings = job.model_run or None, with_cities(store, job)
        return train_model(store, settings, base_run=base, parent=job.parent, progress=watch)
    model = store.get(job.model_run)
    stage = evaluate_model if job.kind == "evaluate" else extract_model
    return stage(store, model, parent=job.parent)


def with_cities(store: Store, job: Job) -> Settings:
    """The settings, with the copy of a CSV that the study or sweep keeps, if it is not here."""
    given = job.settings.cities
    if given == "none" or Path(given).is_file():
        return job.settings
    kept = cached_cities(store, job.parent)
    return replace(job.settings, cities=kept)
