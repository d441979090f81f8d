"""Definition of a sweep: the model, the search space, the objectives, sampler and pruner."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from worldrep.digests import digest, random_stream
from worldrep.errors import InputError, unknown
from worldrep.settings import Settings
from worldrep.stages.plan import TrainingPlan, evaluation_fingerprint
from worldrep.sweeps.objectives import Objective, parse_objectives
from worldrep.sweeps.space import Space, read_space

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

AUTO, NONE = "auto", "none"
SAMPLERS = ("tpe", "random")
PRUNERS = (AUTO, "median", "hyperband", NONE)
STARTUP_TRIALS = 5  # trials before the median pruner starts
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,199}")


@dataclass(frozen=True)
class Sweep:
    """A search for settings, without the number of trials and where they run.

    Args:
        name: Identifies the sweep in the store and in Optuna's storage.
        settings: Settings of every trial, apart from those that the space overrides.
        pruner: `auto` stands for `median` if there is one objective that validations measure,
            else for `none`.

    Raises:
        InputError: A value is invalid, or the pruner cannot work with the objectives.
    """

    name: str
    settings: Settings
    space: Space
    objectives: tuple[Objective, ...]
    sampler: str = "tpe"
    pruner: str = AUTO

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"name={self.name!r} is not made of letters, digits and - _ . + @, 200 at most"
            )
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if self.pruner not in PRUNERS:
            raise unknown("pruner", self.pruner, PRUNERS)
        if self.pruner == AUTO:
            object.__setattr__(self, "pruner", "median" if self._can_prune else NONE)
        if self.pruner != NONE and not self._can_prune:
            raise InputError(
                f"pruner={self.pruner} needs one objective that validations show "
                f"(not {', '.join(o.name for o in self.objectives)}): choose pruner=none"
            )

    @classmethod
    def asked_for(
        cls, settings: Settings, typed: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> Sweep:
        """Build the sweep from the options space, objective, sampler, pruner and name.

        Settings that were given a value (`fixed`) cannot be searched as well.
        """
        objectives = parse_objectives(typed["objective"], settings)
        name = typed["name"]
        if name is None:
            goals = [objective.name.replace("/", "-") for objective in objectives]
            parts = (str(settings.model_name), *goals, settings.scale, f"seed{settings.seed}")
            name = "_".join(parts)
        space = read_space(typed["space"], settings)
        for setting in fixed:
            if setting in space:
                raise InputError(f"{setting} is searched and cannot be given a value as well")
        return cls(name, settings, space, objectives, typed["sampler"], typed["pruner"])

    @property
    def _can_prune(self) -> bool:
        (first, *more) = self.objectives
        return not more and first.is_validated(self.settings)

    @property
    def title(self) -> str:
        """Name of the sweep's run."""
        return f"sweep {self.name}"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the sweep's run: of the name alone, so that names are unique."""
        return digest(["sweep", self.name])

    @cached_property
    def identity(self) -> str:
        """Digest of everything that the trials share; it detects another sweep of this name."""
        plan = TrainingPlan.of(self.settings)
        work = evaluation_fingerprint(plan.maker, self.settings, plan.fingerprint)
        goals = [goal.name for goal in self.objectives]
        return digest([work, self._ranges, goals, self.sampler, self.pruner])

    @property
    def _ranges(self) -> dict[str, Any]:
        """The space as JSON-able values."""
        return {name: json.loads(distribution_to_json(d)) for name, d in self.space.items()}

    @property
    def searches(self) -> str:
        """Objectives, space, sampler and pruner, for tags and messages."""
        goals = ", ".join(objective.name for objective in self.objectives)
        return f"{goals} by {json.dumps(self._ranges)} with {self.sampler}, pruner {self.pruner}"

    def sampler_of(self, number: int) -> BaseSampler:
        """Make the sampler of the trial that `number` others precede.

        Its random numbers depend on the seed and on `number` alone, so that an interrupted sweep
        continues with the same suggestions.
        """
        seed = int(random_stream(self.settings.seed, "sampler", number).integers(2**31))
        return RandomSampler(seed) if self.sampler == "random" else TPESampler(seed=seed)

    def make_pruner(self) -> BasePruner:
        """Make the pruner. It compares trials at the same validation, counted from 1."""
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=STARTUP_TRIALS)
        if self.pruner == "hyperband":
            return HyperbandPruner(max_resource=self.settings.n_validations)
        return NopPruner()

    def outcome(self, trial: FrozenTrial) -> str:
        """Describe the values and settings of a completed trial."""
        goals = zip(self.objectives, trial.values or [], strict=False)
        values = [f"{goal.name} {value:.4f}" for goal, value in goals]
        return ", ".join(values) + f" ({params_in_words(trial.params)})"

    def trial_fingerprint(self, number: int) -> str:
        """Fingerprint of a trial's run."""
        return digest(["trial", self.name, self.identity, number])


def params_in_words(params: Mapping[str, Any]) -> str:
    """Format the settings of a trial, such as `epochs 3, learning_rate 0.00123`."""
    shown = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in params.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
