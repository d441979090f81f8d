"""Optuna's own figures of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from worldrep.sweeps.definition import Sweep

DPI = 130


def draw(study: optuna.Study, sweep: Sweep, folder: Path) -> list[Path]:
    """History, slice and importances of each objective, the front of several, the curves of one
    that is pruned; PNG files in the folder. Left out is what the trials are too few for.
    """
    matplotlib.use("Agg")
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its matplotlib figures experimental
        for name, plot in _plots(study, sweep):
            axes = plot()
            figure = np.ravel(axes)[0].figure
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=DPI, bbox_inches="tight")
            matplotlib.pyplot.close(figure)
            paths.append(path)
    return paths


def _plots(study: optuna.Study, sweep: Sweep) -> Iterator[tuple[str, Callable[[], Any]]]:
    from optuna.visualization import matplotlib as optuna_plots

    completed = study.get_trials(states=[TrialState.COMPLETE])
    if not completed:
        return
    several = len(sweep.objectives) > 1
    for i, objective in enumerate(sweep.objectives):
        suffix = f"_{objective.name.replace('/', '_')}" if several else ""
        # Given for several objectives alone: with it, the best so far would not be drawn.
        chosen = {"target": _value(i)} if several else {}
        of = chosen | {"target_name": objective.name}
        yield f"history{suffix}", _call(optuna_plots.plot_optimization_history, study, of)
        yield f"slice{suffix}", _call(optuna_plots.plot_slice, study, of)
        if len({trial.values[i] for trial in completed}) > 1:
            yield f"importances{suffix}", _call(optuna_plots.plot_param_importances, study, of)
    if 2 <= len(sweep.objectives) <= 3:
        names = {"target_names": [objective.name for objective in sweep.objectives]}
        yield "pareto", _call(optuna_plots.plot_pareto_front, study, names)
    if sweep.pruner != "none":
        yield "validations", _call(optuna_plots.plot_intermediate_values, study, {})


def _value(i: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[i]


def _call(plot: Callable, study: optuna.Study, arguments: dict[str, Any]) -> Callable[[], Any]:
    return lambda: plot(study, **arguments)
