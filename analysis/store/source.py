"""The experiment that an analysis reads: each search and each download is made once."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from worldrep.disk import TemporaryFolder, fault_text
from worldrep.errors import StateError
from worldrep.names import NO_FT, PLAIN, STRATEGIES
from worldrep.settings import is_seed
from worldrep.tracking import Store, StoredRun, StoreFault, damage_named

T = TypeVar("T")
HELD = ("scale", "width", "world", "pretrain")
Curve = list[tuple[int, float]]  # (step, value), by step


class Source:
    """Finished runs of one experiment; of fine-tuned models, those of one strategy.

    Searches, metric histories and artifacts are cached for the lifetime of the source.
    """

    def __init__(self, store: Store, strategy: str = PLAIN) -> None:
        self.store, self._strategy = store, strategy
        self._found: dict[tuple[tuple[str, str], ...], list[StoredRun]] = {}
        self._unnamed: set[str] = set()
        self._paths: dict[tuple[str, str], Path] = {}
        self._curves: dict[tuple[str, str], Curve] = {}
        self._temporary = TemporaryFolder()

    def runs(self, **tags: str) -> list[StoredRun]:
        """Return finished runs with all these tags (without prefix), the newest first.

        Runs without a model or a seed are left out. Raises StateError if the store does not answer.
        """
        return [run for run in self._named(**tags) if _strategy_of(run) in (None, self._strategy)]

    def _named(self, **tags: str) -> list[StoredRun]:
        key = tuple(sorted(tags.items()))
        if key not in self._found:
            found = self._ask(self.store.find, **tags)
            finished = [run for run in found if run.status == "FINISHED"]
            named = [run for run in finished if _is_named(run)]
            self._unnamed |= {run.id for run in finished} - {run.id for run in named}
            self._found[key] = sorted(named, key=lambda run: (run.ended, run.id), reverse=True)
        return self._found[key]

    def _ask(self, question: Callable[..., Any], *values: str, **tags: str) -> Any:
        try:
            return question(*values, **tags)
        except StoreFault as fault:
            raise StateError(f"cannot read the {self.place}: {fault_text(fault)}") from None

    def tuned_by(self, strategy: str) -> Self:
        """Return the same source, with the same cache, for the models of another strategy."""
        view = copy.copy(self)
        view._strategy = strategy
        return view

    def strategies(self, **tags: str) -> tuple[str, ...]:
        """Return the strategies of all runs with these tags."""
        found = {_strategy_of(run) for run in self._named(**tags)}
        return tuple(strategy for strategy in STRATEGIES if strategy in found)

    def path(self, run_id: str, artifact: str) -> Path:
        """Return a copy of an artifact, file or folder. Raises StateError if it is not there.

        Read it by `read`, as others may have written it.
        """
        key = run_id, artifact
        if key not in self._paths:
            folder = self._temporary.path / run_id
            folder.mkdir(exist_ok=True)
            self._paths[key] = self.store.artifact(run_id, artifact, folder)
        return self._paths[key]

    def read(self, run_id: str, artifact: str, reader: Callable[[Path], T]) -> T:
        """Return what a function reads from an artifact. StateError if that is damaged."""
        with damage_named(run_id, artifact):
            return reader(self.path(run_id, artifact))

    def curve(self, run_id: str, metric: str) -> Curve:
        """Return the values of a metric by step; of several values at a step, the last logged."""
        key = run_id, metric
        if key not in self._curves:
            self._curves[key] = self._ask(self.store.history, run_id, metric)
        return self._curves[key]

    @property
    def caveats(self) -> list[str]:
        """Say how many finished runs were left out because they have no model or no seed."""
        n = len(self._unnamed)
        runs = "1 finished run does" if n == 1 else f"{n} finished runs do"
        return [f"{runs} not say of which model and seed: left out"] if n else []

    @property
    def place(self) -> str:
        """The experiment and the address of its store, for messages."""
        return f"experiment {self.store.experiment_name!r} of the store at {self.store.address}"

    def held(self, stage: str) -> str:
        """Count the finished runs of a stage by their names, for messages."""
        kinds = Counter(
            ", ".join(f"{key} {run.tag(key) or 'unknown'}" for key in HELD)
            for run in self.runs(stage=stage)
        )
        return "; ".join(f"{count} of {name}" for name, count in sorted(kinds.items()))


def _strategy_of(run: StoredRun) -> str | None:
    """Return the strategy that the run's model was fine-tuned by; None for a base."""
    return None if run.tag("ft") in ("", NO_FT) else run.tag("strategy")


def _is_named(run: StoredRun) -> bool:
    return bool(run.tag("model")) and is_seed(run.tag("seed"))
