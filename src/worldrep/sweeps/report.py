"""The run of a sweep: its progress, and at the end the best trials, a table and figures."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from worldrep.stages.provenance import identity_tags
from worldrep.sweeps.definition import NONE, Sweep
from worldrep.tracking import OpenRun, RunSpec, without_user

RUN_ID = "mlflow_run_id"  # attribute of Optuna's trials
LONGEST_TAG = 4000
MOST_NAMED = 20  # best trials in the description
MOST_IN_LEGEND = 12
TABLE, BEST, FIGURES = "trials.csv", "best.json", "figures"
DPI = 130
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def sweep_spec(sweep: Sweep, storage: str) -> RunSpec:
    """Describe the run of a sweep, which can be opened again for more trials."""
    tags = identity_tags(sweep.settings) | {
        "sweep": sweep.name,
        "identity": sweep.identity,
        "searches": sweep.searches,
        "storage": without_user(storage),
        "objectives": ",".join(objective.name for objective in sweep.objectives),
    }
    values = sweep.settings.as_dict()
    return RunSpec("sweep", sweep.title, sweep.fingerprint, tags, values, repeatable=True)


def log_progress(run: OpenRun, sweep: Sweep, study: optuna.Study) -> None:
    """Log counts as `trials/...` and `best/<objective>`, by the number of ended trials."""
    trials = study.get_trials(deepcopy=False, states=ENDED)
    if not trials:
        return
    states = [trial.state for trial in trials]
    numbers = {f"trials/{s.name.lower()}": float(states.count(s)) for s in ENDED}
    completed = [trial.values for trial in trials if trial.state == TrialState.COMPLETE]
    for goal, values in zip(sweep.objectives, zip(*completed, strict=True), strict=False):
        numbers[f"best/{goal.name}"] = (max if goal.higher_is_better else min)(values)
    run.metrics(len(trials), numbers)


def best_trials(study: optuna.Study) -> tuple[FrozenTrial, ...]:
    """Return the best completed trial, the earliest of equals, or the Pareto front."""
    if not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        return ()
    return (study.best_trial,) if len(study.directions) == 1 else tuple(study.best_trials)


def log_results(run: OpenRun, sweep: Sweep, study: optuna.Study) -> None:
    """Store the best trials, a table of all trials and Optuna's figures."""
    best = best_trials(study)
    names = [objective.name for objective in sweep.objectives]
    facts = [
        {
            "trial": trial.number,
            "run_id": trial.user_attrs.get(RUN_ID),
            "values": dict(zip(names, trial.values, strict=True)),
            "settings": trial.params,
        }
        for trial in best
    ]
    run.tags(
        {
            "worldrep.best_trial": _short(",".join(str(trial.number) for trial in best)),
            "worldrep.best_settings": _short(json.dumps([trial.params for trial in best])),
            "mlflow.note.content": _note(sweep, study, best),
        }
    )
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary)
        (folder / BEST).write_text(json.dumps(facts, indent=1))
        study.trials_dataframe().to_csv(folder / TABLE, index=False)
        for name in (BEST, TABLE):
            run.artifact(folder / name)
        for path in _draw(study, sweep, folder):
            run.artifact(path, FIGURES)


def _short(text: str) -> str:
    """Return a text that fits into a tag, or where to find it."""
    return text if len(text) <= LONGEST_TAG else f"see {BEST}"


def _note(sweep: Sweep, study: optuna.Study, best: Sequence[FrozenTrial]) -> str:
    """Write the description that MLflow's UI shows."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    numbers = ", ".join(f"{states.count(s)} {s.name.lower()}" for s in ENDED)
    lines = [f"**{sweep.name}** searches {sweep.searches}", ""]
    lines += [f"Trials: {numbers}.", "", "Best:" if best else "No trial was completed.", ""]
    lines += [f"- trial {t.number}: {sweep.outcome(t)}" for t in best[:MOST_NAMED]]
    return "\n".join(lines)


def _draw(study: optuna.Study, sweep: Sweep, folder: Path) -> list[Path]:
    """Write the figures for which there are enough trials as PNG files."""
    matplotlib.use("Agg")
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, axes in _plots(study, sweep):
            figure = np.ravel(axes)[0].figure
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=DPI, bbox_inches="tight")
            plt.close(figure)
    return paths


def _plots(study: optuna.Study, sweep: Sweep) -> Iterator[tuple[str, Any]]:
    """Yield names and axes of Optuna's figures."""
    completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not completed:
        return
    names = [objective.name for objective in sweep.objectives]
    for i, name in enumerate(names):
        of: dict[str, Any] = {"target_name": name}
        suffix = ""
        if len(names) > 1:  # with a target, the curve of the best value is not drawn
            of["target"] = lambda trial, i=i: trial.values[i]
            suffix = f"_{name.replace('/', '_')}"
        yield f"history{suffix}", plots.plot_optimization_history(study, **of)
        yield f"slice{suffix}", plots.plot_slice(study, **of)
        if len({trial.values[i] for trial in completed}) > 1:
            yield f"importances{suffix}", plots.plot_param_importances(study, **of)
    if 2 <= len(names) <= 3:
        yield "pareto", plots.plot_pareto_front(study, target_names=names)
    if sweep.pruner != NONE:
        yield "validations", _validations(study)


def _validations(study: optuna.Study) -> Axes:
    """Plot intermediate values, without a legend that would cover the figure."""
    axes = plots.plot_intermediate_values(study)
    axes.set_xlabel("validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes.get_legend()
    if legend and len(legend.get_texts()) > MOST_IN_LEGEND:
        legend.remove()
    return axes
