"""Doing one step of a study for real."""

from __future__ import annotations

from worldrep.executors.work import Task
from worldrep.progress import Watch
from worldrep.stages import evaluate_model, extract_model, train_model
from worldrep.tracking import Store


def perform(store: Store, task: Task, watch: Watch) -> str:
    """Train, evaluate or extract; the id of the run that holds the result.

    Everything that a step needs comes from the store: settings with the task, the base's or the
    model's weights as an artifact.
    """
    if task.kind == "train":
        base = task.model_run or None
        return train_model(store, task.settings, base_run=base, parent=task.parent, watch=watch)
    model = store.get(task.model_run)
    stage = evaluate_model if task.kind == "evaluate" else extract_model
    return stage(store, model, parent=task.parent)
