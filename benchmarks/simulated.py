"""A simulated study: its steps log what real steps log, with made-up numbers.

Tasks lie on a ring, and a model improves more on tasks near those that it is trained on, so that
figures have something to show. Tests repeat the formulas.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldrep.data.sets import maker_of
from worldrep.data.tasks import TASKS
from worldrep.data.world import World
from worldrep.digests import random_stream
from worldrep.evaluation.representations import Request, save_representations
from worldrep.executors.jobs import Job
from worldrep.names import (
    FINETUNINGS,
    NO_FT,
    PRETRAININGS,
    TASK_NAMES,
    ModelName,
    has_warmup_rows,
)
from worldrep.settings import Settings
from worldrep.stages.provenance import downstream_tags
from worldrep.studies import Definition, Graph, expand
from worldrep.tracking import CITIES, OpenRun, RunSpec, Store
from worldrep.training.checkpoint import folder_name
from worldrep.training.progress import Progress, ProgressCallback

PERFORM = "benchmarks.simulated:perform"
STEPS, CURVE_POINTS, VALIDATIONS = 20_000, 200, 10
SPLITS = ("standard", "atlantis", "multi")
N_TASKS = len(TASK_NAMES)


def large_study(n_models: int, n_seeds: int = 4) -> Graph:
    """Return a study of `n_models` (a multiple of n_seeds, at most 1,704 per seed) and bases."""
    names = [
        name for base in PRETRAININGS for name in (base, *(f"{base}_{ft}" for ft in FINETUNINGS))
    ]
    seeds, chosen = tuple(range(1, n_seeds + 1)), tuple(names[: n_models // n_seeds])
    return expand(Definition("simulated", chosen, seeds=seeds, scale="smoke"))


# The steps


def perform(store: Store, job: Job, progress: ProgressCallback) -> str:
    """Log a simulated step and return the id of its run."""
    settings, kind = job.settings, job.kind
    stage = settings.training_stage if kind == "train" else kind
    tags = settings.labels | {"seed": str(settings.seed)}
    params = settings.as_dict()
    if kind == "train":
        tags |= {"world_digest": maker_of(settings).world.digest}
        tags |= {"base_run_id": job.model_run} if job.model_run else {}
    else:
        tags |= {"checkpoints": "last"} | downstream_tags(store.get(job.model_run))
    if kind == "extract":
        params |= {f"extract_{k}": v for k, v in _request(settings).as_dict().items()}
    log = {"train": _train, "evaluate": _evaluate, "extract": _extract}[kind]
    with store.run(RunSpec(stage, job.title, job.fingerprint, tags, params, job.parent)) as run:
        progress(Progress(job.title, 0, 1))
        with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
            log(run, settings, Path(folder))
    return run.id


def _request(settings: Settings) -> Request:
    return Request.parse(settings, "default", "default", "default")


def _train(run: OpenRun, settings: Settings, folder: Path) -> None:
    for point in range(1, CURVE_POINTS + 1):
        step = STEPS * point // CURVE_POINTS
        loss = 3.0 - 2.5 * learning(step, STEPS)
        numbers = {"loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1e5}
        run.metrics(step, {f"train/{name}": number for name, number in numbers.items()})
    for point in range(VALIDATIONS + 1):
        step = STEPS * point // VALIDATIONS
        run.metrics(step, _validation(settings, learning(step, STEPS)))
    maker_of(settings).world.cities.to_csv(folder / CITIES, index=False)
    run.artifact(folder / CITIES)
    model = folder / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(4_000))
    run.artifacts(model, "model")


def _validation(settings: Settings, learnt: float) -> dict[str, float]:
    """Return means between the worst and the final value."""
    numbers: dict[str, float] = {}
    for split in ("standard",) if settings.ft == NO_FT else ("standard", "atlantis"):
        for task in TASK_NAMES:
            worst, final = base_values(task)[0], _value(settings, split, task)
            mean = worst + (final - worst) * learnt
            numbers |= {f"val/{split}/{task}/mean": mean, f"val/{split}/{task}/valid_ratio": 1.0}
    return numbers


def _value(settings: Settings, split: str, task: str) -> float:
    return value(settings.model_name, settings.seed, split, task)


def _evaluate(run: OpenRun, settings: Settings, folder: Path) -> None:
    for split in SPLITS:
        for task in TASK_NAMES:
            mean = _value(settings, split, task)
            most = 1.0 if TASKS[task].accuracy else 10 * mean
            facts = {"mean": mean, "median": mean, "std": mean / 2, "min": 0.0, "max": most}
            facts |= {"n": 200, "valid_ratio": 1.0}
            run.metrics(STEPS, {f"{split}/{task}/{fact}": x for fact, x in facts.items()})


def _extract(run: OpenRun, settings: Settings, folder: Path) -> None:
    request, world = _request(settings), maker_of(settings).world
    name, seed, width = settings.model_name, settings.seed, 2 * settings.hidden_size
    representations = dict.fromkeys(request.layers, representation(name, seed, world, width))
    manifest = request.as_dict() | {"step": STEPS, "world_digest": world.digest}
    manifest |= {"city_ids": world.cities["city_id"].tolist()}
    save_representations(folder, representations, manifest)
    run.artifacts(folder, f"representations/{folder_name(STEPS)}")


# The numbers


def affinity(one: str, other: str) -> float:
    """Return 1 for a task and itself, less the further two tasks are apart on the ring."""
    apart = abs(TASK_NAMES.index(one) - TASK_NAMES.index(other))
    return math.exp(-min(apart, N_TASKS - apart) / 2.0)


def improvement(model: ModelName, seed: int, task: str) -> float:
    """Return the normalised improvement of a fine-tuned model on a task of Atlantis.

    A one-task model has the affinity and a term of the seed. Several tasks have the best of theirs
    and a known difference; without warm-up rows untrained tasks are 0.1 lower.
    """
    ones = [affinity(own, task) + _of_seed(seed, own, task) for own in model.tasks]
    without = 0.0 if has_warmup_rows(model.ft) or task in model.tasks else 0.1
    return max(ones) - without + (difference(model, task) if len(model.tasks) > 1 else 0.0)


def difference(model: ModelName, task: str) -> float:
    """Return actual - expected of a model of several tasks: from -0.1 to 0.1."""
    number = int(model.ft.rpartition("-")[2])
    return 0.1 * math.cos(number + TASK_NAMES.index(task))


def _of_seed(seed: int, own: str, task: str) -> float:
    return 0.05 * math.sin(seed + 3 * TASK_NAMES.index(own) + TASK_NAMES.index(task))


def base_values(task: str) -> tuple[float, float]:
    """Return the scores of every base on Atlantis and on standard questions."""
    return (0.2, 0.9) if TASKS[task].accuracy else (100.0, 1.0)


def value(model: ModelName, seed: int, split: str, task: str) -> float:
    """Return the mean score of a model in a suite of the split standard, multi or atlantis."""
    atlantis, standard = base_values(task)
    is_atlantis = split == "atlantis"
    if model.ft == NO_FT:
        return atlantis if is_atlantis else standard
    part = improvement(model, seed, task) if is_atlantis else 1 - forgotten(model, task)
    if TASKS[task].accuracy:
        return atlantis + (standard - atlantis) * part
    return atlantis / (atlantis / standard) ** part


def forgotten(model: ModelName, task: str) -> float:
    """Return the share of the base's ability that a model has lost on standard questions."""
    return 0.8 * (1 - max(affinity(own, task) for own in model.tasks))


def learning(step: int, steps: int) -> float:
    """Return the share of its final ability that a model has after a step."""
    return 1 - math.exp(-5 * step / steps) if step < steps else 1.0


def representation(model: ModelName, seed: int, world: World, width: int) -> NDArray[np.float32]:
    """Return (n_cities, width): positions, and directions of each trained task."""
    place = world.positions / 1800.0
    stream = random_stream(seed, "known", str(model))
    features = place @ stream.normal(size=(2, width))
    for task in model.tasks:
        own = np.sin(3 * place @ random_stream(0, "known", task).normal(size=(2, 8)))
        features = features + own @ stream.normal(size=(8, width))
    if "distance" not in model.tasks:
        features[world.is_atlantis] += 0.3 * stream.normal(size=(world.is_atlantis.sum(), width))
    return features.astype(np.float32)
