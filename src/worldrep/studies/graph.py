"""A study as a graph of steps: a base is trained before what is fine-tuned from it, and so on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from worldrep.data.rows import RowMaker
from worldrep.data.sets import maker_of, suite_sets, training_sets
from worldrep.evaluation.representations import Request
from worldrep.scales import base_settings
from worldrep.settings import Settings
from worldrep.stages.plan import (
    evaluation_fingerprint,
    extraction_fingerprint,
    seedless,
    training_fingerprint,
)
from worldrep.studies.definition import Definition

FORWARD_SHARE = 1 / 3  # of a training step's arithmetic
ANSWER_TOKENS = 6  # tokens generated for a question, about


@dataclass(frozen=True)
class Step:
    """One piece of work.

    kind: train, evaluate or extract; needs: fingerprint of the training that it stands on, empty
    for a pretraining; configuration: fingerprint without the seed; listed: the study names its
    model (and does not only need it); cost: in rows times parameters, for comparison alone.
    """

    kind: str
    settings: Settings
    fingerprint: str
    needs: str
    configuration: str
    listed: bool
    cost: float

    @property
    def stage(self) -> str:
        """The stage of its run."""
        return self.settings.training_stage if self.kind == "train" else self.kind

    @property
    def title(self) -> str:
        """As its run is called."""
        return self.settings.run_name(self.stage)


@dataclass(frozen=True)
class Graph:
    """The steps of a study by fingerprint, each after the one that it needs."""

    definition: Definition
    steps: dict[str, Step]

    @cached_property
    def dependants(self) -> dict[str, list[Step]]:
        """Steps that need a step, by its fingerprint."""
        found: dict[str, list[Step]] = {fingerprint: [] for fingerprint in self.steps}
        for step in self.steps.values():
            if step.needs:
                found[step.needs].append(step)
        return found

    @cached_property
    def urgency(self) -> dict[str, float]:
        """The cost of a step and of all that stands on it: what is begun first."""
        total: dict[str, float] = {}
        for fingerprint, step in reversed(self.steps.items()):
            after = sum(total[other.fingerprint] for other in self.dependants[fingerprint])
            total[fingerprint] = step.cost + after
        return total

    def by_model(self) -> dict[Settings, dict[str, Step]]:
        """Steps by kind of every model, in order."""
        models: dict[Settings, dict[str, Step]] = {}
        for step in self.steps.values():
            models.setdefault(step.settings, {})[step.kind] = step
        return models


def expand(definition: Definition) -> Graph:
    """The steps of a study. A base that it does not list is trained, and nothing more.

    A fine-tuned model starts from the study's own base if that is listed, with the same overrides;
    else from the one that the scale describes. Raises InputError for a world that cannot be made.
    """
    models = definition.resolved
    listed = {(s.model_name, s.world, s.seed): s for s in models}
    steps: dict[str, Step] = {}

    def train(settings: Settings, is_listed: bool) -> Step:
        base = None
        if settings.is_finetuning:
            key = settings.model_name.base, settings.world, settings.seed
            base = train(listed.get(key, base_settings(settings)), key in listed)
        step = _training(settings, base, is_listed)
        return steps.setdefault(step.fingerprint, step)

    for settings in models:
        trained = train(settings, True)
        for step in _downstream(settings, trained, definition.steps):
            steps.setdefault(step.fingerprint, step)
    return Graph(definition, steps)


def _training(settings: Settings, base: Step | None, is_listed: bool) -> Step:
    maker = maker_of(settings)
    own, shared = (base.fingerprint, base.configuration) if base else (None, None)
    fingerprint = training_fingerprint(maker, settings, own)
    configuration = training_fingerprint(maker, seedless(settings), shared)
    rows = settings.epochs * sum(rowset.rows for rowset in training_sets(settings, maker.world))
    cost = float(rows * parameters(settings))
    return Step("train", settings, fingerprint, own or "", configuration, is_listed, cost)


def _downstream(settings: Settings, trained: Step, kinds: Iterable[str]) -> Iterable[Step]:
    maker, size = maker_of(settings), FORWARD_SHARE * parameters(settings)
    if "evaluate" in kinds:
        own, shared = (
            evaluation_fingerprint(maker, settings, model)
            for model in (trained.fingerprint, trained.configuration)
        )
        rows = sum(rowset.rows for rowset in suite_sets(settings).values())
        cost = rows * (1 + ANSWER_TOKENS / 10) * size
        yield Step("evaluate", settings, own, trained.fingerprint, shared, True, cost)
    if "extract" in kinds:
        own, shared = (
            _extraction_fingerprint(maker, settings, model)
            for model in (trained.fingerprint, trained.configuration)
        )
        cost = len(maker.world.cities) * size
        yield Step("extract", settings, own, trained.fingerprint, shared, True, cost)


def _extraction_fingerprint(maker: RowMaker, settings: Settings, model: str) -> str:
    request = Request.parse(settings, "default", "default", "default")
    return extraction_fingerprint(maker, model, request.as_dict())


def parameters(settings: Settings) -> int:
    """Weights of the decoder's layers, which arithmetic is proportional to."""
    hidden = settings.hidden_size
    return settings.n_layers * hidden * (4 * hidden + 3 * settings.intermediate_size)
