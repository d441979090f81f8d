"""Objectives of a sweep: metrics of the evaluation, or means of the normalised improvement."""

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
    """A number to maximise or minimise.

    Args:
        name: `transfer` and `trained` are means of the normalised improvement on Atlantis, over
            the tasks that the model was not, and was, fine-tuned on. `retention` is the mean of
            the same formula on standard questions over all tasks: 1 means that nothing was
            forgotten, 0 that the model does as badly as its base does on Atlantis. Any other name
            is a metric of the evaluation, such as `atlantis/angle/mean`.

    Raises:
        InputError: The name is unknown.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name in (*AGGREGATES, *SINGLE):
            return
        if "/" not in self.name:
            raise unknown("objective", self.name, (*AGGREGATES, "SPLIT/TASK/mean"))
        hint = str(unknown("objective", self.name, SINGLE)).split("; allowed")[0]
        raise InputError(
            f"{hint}; allowed: {', '.join(AGGREGATES)}, or SPLIT/TASK/FACT with SPLIT one of "
            f"{', '.join(SPLITS)}, FACT one of {', '.join(FACTS)}"
        )

    @property
    def needs_base(self) -> bool:
        """Whether it compares a fine-tuned model with its base."""
        return self.name in AGGREGATES

    @property
    def higher_is_better(self) -> bool:
        """Whether it is maximised."""
        if self.needs_base or self.name.endswith("/valid_ratio"):
            return True
        return TASKS[self.name.split("/")[1]].accuracy

    def is_validated(self, settings: Settings) -> bool:
        """Whether the validations during a training measure it as well."""
        if self.needs_base:
            return True
        suite, _, fact = self.name.rpartition("/")
        return suite in validation_sets(settings) and fact in VALIDATED_FACTS

    def value(self, metrics: Metrics, base: Metrics, settings: Settings) -> float:
        """Compute the objective from the metrics of a model and of its base.

        Raises:
            KeyError: A metric is missing.
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
    """Parse objectives such as `transfer,retention`, each at most once.

    Raises:
        InputError: A name is unknown, or needs a base and the model is a pretraining.
    """
    found = tuple(dict.fromkeys(Objective(part.strip()) for part in text.split(",")))
    for objective in found:
        if objective.needs_base and not settings.is_finetuning:
            raise InputError(
                f"objective={objective.name} compares a fine-tuning with its base; a pretraining "
                "has single numbers, such as standard/angle/mean"
            )
    return found
