"""Evaluating a stored model as a recorded run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from worldrep.data.sets import suite_sets
from worldrep.evaluation.suites import evaluate
from worldrep.stages.common import (
    downstream_tags,
    identity_tags,
    log_rows,
    maker_for,
    reuse,
    stored_settings,
)
from worldrep.stages.find import choose_steps, model_at
from worldrep.stages.fingerprints import evaluation_fingerprint
from worldrep.tracking import RunSpec, Store, StoredRun

ANSWERS = "answers.parquet"


def evaluate_model(
    store: Store,
    model_run: StoredRun,
    *,
    checkpoints: str = "last",
    keep_answers: bool = False,
    parent: str | None = None,
    launched: bool = False,
) -> str:
    """The run id of the evaluation of a trained model in all suites; done if it is not there.

    checkpoints: `last`, `all` or steps such as `100,200`, logged with their step; keep_answers:
    store every question with its generation as answers.parquet.
    """
    settings = stored_settings(store, model_run)
    maker = maker_for(store, model_run, settings)
    steps = choose_steps(store, model_run, settings, maker, checkpoints)
    choice = checkpoints if checkpoints == "last" else steps
    asked = choice, keep_answers
    fingerprint, configuration = (
        evaluation_fingerprint(maker, settings, model, *asked)
        for model in (model_run.fingerprint, model_run.tag("configuration"))
    )
    name = settings.run_name("evaluate") + ("" if checkpoints == "last" else " " + checkpoints)
    if done := reuse(store, fingerprint, parent):
        return done
    tags = identity_tags(settings) | downstream_tags(model_run)
    tags |= {"checkpoints": checkpoints, "configuration": configuration}
    spec = RunSpec("evaluate", name, fingerprint, tags, settings.as_dict(), parent)
    with store.run(spec, launched=launched) as run:
        log_rows(run, maker, list(suite_sets(settings).values()), "test")
        answers: list[pd.DataFrame] = []
        for step in steps:
            with model_at(store, model_run, step, checkpoints) as weights:
                metrics, rows = evaluate(weights, maker, settings)
            run.metrics(step, metrics)
            answers.append(rows.assign(step=step))
        if keep_answers:
            with tempfile.TemporaryDirectory(prefix="worldrep-") as folder:
                path = Path(folder) / ANSWERS
                pd.concat(answers).to_parquet(path, index=False)
                run.artifact(path)
    return run.id
