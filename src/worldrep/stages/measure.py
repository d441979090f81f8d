"""Evaluating a trained model, and extracting its representations, each in a run."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worldrep.data.rows import RowMaker
from worldrep.data.sets import suite_sets
from worldrep.data.world import X_LIMIT, Y_LIMIT, World
from worldrep.digests import digest
from worldrep.disk import temporary_folder
from worldrep.evaluation.representations import (
    REPRESENTATIONS,
    ProbeResult,
    Request,
    extract,
    probe_positions,
    save_representations,
)
from worldrep.evaluation.suites import evaluate
from worldrep.names import TASK_NAMES
from worldrep.progress import Counter, recorded_in, shown
from worldrep.settings import Settings
from worldrep.stages.estimate import Work, check_needs
from worldrep.stages.models import TrainedModel
from worldrep.stages.plan import LAST, evaluation_fingerprint, extraction_fingerprint, run_name
from worldrep.stages.provenance import suite_datasets, world_dataset
from worldrep.tracking import Dataset, OpenRun, RunSpec, Store, StoredRun

MAPS = "maps"  # artifact folder
Tables = dict[int, NDArray[np.float32]]  # (n cities, width) by layer
_MAP_KINDS = (  # mask, label, colour, marker
    ("trained", "world, probe fitted on it", "#9aa5b1", "o"),
    ("baseline", "world, held out", "#0072b2", "s"),
    ("atlantis", "Atlantis, held out", "#d55e00", "*"),
)


def evaluate_model(
    store: Store,
    model_run: StoredRun,
    *,
    checkpoints: str = LAST,
    keep_answers: bool = False,
    multi_rows: int | None = None,
    parent: str | None = None,
    launched: bool = False,
    confirmed: bool = True,
) -> str:
    """Return the run id of a model's evaluation in all suites; evaluate it if needed.

    Args:
        store: Where the runs are.
        model_run: The finished training.
        checkpoints: `last`, `all` or steps such as `100,200`; metrics are logged with their step.
        keep_answers: Store every question with its generation as answers.parquet.
        multi_rows: Rows of the multi-task suite; default: as the training's settings say.
        parent: Run id of the study that this evaluation belongs to.
        launched: This is the work that `mlflow run` was called for.
        confirmed: It may take longer than a day.
    """
    model = TrainedModel.load(store, model_run, checkpoints, multi_rows)
    settings, maker = model.settings, model.maker
    fingerprint, configuration = (
        evaluation_fingerprint(maker, settings, trained, model.choice, keep_answers)
        for trained in (model_run.fingerprint, model_run.configuration)
    )
    if done := store.reuse(fingerprint, parent):
        return done
    work = Work("evaluate", settings, checkpoints=len(model.steps))
    check_needs(store, [work], confirmed=confirmed)
    tags = model.tags | {"configuration": configuration}
    name = run_name(settings, "evaluate", checkpoints)
    spec = RunSpec("evaluate", name, fingerprint, tags, settings.as_dict(), parent)
    sets = suite_sets(settings).values()
    n_questions = len(model.steps) * sum(rowset.rows for rowset in sets)
    counter = Counter(name, n_questions, unit="question")
    with store.run(spec, launched=launched) as run, shown(), recorded_in(run):
        suites = evaluation_datasets(maker, settings)
        run.inputs("test", [world_dataset(maker.world), *suites.values()], [model_run.model_id])
        run.link_metrics(model_run.model_id, model.last_step, suites)
        answers: list[pd.DataFrame] = []
        for step, weights in model.weights():
            metrics, rows = evaluate(weights, maker, settings, counter)
            run.metrics(step, metrics)
            answers.append(rows.assign(step=step))
        if keep_answers:
            with run.new_artifact("answers.parquet") as path:
                pd.concat(answers).to_parquet(path, index=False)
    return run.id


def evaluation_datasets(maker: RowMaker, settings: Settings) -> dict[str, Dataset]:
    """Describe what all suites of an evaluation are measured on, by suite."""
    suites = suite_datasets(maker, suite_sets(settings))
    union = [data.digest for name, data in suites.items() if name.startswith("standard/")]
    content = [union, settings.multi_rows, settings.world_seed]
    sample = Dataset("multi standard test", digest(content), {"rows": settings.multi_rows})
    return suites | {f"multi/{task}": sample for task in TASK_NAMES}


def extract_model(
    store: Store,
    model_run: StoredRun,
    *,
    checkpoints: str = LAST,
    layers: str = "default",
    task: str = "default",
    positions: str = "default",
    parent: str | None = None,
    launched: bool = False,
    confirmed: bool = True,
) -> str:
    """Return the run id of an extraction from a model; extract if needed.

    Args, besides those of `evaluate_model`:
        layers: Numbers such as `0,3`, `all` or `default`.
        task: The task whose prompt is used, or `default`.
        positions: `last_digit`, `delimiter`, both joined by a comma, or `default` for both.

    Raises:
        InputError: A layer, task, position or checkpoint is unknown.
    """
    model = TrainedModel.load(store, model_run, checkpoints)
    request = Request.parse(model.settings, layers, task, positions)
    asked = request.as_dict()
    fingerprint = extraction_fingerprint(model.maker, model_run.fingerprint, asked, model.choice)
    if done := store.reuse(fingerprint, parent):
        return done
    work = Work("extract", model.settings, checkpoints=len(model.steps))
    check_needs(store, [work], confirmed=confirmed)
    name = run_name(model.settings, "extract", layers, task, positions, checkpoints)
    params = model.settings.as_dict() | {f"extract_{k}": v for k, v in asked.items()}
    spec = RunSpec("extract", name, fingerprint, model.tags, params, parent)
    counter = Counter(name, len(model.steps) * len(request.layers), unit="table")
    with store.run(spec, launched=launched) as run, shown(), recorded_in(run):
        run.inputs("extraction", [world_dataset(model.maker.world)], [model_run.model_id])
        for step, weights in model.weights():
            tables = extract(weights, model.maker.world, request, model.settings.is_plain)
            _log_step(run, step, tables, request, model, counter)
    return run.id


def _log_step(
    run: OpenRun, step: int, tables: Tables, request: Request, model: TrainedModel, counter: Counter
) -> None:
    """Log the tables of a step, and for each layer a map and the errors of a linear probe."""
    world, settings = model.maker.world, model.settings
    manifest = request.as_dict() | {
        "step": step,
        "model": model.run.tag("model"),
        "model_run_id": model.run.id,
        "world_digest": world.digest,
        "city_ids": world.cities["city_id"].tolist(),
    }
    with temporary_folder(needed=sum(table.nbytes for table in tables.values())) as temporary:
        folder = temporary / REPRESENTATIONS
        save_representations(folder, tables, manifest)
        run.artifacts(folder, f"{REPRESENTATIONS}/step-{step}")
        for layer, table in tables.items():
            probe = probe_positions(table, world)
            errors = {f"probe/layer-{layer}/{k}": v for k, v in probe.summary().items()}
            run.metrics(step, errors)
            title = f"{settings.model_name} seed {settings.seed}, layer {layer}, step {step:,}"
            with run.new_artifact(f"step-{step}_layer-{layer}.png", MAPS) as path:
                draw_map(world, probe, title).savefig(path, dpi=130)
            counter.add()


def draw_map(world: World, probe: ProbeResult, title: str) -> Figure:
    """Draw the cities' true positions (hollow) joined to the probe's (filled), in degrees."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.add_subplot()
    true, predicted = world.positions / 10, probe.predicted / 10
    for kind, label, colour, marker in _MAP_KINDS:
        mask = getattr(probe, kind)
        if not mask.any():
            continue
        lines = [*np.stack([true[mask], predicted[mask]], axis=1)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.6))
        shown = f"{label}: n={mask.sum()}, mean error {probe.errors[mask].mean() / 10:.1f}°"
        style: dict[str, Any] = {"s": 34, "marker": marker, "edgecolors": colour}
        axes.scatter(*true[mask].T, facecolors="white", zorder=2, **style)
        axes.scatter(*predicted[mask].T, facecolors=colour, zorder=3, label=shown, **style)
    x, y = X_LIMIT / 10 + 5, Y_LIMIT / 10 + 5
    axes.set(xlim=(-x, x), ylim=(-y, y), aspect="equal")
    axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    axes.grid(color="#e5e7eb", linewidth=0.5)
    axes.set_title(f"{title}\nhollow: true position, filled: read off by a linear probe")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
