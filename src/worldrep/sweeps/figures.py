"""Optuna's own figures of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.guides import NONE

DPI = 130
MOST_IN_LEGEND = 12


def draw(study: optuna.Study, sweep: Sweep, folder: Path) -> list[Path]:
    """Write PNG files into the folder; what the trials are too few for is left out.

    History, slice and importances of each objective, the front of several, the validations if they
    are used for pruning.
    """
    matplotlib.use("Agg")
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its matplotlib figures experimental
        for name, axes in _plots(study, sweep):
            figure = np.ravel(axes)[0].figure
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=DPI, bbox_inches="tight")
            plt.close(figure)
    return paths


def _plots(study: optuna.Study, sweep: Sweep) -> Iterator[tuple[str, Any]]:
    """Names and axes, drawn one after the other."""
    completed = study.get_trials(states=[TrialState.COMPLETE])
    if not completed:
        return
    several = len(sweep.objectives) > 1
    for i, objective in enumerate(sweep.objectives):
        suffix = f"_{objective.name.replace('/', '_')}" if several else ""
        # Given for several objectives alone: with it, the best so far would not be drawn.
        of: dict[str, Any] = {"target": lambda trial, i=i: trial.values[i]} if several else {}
        of["target_name"] = objective.name
        yield f"history{suffix}", plots.plot_optimization_history(study, **of)
        yield f"slice{suffix}", plots.plot_slice(study, **of)
        if len({trial.values[i] for trial in completed}) > 1:
            yield f"importances{suffix}", plots.plot_param_importances(study, **of)
    if 2 <= len(sweep.objectives) <= 3:
        names = [objective.name for objective in sweep.objectives]
        yield "pareto", plots.plot_pareto_front(study, target_names=names)
    if sweep.pruner != NONE:
        yield "validations", _validations(study)


def _validations(study: optuna.Study) -> Axes:
    """Optuna's curves of intermediate values; a long legend would take all the room."""
    axes = plots.plot_intermediate_values(study)
    axes.set_xlabel("validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = axes.get_legend()
    if legend and len(legend.get_texts()) > MOST_IN_LEGEND:
        legend.remove()
    return axes
