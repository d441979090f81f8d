"""Steps of a study that do no arithmetic but log what a real step logs, to measure all the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from benchmarks import known
from worldrep.data.sets import maker_of
from worldrep.data.tasks import TASKS
from worldrep.evaluation.representations import Request, save_representations
from worldrep.executors.jobs import Job
from worldrep.names import FINETUNINGS, NO_FT, PRETRAININGS, TASK_NAMES
from worldrep.settings import Settings
from worldrep.stages.provenance import downstream_tags
from worldrep.studies import Definition, Graph, expand
from worldrep.tracking import CITIES, RunSpec, Store
from worldrep.training.checkpoint import folder_name
from worldrep.training.progress import Progress, ProgressCallback

STEPS, CURVE_POINTS, VALIDATIONS = 20_000, 200, 10
SPLITS = ("standard", "atlantis", "multi")


class Log(Protocol):
    """The part of a run that steps write to."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def artifact(self, path: Path) -> None: ...

    def artifacts(self, source: Path, folder: str) -> None: ...


def perform(store: Store, task: Job, watch: ProgressCallback) -> str:
    """The run id of a step whose numbers are those of `benchmarks.known`."""
    settings = task.settings
    stage = settings.training_stage if task.kind == "train" else task.kind
    spec = RunSpec(
        stage, task.title, task.fingerprint, _tags(store, task), _params(task), task.parent
    )
    with store.run(spec) as run:
        watch(Progress(task.title, 0, 1))
        KINDS[task.kind](run, settings)
    return run.id


def _tags(store: Store, task: Job) -> dict[str, str]:
    settings = task.settings
    tags = settings.labels | {"seed": str(settings.seed)}
    if task.kind != "train":
        return tags | {"checkpoints": "last"} | downstream_tags(store.get(task.model_run))
    base = {"base_run_id": task.model_run} if task.model_run else {}
    return tags | base | {"world_digest": maker_of(settings).world.digest}


def _params(task: Job) -> dict[str, object]:
    params = task.settings.as_dict()
    if task.kind == "extract":
        params |= {f"extract_{k}": v for k, v in _request(task.settings).as_dict().items()}
    return params


def _request(settings: Settings) -> Request:
    return Request.parse(settings, "default", "default", "default")


def _train(run: Log, settings: Settings) -> None:
    for point in range(1, CURVE_POINTS + 1):
        step = STEPS * point // CURVE_POINTS
        loss = 3.0 - 2.5 * known.learning(step, STEPS)
        numbers = {"loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1e5}
        run.metrics(step, {f"train/{name}": number for name, number in numbers.items()})
    for point in range(VALIDATIONS + 1):
        step = STEPS * point // VALIDATIONS
        run.metrics(step, _validation(settings, known.learning(step, STEPS)))
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        path = Path(folder) / CITIES
        maker_of(settings).world.cities.to_csv(path, index=False)
        run.artifact(path)
    _store(run, "model", "model.safetensors", 4_000)


def _validation(settings: Settings, learnt: float) -> dict[str, float]:
    """Means on the way from the worst to what the model will have."""
    splits = ("standard",) if settings.ft == NO_FT else ("standard", "atlantis")
    numbers: dict[str, float] = {}
    for split in splits:
        for task in TASK_NAMES:
            worst, final = known.base_values(task)[0], _value(settings, split, task)
            mean = worst + (final - worst) * learnt
            numbers |= {f"val/{split}/{task}/mean": mean, f"val/{split}/{task}/valid_ratio": 1.0}
    return numbers


def _value(settings: Settings, split: str, task: str) -> float:
    return known.value(settings.model_name, settings.seed, split, task)


def _evaluate(run: Log, settings: Settings) -> None:
    for split in SPLITS:
        for task in TASK_NAMES:
            mean = _value(settings, split, task)
            most = 1.0 if TASKS[task].accuracy else 10 * mean
            facts = {"mean": mean, "median": mean, "std": mean / 2, "min": 0.0, "max": most}
            facts |= {"n": known.TESTED, "valid_ratio": 1.0}
            run.metrics(STEPS, {f"{split}/{task}/{fact}": x for fact, x in facts.items()})


def _extract(run: Log, settings: Settings) -> None:
    request, world = _request(settings), maker_of(settings).world
    table = known.representation(
        settings.model_name, settings.seed, world, 2 * settings.hidden_size
    )
    manifest = request.as_dict() | {
        "step": STEPS,
        "world_digest": world.digest,
        "city_ids": world.cities["city_id"].tolist(),
    }
    with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
        save_representations(Path(folder), dict.fromkeys(request.layers, table), manifest)
        run.artifacts(Path(folder), f"representations/{folder_name(STEPS)}")


KINDS = {"train": _train, "evaluate": _evaluate, "extract": _extract}


def _store(run: Log, folder: str, name: str, size: int) -> None:
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
