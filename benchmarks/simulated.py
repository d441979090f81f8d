"""Steps of a study that do no arithmetic but log what a real step logs, to measure all the rest."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from worldrep.digests import random_stream
from worldrep.executors.work import Task
from worldrep.names import FINETUNINGS, PRETRAININGS, TASK_NAMES
from worldrep.progress import Progress, Watch
from worldrep.studies import Definition, Graph, expand
from worldrep.tracking import OpenRun, RunSpec, Store

CURVE_POINTS = 200
CURVES = ("loss", "lr", "grad_norm", "tokens_per_second")
FACTS = ("mean", "median", "std", "min", "max", "n", "valid_ratio")
SPLITS = ("standard", "atlantis", "multi")


def perform(store: Store, task: Task, watch: Watch) -> str:
    """The run id of a step whose numbers are made up: the same ones for the same fingerprint."""
    settings = task.settings
    stage = settings.training_stage if task.kind == "train" else task.kind
    tags = settings.labels | {"seed": str(settings.seed)}
    tags |= {"checkpoints": "last", "model_run_id": task.model_run}
    spec = RunSpec(stage, task.title, task.fingerprint, tags, settings.as_dict(), task.parent)
    with store.run(spec) as run:
        watch(Progress(task.title, 0, 1))
        {"train": _train, "evaluate": _evaluate, "extract": _extract}[task.kind](run, task)
    return run.id


def _train(run: OpenRun, task: Task) -> None:
    for step in range(1, CURVE_POINTS + 1):
        run.metrics(step, {f"train/{name}": 1.0 + 1.0 / step for name in CURVES})
    _store(run, "model", "model.safetensors", 4_000)


def _evaluate(run: OpenRun, task: Task) -> None:
    rng = random_stream(0, task.fingerprint)
    names = [f"{split}/{name}/{fact}" for split in SPLITS for name in TASK_NAMES for fact in FACTS]
    run.metrics(CURVE_POINTS, {name: math.fabs(rng.normal()) for name in names})


def _extract(run: OpenRun, task: Task) -> None:
    run.metrics(CURVE_POINTS, {"probe/layer-5/atlantis": 1.0})
    _store(run, "representations", "layer_5.safetensors", 40_000)


def _store(run: OpenRun, folder: str, name: str, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        (Path(temporary) / name).write_bytes(bytes(size))
        run.artifacts(Path(temporary), folder)


def large_study(n_models: int, n_seeds: int = 4) -> Graph:
    """A study of `n_models` (a multiple of n_seeds, at most 1,704 a seed) with bases among them."""
    names = [
        name for base in PRETRAININGS for name in (base, *(f"{base}_{ft}" for ft in FINETUNINGS))
    ]
    seeds = tuple(range(1, n_seeds + 1))
    chosen = tuple(names[: n_models // n_seeds])
    return expand(Definition("simulated", chosen, seeds=seeds, scale="smoke"))
