"""What a sweep is: which model, which settings are searched, for what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial

from worldrep.digests import digest
from worldrep.errors import InputError, unknown
from worldrep.settings import Settings
from worldrep.stages.fingerprints import evaluation_fingerprint
from worldrep.stages.plan import TrainingPlan
from worldrep.sweeps.guides import AUTO, NONE, PRUNERS, SAMPLERS
from worldrep.sweeps.objectives import Objective, parse_objectives
from worldrep.sweeps.space import Space, description, read_space

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,199}")


@dataclass(frozen=True)
class Sweep:
    """A search, without how long and where it runs.

    name: by which it is found again; settings: those of every trial but for the space. pruner: auto
    is median for one objective that validations show, else none. Raises InputError for what does
    not go together.
    """

    name: str
    settings: Settings
    space: Space
    objectives: tuple[Objective, ...]
    sampler: str = "tpe"
    pruner: str = "auto"

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
        """From what the user typed: space, objective, sampler, pruner, and a name or None.

        fixed: settings that were given a value; they cannot be searched as well.
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
        """What its run is called."""
        return f"sweep {self.name}"

    @property
    def fingerprint(self) -> str:
        """By which its run is found: the name alone, so that no two sweeps share one."""
        return digest(["sweep", self.name])

    @cached_property
    def identity(self) -> str:
        """Of everything that its trials have in common: those of another sweep do not belong."""
        plan = TrainingPlan.of(self.settings)
        start = evaluation_fingerprint(plan.maker, self.settings, plan.fingerprint)
        goals = [goal.name for goal in self.objectives]
        return digest([start, description(self.space), goals, self.sampler, self.pruner])

    @property
    def searches(self) -> str:
        """What is searched for what, for tags and messages."""
        goals = ", ".join(objective.name for objective in self.objectives)
        how = f"{self.sampler}, pruner {self.pruner}"
        return f"{goals} by {json.dumps(description(self.space))} with {how}"

    def outcome(self, trial: FrozenTrial) -> str:
        """The values and settings of a completed trial, in words."""
        goals = zip(self.objectives, trial.values or [], strict=False)
        values = [f"{goal.name} {value:.4f}" for goal, value in goals]
        return ", ".join(values) + f" ({params_in_words(trial.params)})"

    def trial_fingerprint(self, number: int) -> str:
        return digest(["trial", self.name, self.identity, number])

    def trial_title(self, number: int) -> str:
        return f"{self.title} trial {number}"

    def settings_of(self, params: dict[str, Any]) -> Settings:
        """The settings of a trial. Raises InputError when its values do not go together."""
        return replace(self.settings, **params)


def params_in_words(params: Mapping[str, Any]) -> str:
    """The settings of a trial, such as `epochs 3, learning_rate 0.00123`."""
    shown = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in params.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
