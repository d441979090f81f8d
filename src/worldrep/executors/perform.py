"""Doing one step of a study for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from worldrep.executors.work import Task
from worldrep.settings import Settings
from worldrep.stages import evaluate_model, extract_model, train_model
from worldrep.stages.common import keep_file
from worldrep.tracking import Store
from worldrep.tracking.records import CITIES
from worldrep.training.progress import Watch


def perform(store: Store, task: Task, watch: Watch) -> str:
    """Train, evaluate or extract; the id of the run that holds the result.

    Everything that a step needs comes from the store: the base's or the model's weights and, if
    the file is not on this machine, the cities.
    """
    if task.kind == "train":
        base, settings = task.model_run or None, with_cities(store, task)
        return train_model(store, settings, base_run=base, parent=task.parent, watch=watch)
    model = store.get(task.model_run)
    stage = evaluate_model if task.kind == "evaluate" else extract_model
    return stage(store, model, parent=task.parent)


def with_cities(store: Store, task: Task) -> Settings:
    """The settings, with the copy of a CSV that the study or sweep keeps, if it is not here."""
    given = task.settings.cities
    if given == "none" or Path(given).is_file():
        return task.settings
    kept = keep_file(store, task.parent, CITIES, f"parent-{task.parent}")
    return replace(task.settings, cities=kept)
