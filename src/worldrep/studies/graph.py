"""The steps of a study as a graph, and its division into shards."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from worldrep.data.sets import maker_of
from worldrep.errors import InputError, shown
from worldrep.evaluation.representations import Request
from worldrep.scales import base_settings
from worldrep.settings import Settings, whole_number
from worldrep.stages.estimate import Work
from worldrep.stages.plan import (
    LAST,
    TrainingPlan,
    evaluation_fingerprint,
    extraction_fingerprint,
    run_name,
)
from worldrep.studies.definition import Definition

MOST_SHARDS = 10_000


@dataclass(frozen=True)
class Step:
    """One step of a study: train, evaluate or extract.

    needs: fingerprint of the training that it starts from, or empty; listed: the study names the
    model, rather than only needing it; checkpoints: that are evaluated or extracted, last or all.
    """

    kind: str
    settings: Settings
    fingerprint: str
    needs: str
    configuration: str
    listed: bool
    checkpoints: str

    @cached_property
    def work(self) -> Work:
        count = 1 if self.checkpoints == LAST else self.settings.n_checkpoints
        return Work(self.kind, self.settings, checkpoints=count)

    @cached_property
    def cost(self) -> float:
        """Rows times weights."""
        return self.work.cost

    @property
    def stage(self) -> str:
        return self.settings.training_stage if self.kind == "train" else self.kind

    @property
    def title(self) -> str:
        return run_name(self.settings, self.stage, self.checkpoints)


@dataclass(frozen=True)
class Graph:
    """The steps of a study by fingerprint, each after the one that it needs."""

    definition: Definition
    steps: dict[str, Step]

    @cached_property
    def dependants(self) -> dict[str, list[Step]]:
        found: dict[str, list[Step]] = {fingerprint: [] for fingerprint in self.steps}
        for step in self.steps.values():
            if step.needs:
                found[step.needs].append(step)
        return found

    @cached_property
    def urgency(self) -> dict[str, float]:
        """The cost of a step and of all steps that depend on it. The largest begins first."""
        total: dict[str, float] = {}
        for fingerprint, step in reversed(self.steps.items()):
            after = sum(total[other.fingerprint] for other in self.dependants[fingerprint])
            total[fingerprint] = step.cost + after
        return total

    @cached_property
    def n_bases(self) -> int:
        """The number of trainings that start from new weights."""
        return sum(step.kind == "train" and not step.needs for step in self.steps.values())

    @property
    def parallel(self) -> int:
        """The largest number of trainings that can run at once: all bases, or all others."""
        trainings = sum(step.kind == "train" for step in self.steps.values())
        return max(self.n_bases, trainings - self.n_bases)

    def by_model(self) -> dict[Settings, dict[str, Step]]:
        models: dict[Settings, dict[str, Step]] = {}
        for step in self.steps.values():
            models.setdefault(step.settings, {})[step.kind] = step
        return models


def expand(definition: Definition) -> Graph:
    """Return the steps of a study. Raises InputError for a world that cannot be made.

    A fine-tuned model starts from the study's base if that is listed, else from the scale's own.
    """
    listed = {(s.model_name, s.world, s.seed): s for s in definition.resolved}
    steps: dict[str, Step] = {}
    trainings: dict[Settings, Step] = {}

    def add(settings: Settings, is_listed: bool, kinds: Iterable[str]) -> Step:
        """Add steps of a model after its base's training; return the model's own training."""
        if settings in trainings and not kinds:
            return trainings[settings]
        base = None
        if settings.is_finetuning:
            key = settings.model_name.base, settings.world, settings.seed
            base = add(listed.get(key, base_settings(settings)), key in listed, ())
        identities = _identities(settings, base, definition.checkpoints)
        trained, _ = identities["train"]
        for kind in ("train", *kinds):
            fingerprint, configuration = identities[kind]
            needs = trained if kind != "train" else base.fingerprint if base else ""
            own = LAST if kind == "train" else definition.checkpoints
            step = Step(kind, settings, fingerprint, needs, configuration, is_listed, own)
            steps.setdefault(fingerprint, step)
        trainings[settings] = steps[trained]
        return steps[trained]

    kinds = [kind for kind in ("evaluate", "extract") if kind in definition.steps]
    for settings in definition.resolved:
        add(settings, True, kinds)
    return Graph(definition, steps)


def _identities(
    settings: Settings, base: Step | None, checkpoints: str
) -> dict[str, Sequence[str]]:
    """Return the fingerprint and configuration of a model's steps by kind."""
    maker, plan = maker_of(settings), TrainingPlan.of(settings, base)
    choice = LAST if checkpoints == LAST else plan.checkpoints
    request = Request.parse(settings, "default", "default", "default").as_dict()
    trained = plan.fingerprint, plan.configuration
    evaluated = [evaluation_fingerprint(maker, settings, model, choice) for model in trained]
    extracted = [extraction_fingerprint(maker, model, request, choice) for model in trained]
    return {"train": trained, "evaluate": evaluated, "extract": extracted}


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` parts of a study, for drivers that do not communicate."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `2/7`, the second of seven. Raises InputError for anything else."""
        numbers = re.fullmatch(r"\s*([0-9]+)\s*/\s*([0-9]+)\s*", text)
        if not numbers:
            raise InputError(f"shard={shown(text)} is not of the form 2/7, the second of seven")
        shard = cls(*(whole_number("shard", number, 0, MOST_SHARDS) for number in numbers.groups()))
        if not 1 <= shard.index <= shard.count:
            raise InputError(f"shard={text!r}: the first number must be from 1 to the second")
        return shard

    def steps_of(self, graph: Graph) -> set[str]:
        """Return the fingerprints of this part's steps; all steps of a model are in one part.

        Models go by falling cost to the part with the least so far, whatever the store holds.
        """
        loads = [0.0] * self.count
        models = [list(steps.values()) for steps in graph.by_model().values()]
        own: set[str] = set()
        for steps in sorted(models, key=lambda steps: -sum(step.cost for step in steps)):
            part = loads.index(min(loads))
            loads[part] += sum(step.cost for step in steps)
            if part == self.index - 1:
                own |= {step.fingerprint for step in steps}
        return own
