"""The commands that bring a missing value into the store."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from analysis.reading.source import Source
from analysis.reading.trainings import Training, Trainings
from worldrep.names import NO_FT, ModelName
from worldrep.tracking.store import DEFAULT_EXPERIMENT


@dataclass(frozen=True)
class Commands:
    """Commands for the models of one scale and world, given what is trained already.

    trained: (model, seed) -> the training that stands for it; experiment: its name, if it is not
    the one that a command would take by itself.
    """

    scale: str
    world: str
    trained: dict[tuple[str, int], Training]
    experiment: str | None = None

    @classmethod
    def of(cls, source: Source, trainings: Trainings, *, scale: str, world: str) -> Commands:
        """trainings: the newest first; a current one stands for its model rather than another."""
        trained: dict[tuple[str, int], Training] = {}
        for training in sorted(trainings.values(), key=lambda training: not training.current):
            run = training.run
            trained.setdefault((run.tag("model"), int(run.tag("seed"))), training)
        name = source.store.experiment_name
        return cls(scale, world, trained, None if name == DEFAULT_EXPERIMENT else name)

    def evaluate(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Evaluate a model, after training it if that was not done."""
        return self._downstream("evaluate", model, seed, **parameters)

    def extract(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Extract a model's representations, after training it if that was not done."""
        return self._downstream("extract", model, seed, **parameters)

    def _downstream(self, entry: str, model: ModelName, seed: int, **parameters: object) -> str:
        training = self.trained.get((str(model), seed))
        if training and not training.current:
            return self._run(entry, run_id=training.run.id, **parameters)
        command = self._run(entry, model=model, seed=seed, **parameters, **self._names)
        return command if training else f"{self.train(model, seed)} && {command}"

    def train(self, model: ModelName, seed: int) -> str:
        """Train a model; a fine-tuning trains its base first if it has to."""
        width = {} if model.width == "base" else {"width": model.width}
        if model.ft == NO_FT:
            names = {"pretrain": model.pretrain} | width
            return self._run("pretrain", **names, seed=seed, **self._names)
        base = {} if model.pretrain == "pt1" else {"pretrain": model.pretrain}
        return self._run("finetune", ft=model.ft, **base, **width, seed=seed, **self._names)

    def evaluate_run(self, run_id: str, **parameters: object) -> str:
        """Evaluate the model of one training run."""
        return self._run("evaluate", run_id=run_id, **parameters)

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
