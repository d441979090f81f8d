"""The best settings of a sweep as a study: trained, evaluated and extracted over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

from worldrep.errors import InputError
from worldrep.executors import ExecutorOptions
from worldrep.scales import changed_settings
from worldrep.studies import Definition, expand
from worldrep.studies.driver import run_study
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.drive import SweepResult
from worldrep.tracking import Store

BEST = "best"


def check_apply(apply: str | None, seeds: Sequence[int], sweep: Sweep) -> None:
    """Raise InputError when it cannot be said which trial is meant, or for a wrong seed."""
    for seed in seeds:
        replace(sweep.settings, seed=seed)
    if apply == BEST and len(sweep.objectives) > 1:
        raise InputError(
            "apply=best needs one objective; of several no trial is the best: "
            "choose one of the front by its number, such as apply=7"
        )
    if apply not in (None, BEST) and not (apply.isascii() and apply.isdecimal()):
        raise InputError(f"apply={apply!r} is not one of: none, best, or the number of a trial")


def chosen_trial(apply: str, result: SweepResult) -> FrozenTrial:
    """The trial that is meant. Raises InputError for one that was not completed."""
    if apply == BEST:
        return result.best[0]
    if int(apply) not in result.completed:
        numbers = ", ".join(map(str, result.completed))
        raise InputError(f"trial {apply} is not one of those that were completed: {numbers}")
    return result.completed[int(apply)]


def winner_study(sweep: Sweep, trial: FrozenTrial, seeds: tuple[int, ...]) -> Definition:
    """The study that applies a trial's settings to the sweep's model, for some seeds."""
    own = sweep.settings
    return Definition(
        f"{sweep.name}-trial{trial.number}",
        (str(own.model_name),),
        about=f"Trial {trial.number} of {sweep.title} over seeds.",
        seeds=seeds,
        worlds=(own.world,),
        scale=own.scale,
        settings=changed_settings(own) | trial.params,
    )


def apply_trial(
    store: Store, sweep: Sweep, trial: FrozenTrial, choice: ExecutorOptions, seeds: tuple[int, ...]
) -> str:
    """Do that study; its name. Raises StateError when a step fails."""
    definition = winner_study(sweep, trial, seeds)
    run_study(store, expand(definition), choice).check()
    return definition.name
