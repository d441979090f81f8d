"""The commands that bring a missing value into the store."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from analysis.options import Options
from analysis.store.source import Source
from worldrep.names import NO_FT, PLAIN, ModelName
from worldrep.tracking import DEFAULT_EXPERIMENT


@dataclass(frozen=True)
class Commands:
    """Commands for the models of one scale and world, given what is trained already.

    trained: (model, seed) -> id of the training that stands for it; current: ids of those that a
    command which names their model finds; experiment: its name, if it is not the one that a command
    takes by itself.
    """

    scale: str
    world: str
    trained: Mapping[tuple[str, int], str]
    current: Collection[str]
    experiment: str | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        options: Options,
        trained: Mapping[tuple[str, int], str],
        current: Collection[str],
    ) -> Commands:
        """Commands for the experiment that is read, and the scale and world of the options."""
        name = source.store.experiment_name
        experiment = None if name == DEFAULT_EXPERIMENT else name
        return cls(options.scale, options.world, trained, current, experiment)

    def evaluate(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Evaluate a model, after training it if that was not done."""
        return self._downstream("evaluate", model, seed, **parameters)

    def extract(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Extract a model's representations, after training it if that was not done."""
        return self._downstream("extract", model, seed, **parameters)

    def _downstream(self, entry: str, model: ModelName, seed: int, **parameters: object) -> str:
        training = self.trained.get((str(model), seed))
        if training and training not in self.current:
            return self._run(entry, run_id=training, **parameters)
        command = self._run(entry, model=model, seed=seed, **parameters, **self._names)
        return command if training else f"{self.train(model, seed)} && {command}"

    def train(self, model: ModelName, seed: int) -> str:
        """Train a model; a fine-tuning trains its base first if it has to."""
        width = {} if model.width == "base" else {"width": model.width}
        if model.ft == NO_FT:
            names = {"pretrain": model.pretrain} | width
            return self._run("pretrain", **names, seed=seed, **self._names)
        names = {"ft": model.ft}
        names |= {} if model.strategy == PLAIN else {"strategy": model.strategy}
        names |= {} if model.pretrain == "pt1" else {"pretrain": model.pretrain}
        return self._run("finetune", **names, **width, seed=seed, **self._names)

    def evaluate_run(self, run_id: str, **parameters: object) -> str:
        """Evaluate the model of one training run."""
        return self._run("evaluate", run_id=run_id, **parameters)

    def evaluate_base(self, model: ModelName, seed: int, base_run_id: str) -> str:
        """Evaluate what a model started from. base_run_id: empty if the model does not say."""
        if base_run_id:
            return self.evaluate_run(base_run_id)
        return self.evaluate(model.base, seed)

    def again(self, run_id: str, command: str) -> str:
        """Put away a run that is not as it should be, and make it anew by a command."""
        return f"mlflow runs delete --run-id {run_id} && {command}"

    @property
    def _names(self) -> dict[str, str]:
        world = {} if self.world == "standard" else {"world": self.world}
        return {"scale": self.scale} | world

    def _run(self, entry: str, **parameters: object) -> str:
        typed = " ".join(f"-P {name}={value}" for name, value in parameters.items())
        where = f" --experiment-name {shlex.quote(self.experiment)}" if self.experiment else ""
        return f"mlflow run . -e {entry} {typed}{where} --env-manager local"
