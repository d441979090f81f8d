"""The numbers of a made-up study: of every model, seed and task, by formulas that tests can repeat.

Nothing here is measured. Tasks lie on a ring, and a model gains more on tasks that are near those
that it is trained on, so that figures have something to show.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from worldrep.data.tasks import TASKS
from worldrep.data.world import World
from worldrep.digests import random_stream
from worldrep.names import NO_FT, TASK_NAMES, ModelName, has_warmup_rows

N_TASKS = len(TASK_NAMES)
NEAR = 2.0  # how far, on the ring, a task carries
TESTED = 200  # questions in a suite


def affinity(one: str, other: str) -> float:
    """1 for a task with itself, less the further apart the two are on the ring."""
    apart = abs(TASK_NAMES.index(one) - TASK_NAMES.index(other))
    return math.exp(-min(apart, N_TASKS - apart) / NEAR)


def improvement(model: ModelName, seed: int, task: str) -> float:
    """Normalised improvement of a fine-tuned model on a task of Atlantis, before it is cut off.

    A one-task model has the affinity and a part of the seed's; several tasks give the best of
    theirs and a known difference; without warm-up rows untrained tasks stay 0.1 lower.
    """
    ones = [affinity(own, task) + _of_seed(seed, own, task) for own in model.tasks]
    without = 0.0 if has_warmup_rows(model.ft) or task in model.tasks else 0.1
    return max(ones) - without + (difference(model, task) if len(model.tasks) > 1 else 0.0)


def difference(model: ModelName, task: str) -> float:
    """Actual - expected of a model of several tasks: from -0.1 to 0.1."""
    number = int(model.ft.rpartition("-")[2])
    return 0.1 * math.cos(number + TASK_NAMES.index(task))


def _of_seed(seed: int, own: str, task: str) -> float:
    return 0.05 * math.sin(seed + 3 * TASK_NAMES.index(own) + TASK_NAMES.index(task))


def base_values(task: str) -> tuple[float, float]:
    """What every base has on Atlantis and on standard questions."""
    return (0.2, 0.9) if TASKS[task].accuracy else (100.0, 1.0)


def value(model: ModelName, seed: int, split: str, task: str) -> float:
    """The mean score of a model in a suite: `standard/`, `multi/` or `atlantis/<task>`."""
    atlantis, standard = base_values(task)
    is_atlantis = split == "atlantis"
    if model.ft == NO_FT:
        return atlantis if is_atlantis else standard
    part = improvement(model, seed, task) if is_atlantis else 1 - forgotten(model, task)
    if TASKS[task].accuracy:
        return atlantis + (standard - atlantis) * part
    return atlantis / (atlantis / standard) ** part


def forgotten(model: ModelName, task: str) -> float:
    """How much of its base's ability a fine-tuned model has lost on standard questions: 0 to 1."""
    return 0.8 * (1 - max(affinity(own, task) for own in model.tasks))


def learning(step: int, steps: int) -> float:
    """How much of what it will have learnt a model has after a step: 0 to 1."""
    return 1 - math.exp(-5 * step / steps) if step < steps else 1.0


def representation(model: ModelName, seed: int, world: World, width: int) -> NDArray[np.float32]:
    """(n_cities, width): positions, and for each trained task directions that only it has."""
    place = world.positions / 1800.0
    stream = random_stream(seed, "known", str(model))
    features = place @ stream.normal(size=(2, width))
    for task in model.tasks:
        own = np.sin(3 * place @ random_stream(0, "known", task).normal(size=(2, 8)))
        features = features + own @ stream.normal(size=(8, width))
    if "distance" not in model.tasks:
        features[world.is_atlantis] += 0.3 * stream.normal(size=(world.is_atlantis.sum(), width))
    return features.astype(np.float32)
