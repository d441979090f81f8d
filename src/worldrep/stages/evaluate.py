"""Evaluating a trained model in a run."""

from __future__ import annotations

import pandas as pd

from worldrep.data.sets import suite_sets
from worldrep.evaluation.suites import evaluate
from worldrep.stages.models import LAST, TrainedModel
from worldrep.stages.plan import evaluation_fingerprint
from worldrep.stages.provenance import log_rows
from worldrep.tracking import RunSpec, Store, StoredRun


def evaluate_model(
    store: Store,
    model_run: StoredRun,
    *,
    checkpoints: str = LAST,
    keep_answers: bool = False,
    parent: str | None = None,
    launched: bool = False,
) -> str:
    """Return the run id of a model's evaluation in all suites; evaluate it if needed.

    Args:
        store: Where the runs are.
        model_run: The finished training.
        checkpoints: `last`, `all` or steps such as `100,200`; metrics are logged with their step.
        keep_answers: Store every question with its generation as answers.parquet.
        parent: Run id of the study that this evaluation belongs to.
        launched: This is the work that `mlflow run` was called for.
    """
    model = TrainedModel.load(store, model_run, checkpoints)
    settings, maker = model.settings, model.maker
    fingerprint, configuration = (
        evaluation_fingerprint(maker, settings, trained, model.choice, keep_answers)
        for trained in (model_run.fingerprint, model_run.configuration)
    )
    if done := store.reuse(fingerprint, parent):
        return done
    tags = model.tags | {"configuration": configuration}
    name = model.run_name("evaluate", checkpoints)
    spec = RunSpec("evaluate", name, fingerprint, tags, settings.as_dict(), parent)
    with store.run(spec, launched=launched) as run:
        log_rows(run, maker, suite_sets(settings).values(), "test")
        answers: list[pd.DataFrame] = []
        for step, weights in model.weights():
            metrics, rows = evaluate(weights, maker, settings)
            run.metrics(step, metrics)
            answers.append(rows.assign(step=step))
        if keep_answers:
            with run.new_artifact("answers.parquet") as path:
                pd.concat(answers).to_parquet(path, index=False)
    return run.id
