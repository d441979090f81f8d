"""What a sweep makes large or small: numbers of the evaluation, by name.

`transfer` and `trained` are means over the tasks that were not, and that were, trained on, of the
normalised improvement on Atlantis; `retention` is the mean over all tasks of the same formula for
standard questions: 1 where nothing was forgotten, 0 where the model is as bad at the cities that
its base knows as the base is at Atlantis. A single number is called as in the evaluation, such as
`atlantis/angle/mean`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from worldrep.data.sets import validation_sets
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError, unknown
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.evaluation.suites import VALIDATED_FACTS
from worldrep.names import TASK_NAMES
from worldrep.settings import Settings

Metrics = Mapping[str, float]  # `<split>/<task>/<fact>` -> value

AGGREGATES = ("transfer", "trained", "retention")
SPLITS = ("standard", "atlantis", "multi")
FACTS = ("mean", "median", "valid_ratio")
SINGLE = tuple(
    f"{split}/{task}/{fact}" for split in SPLITS for task in TASK_NAMES for fact in FACTS
)


@dataclass(frozen=True)
class Objective:
    """A number to make large or small. Raises InputError for a name that is none."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in (*AGGREGATES, *SINGLE):
            names = ", ".join(AGGREGATES)
            if "/" not in self.name:
                raise unknown("objective", self.name, (*AGGREGATES, "SPLIT/TASK/mean"))
            fault = unknown("objective", self.name, SINGLE)
            hint = str(fault).split("; allowed")[0]
            raise InputError(
                f"{hint}; allowed: {names}, or SPLIT/TASK/FACT with SPLIT one of "
                f"{', '.join(SPLITS)}, FACT one of {', '.join(FACTS)}"
            )

    @property
    def needs_base(self) -> bool:
        """Whether it compares with the base that a fine-tuning started from."""
        return self.name in AGGREGATES

    @property
    def higher_is_better(self) -> bool:
        if self.needs_base or self.name.endswith("/valid_ratio"):
            return True
        return TASKS[self.name.split("/")[1]].accuracy

    def is_validated(self, settings: Settings) -> bool:
        """Whether the validations during a training show it too."""
        if self.needs_base:
            return True
        split, _, fact = self.name.split("/")
        shown = {name.split("/")[0] for name in validation_sets(settings)}
        return split in shown and fact in VALIDATED_FACTS

    def value(self, metrics: Metrics, base: Metrics, settings: Settings) -> float:
        """The objective of a model from its metrics and its base's, of the same questions.

        Raises KeyError when a metric is not there.
        """
        if not self.needs_base:
            return metrics[self.name]
        split = "standard" if self.name == "retention" else "atlantis"
        return fmean(
            normalized_improvement(
                metrics[f"{split}/{task}/mean"],
                base[f"atlantis/{task}/mean"],
                base[f"standard/{task}/mean"],
                TASKS[task].accuracy,
            )
            for task in self._tasks(settings)
        )

    def _tasks(self, settings: Settings) -> list[str]:
        if self.name == "retention":
            return list(TASK_NAMES)
        trained = self.name == "trained"
        return [task for task in TASK_NAMES if (task in settings.tasks) == trained]


def parse_objectives(text: str, settings: Settings) -> tuple[Objective, ...]:
    """`transfer,retention` -> two objectives, each once.

    Raises InputError for a name that is not known, or that the model has no such number for.
    """
    found = tuple(dict.fromkeys(Objective(part.strip()) for part in text.split(",")))
    for objective in found:
        if objective.needs_base and not settings.is_finetuning:
            raise InputError(
                f"objective={objective.name} compares a fine-tuning with its base; a pretraining "
                "has single numbers, such as standard/angle/mean"
            )
    return found
