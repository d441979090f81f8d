"""The run of a sweep: its progress, and at the end the best trials, a table and figures."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from worldrep.disk import temporary_folder
from worldrep.progress import NOTE
from worldrep.stages.provenance import identity_tags
from worldrep.sweeps.definition import NONE, Sweep
from worldrep.sweeps.trial import RUN_ID
from worldrep.text import without_user, write_csv
from worldrep.tracking import OpenRun, RunSpec

LONGEST_TAG = 4000
MOST_NAMED = 20  # best trials in the description
MOST_IN_LEGEND = 12
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def sweep_spec(sweep: Sweep, storage: str) -> RunSpec:
    """Describe the run of a sweep, which can be opened again for more trials."""
    tags = identity_tags(sweep.settings) | {
        "sweep": sweep.name,
        "identity": sweep.identity,
        "searches": sweep.searches,
        "storage": without_user(storage),
        "objectives": ",".join(sweep.goals),
    }
    values = sweep.settings.as_dict()
    return RunSpec("sweep", sweep.title, sweep.fingerprint, tags, values, repeatable=True)


def counts(study: optuna.Study) -> dict[str, int]:
    """Count the ended trials by state."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {state.name.lower(): states.count(state) for state in ENDED}


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """List the completed trials."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def log_progress(run: OpenRun, sweep: Sweep, study: optuna.Study) -> None:
    """Log counts as `trials/...` and `best/<objective>`, by the number of ended trials."""
    numbers = {f"trials/{state}": float(n) for state, n in counts(study).items()}
    values = zip(*(trial.values for trial in completed(study)), strict=True)
    for goal, found in zip(sweep.objectives, values, strict=False):
        numbers[f"best/{goal.name}"] = (max if goal.higher_is_better else min)(found)
    if ended := sum(counts(study).values()):
        run.metrics(ended, numbers)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best completed trial, the earliest of equals, or the Pareto front."""
    if not completed(study):
        return []
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def log_results(run: OpenRun, sweep: Sweep, study: optuna.Study) -> None:
    """Store the best trials, a table of all trials and Optuna's figures."""
    best = best_trials(study)
    facts = [
        {
            "trial": trial.number,
            "run_id": trial.user_attrs.get(RUN_ID),
            "values": dict(zip(sweep.goals, trial.values, strict=True)),
            "settings": trial.params,
        }
        for trial in best
    ]
    tags = {
        "worldrep.best_trial": ",".join(str(trial.number) for trial in best),
        "worldrep.best_settings": json.dumps([trial.params for trial in best]),
    }
    short = {k: v if len(v) <= LONGEST_TAG else "see best.json" for k, v in tags.items()}
    run.tags(short | {NOTE: _note(sweep, study, best)})
    with temporary_folder() as folder:
        (folder / "best.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        write_csv(study.trials_dataframe(), folder / "trials.csv", index=False)
        matplotlib.use("Agg")
        with warnings.catch_warnings(action="ignore"):
            for name, axes in _plots(study, sweep):
                figure = np.ravel(axes)[0].figure
                figure.savefig(folder / f"{name}.png", dpi=130, bbox_inches="tight")
                plt.close(figure)
        for path in folder.iterdir():
            run.artifact(path, "figures" if path.suffix == ".png" else None)


def _note(sweep: Sweep, study: optuna.Study, best: list[FrozenTrial]) -> str:
    """Return the run's description in the UI."""
    numbers = ", ".join(f"{count} {state}" for state, count in counts(study).items())
    lines = [f"**{sweep.name}** searches {sweep.searches}", "", f"Trials: {numbers}.", ""]
    lines += ["Best:" if best else "No trial was completed.", ""]
    return "\n".join(lines + [f"- trial {t.number}: {sweep.outcome(t)}" for t in best[:MOST_NAMED]])


def _plots(study: optuna.Study, sweep: Sweep) -> Iterator[tuple[str, Any]]:
    """Yield names and axes of Optuna's figures for which there are enough trials."""
    values = [trial.values for trial in completed(study)]
    for i, (name, found) in enumerate(zip(sweep.goals, zip(*values, strict=True), strict=False)):
        of: dict[str, Any] = {"target_name": name}
        suffix = ""
        if len(sweep.goals) > 1:  # with a target, the curve of the best value is not drawn
            of["target"] = lambda trial, i=i: trial.values[i]
            suffix = f"_{name.replace('/', '_')}"
        yield f"history{suffix}", plots.plot_optimization_history(study, **of)
        yield f"slice{suffix}", plots.plot_slice(study, **of)
        if len(set(found)) > 1:
            yield f"importances{suffix}", plots.plot_param_importances(study, **of)
    if values and 2 <= len(sweep.goals) <= 3:
        yield "pareto", plots.plot_pareto_front(study, target_names=sweep.goals)
    if values and sweep.pruner != NONE:
        axes = plots.plot_intermediate_values(study)
        axes.set_xlabel("validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend = axes.get_legend()
        if legend and len(legend.get_texts()) > MOST_IN_LEGEND:  # it would cover the figure
            legend.remove()
        yield "validations", axes
