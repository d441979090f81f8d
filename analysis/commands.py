"""The commands that bring a missing value into the store."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities import Run

from analysis.store import is_named, search
from worldrep.errors import InputError
from worldrep.names import NO_FT, ModelName, parse_model
from worldrep.scales import resolve
from worldrep.tracking import Store
from worldrep.tracking.store import DEFAULT_EXPERIMENT


@dataclass(frozen=True)
class Training:
    """A finished training; by_name: its settings are those that its name stands for."""

    run_id: str
    by_name: bool


def trained_models(store: Store, **names: str) -> dict[tuple[str, int], Training]:
    """(model, seed) -> the newest finished training, preferring one that its name stands for."""
    trainings: dict[tuple[str, int], Training] = {}
    for stage in ("pretrain", "finetune"):  # the bases first: a model stands on one
        plain_bases = {training.run_id for training in trainings.values() if training.by_name}
        runs = [run for run in search(store, stage=stage, **names) if is_named(run)]
        for run in sorted(runs, key=lambda run: run.info.end_time or 0):
            tags = run.data.tags
            by_name = _is_plain(run) and tags.get("worldrep.base_run_id") in (None, *plain_bases)
            key = (tags["worldrep.model"], int(tags["worldrep.seed"]))
            if by_name or key not in trainings or not trainings[key].by_name:
                trainings[key] = Training(run.info.run_id, by_name)
    return trainings


def _is_plain(run: Run) -> bool:
    """Whether no setting of a training was overridden."""
    tags, params = run.data.tags, run.data.params
    names = {"scale": tags["worldrep.scale"], "world": tags["worldrep.world"]}
    try:
        model = parse_model(tags["worldrep.model"])
        settings = resolve(model, **names, seed=int(tags["worldrep.seed"])).as_dict()
    except InputError:  # of another version, which knew other names
        return False
    as_named = {f"cfg.{name}": str(value) for name, value in settings.items()}
    return all(params.get(name, value) == value for name, value in as_named.items())


@dataclass(frozen=True)
class Commands:
    """Commands for the models of one scale and world, given what is trained already.

    experiment: its name, if it is not the one that a command would take by itself.
    """

    scale: str
    world: str
    trained: Mapping[tuple[str, int], Training]
    experiment: str | None = None

    @classmethod
    def of(cls, store: Store, *, scale: str, width: str, world: str, pretrain: str) -> Commands:
        """Commands for the models of one pretraining, after a look at what is trained."""
        trained = trained_models(store, scale=scale, width=width, world=world, pretrain=pretrain)
        named = None if store.experiment_name == DEFAULT_EXPERIMENT else store.experiment_name
        return cls(scale, world, trained, named)

    def evaluate(self, model: ModelName, seed: int) -> str:
        """Evaluate a model, after training it if that was not done."""
        training = self.trained.get((str(model), seed))
        if training and not training.by_name:
            return self.evaluate_run(training.run_id)
        command = self._run("evaluate", model=model, seed=seed, **self._names)
        return command if training else f"{self.train(model, seed)} && {command}"

    def train(self, model: ModelName, seed: int) -> str:
        """Train a model; a fine-tuning trains its base first if it has to."""
        width = {} if model.width == "base" else {"width": model.width}
        if model.ft == NO_FT:
            names = {"pretrain": model.pretrain} | width
            return self._run("pretrain", **names, seed=seed, **self._names)
        base = {} if model.pretrain == "pt1" else {"pretrain": model.pretrain}
        return self._run("finetune", ft=model.ft, **base, **width, seed=seed, **self._names)

    def evaluate_run(self, run_id: str) -> str:
        """Evaluate the model of one training run."""
        return self._run("evaluate", run_id=run_id)

    def evaluate_again(self, evaluation_id: str, model_run_id: str) -> str:
        """Put away an evaluation that lacks numbers, and repeat it."""
        return f"mlflow runs delete --run-id {evaluation_id} && {self.evaluate_run(model_run_id)}"

    @property
    def _names(self) -> dict[str, str]:
        world = {} if self.world == "standard" else {"world": self.world}
        return {"scale": self.scale} | world

    def _run(self, entry: str, **parameters: object) -> str:
        typed = " ".join(f"-P {name}={value}" for name, value in parameters.items())
        where = f" --experiment-name {shlex.quote(self.experiment)}" if self.experiment else ""
        return f"mlflow run . -e {entry} {typed}{where} --env-manager local"
