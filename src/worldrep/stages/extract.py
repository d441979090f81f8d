"""Extracting a stored model's representations of all cities as a recorded run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from worldrep.data.world import World
from worldrep.evaluation.extraction import extract
from worldrep.evaluation.probe import probe_positions
from worldrep.evaluation.representations import Request, save_representations
from worldrep.stages.citymap import draw_map
from worldrep.stages.common import (
    downstream_tags,
    identity_tags,
    maker_for,
    reuse,
    stored_settings,
    world_input,
)
from worldrep.stages.find import choose_steps, model_at
from worldrep.stages.fingerprints import extraction_fingerprint
from worldrep.tracking import OpenRun, RunSpec, Store, StoredRun

REPRESENTATIONS, MAPS = "representations", "maps"


def extract_model(
    store: Store,
    model_run: StoredRun,
    *,
    checkpoints: str = "last",
    layers: str = "default",
    task: str = "default",
    positions: str = "default",
    parent: str | None = None,
    launched: bool = False,
) -> str:
    """The run id of the extraction of a trained model; done if it is not there.

    checkpoints as for `evaluate_model`; layers: numbers, `all` or `default`; task: whose prompt is
    used; positions: `last_digit`, `delimiter` or both. Raises InputError for unknown ones.
    """
    settings = stored_settings(store, model_run)
    request = Request.parse(settings, layers, task, positions)
    maker = maker_for(store, model_run, settings)
    steps = choose_steps(store, model_run, settings, maker, checkpoints)
    choice = checkpoints if checkpoints == "last" else steps
    model = model_run.fingerprint
    fingerprint = extraction_fingerprint(maker, model, request.as_dict(), choice)
    name = settings.run_name("extract")
    name += "".join(f" {v}" for v in (layers, task, positions) if v != "default")
    name += "" if checkpoints == "last" else f" {checkpoints}"
    if done := reuse(store, fingerprint, parent):
        return done
    tags = identity_tags(settings) | downstream_tags(model_run) | {"checkpoints": checkpoints}
    params = settings.as_dict() | {f"extract_{k}": v for k, v in request.as_dict().items()}
    spec = RunSpec("extract", name, fingerprint, tags, params, parent)
    with store.run(spec, launched=launched) as run:
        run.inputs("extraction", [world_input(maker.world)])
        for step in steps:
            with model_at(store, model_run, step, checkpoints) as weights:
                tables = extract(weights, maker.world, request, settings.is_plain)
            _record(run, step, tables, request, maker.world, model_run)
    return run.id


def _record(
    run: OpenRun, step: int, tables: dict, request: Request, world: World, model_run: StoredRun
) -> None:
    """Store the tables of one step, and for each layer a map and the probe's errors."""
    manifest = request.as_dict() | {
        "step": step,
        "model": model_run.tags["worldrep.model"],
        "model_run_id": model_run.id,
        "world_digest": world.digest,
        "city_ids": world.cities["city_id"].tolist(),
    }
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary) / REPRESENTATIONS
        save_representations(folder, tables, manifest)
        run.artifacts(folder, f"{REPRESENTATIONS}/step-{step}")
        for layer, table in tables.items():
            probe = probe_positions(table, world)
            errors = {f"probe/layer-{layer}/{k}": v for k, v in probe.summary().items()}
            run.metrics(step, errors)
            title = f"{model_run.name.split(' ', 1)[-1]}, layer {layer}, step {step:,}"
            path = Path(temporary) / f"step-{step}_layer-{layer}.png"
            draw_map(world, probe, title).savefig(path, dpi=130)
            run.artifact(path, MAPS)
