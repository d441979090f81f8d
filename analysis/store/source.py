"""Where an analysis reads: one experiment of a store, every search and every download made once."""

from __future__ import annotations

import copy
import re
import tempfile
from collections import Counter
from pathlib import Path

from worldrep.errors import StateError
from worldrep.names import NO_FT, PLAIN, STRATEGIES
from worldrep.tracking import Store, StoredRun, StoreFault

Curve = list[tuple[int, float]]


class Source:
    """Finished runs of one experiment, through MLflow's search and artifact download alone.

    Of what was fine-tuned, those of one strategy: others are other models. What was read is kept
    for as long as the source lives, files in a temporary folder.
    """

    def __init__(self, store: Store, strategy: str = PLAIN) -> None:
        self.store, self._strategy = store, strategy
        self._found: dict[tuple[tuple[str, str], ...], list[StoredRun]] = {}
        self._unnamed: set[str] = set()
        self._paths: dict[tuple[str, str], Path] = {}
        self._curves: dict[tuple[str, str], Curve] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="worldrep-")

    def runs(self, **tags: str) -> list[StoredRun]:
        """Finished runs with all these tags (without prefix), the newest first.

        Runs that do not say of which model and seed they are do not count. Raises StateError when
        the store does not answer.
        """
        return [run for run in self._named(**tags) if _strategy_of(run) in (None, self._strategy)]

    def _named(self, **tags: str) -> list[StoredRun]:
        """The same, of all strategies."""
        key = tuple(sorted(tags.items()))
        if key not in self._found:
            try:
                found = self.store.find(**tags)
            except StoreFault as fault:
                raise self._silent(fault) from None
            finished = [run for run in found if run.status == "FINISHED"]
            named = [run for run in finished if is_named(run)]
            self._unnamed |= {run.id for run in finished} - {run.id for run in named}
            self._found[key] = sorted(named, key=lambda run: (run.ended, run.id), reverse=True)
        return self._found[key]

    def tuned_by(self, strategy: str) -> Source:
        """The same source for the fine-tunings of another strategy."""
        view = copy.copy(self)  # which shares what was read
        view._strategy = strategy
        return view

    def strategies(self, **tags: str) -> tuple[str, ...]:
        """The strategies that the runs with these tags are of, whichever this source is for."""
        found = {_strategy_of(run) for run in self._named(**tags)}
        return tuple(strategy for strategy in STRATEGIES if strategy in found)

    def path(self, run_id: str, artifact: str) -> Path:
        """A copy of an artifact, file or folder. Raises StateError when it is not there."""
        key = run_id, artifact
        if key not in self._paths:
            folder = Path(self._temporary.name) / run_id
            folder.mkdir(exist_ok=True)
            try:
                found = self.store.client.download_artifacts(run_id, artifact, str(folder))
            except (StoreFault, OSError):
                raise StateError(f"run {run_id} has no artifact {artifact}") from None
            self._paths[key] = Path(found)
        return self._paths[key]

    def curve(self, run_id: str, metric: str) -> Curve:
        """(step, value) of a metric, by step; the last value that was logged for each step."""
        key = run_id, metric
        if key not in self._curves:
            try:
                points = self.store.client.get_metric_history(run_id, metric)
            except StoreFault as fault:
                raise self._silent(fault) from None
            points = sorted(points, key=lambda point: (point.step, point.timestamp))
            self._curves[key] = sorted({point.step: point.value for point in points}.items())
        return self._curves[key]

    @property
    def caveats(self) -> list[str]:
        """A sentence about the runs that were left out for want of a name, if there are any."""
        n = len(self._unnamed)
        if not n:
            return []
        runs = "1 finished run does" if n == 1 else f"{n} finished runs do"
        return [f"{runs} not say of which model and seed: left out"]

    @property
    def place(self) -> str:
        """Where this is, for messages."""
        return f"experiment {self.store.experiment_name!r} of the store at {self.store.address}"

    def held(self, stage: str) -> str:
        """How many finished runs of a stage there are, by what they are of; for messages."""
        keys = ("scale", "width", "world", "pretrain")
        kinds = Counter(
            ", ".join(f"{key} {run.tag(key) or 'unknown'}" for key in keys)
            for run in self.runs(stage=stage)
        )
        return "; ".join(f"{count} of {name}" for name, count in sorted(kinds.items()))

    def _silent(self, fault: Exception) -> StateError:
        return StateError(f"cannot read the {self.place}: {self.store.words_of(fault)}")


def _strategy_of(run: StoredRun) -> str | None:
    """The strategy that a run's model was fine-tuned by; None for a base. (Before there were
    strategies, runs did not say.)"""
    return None if run.tag("ft") in ("", NO_FT) else run.tag("strategy") or PLAIN


def is_named(run: StoredRun) -> bool:
    """Whether a run says which model and which seed it is about."""
    return bool(run.tag("model")) and re.fullmatch(r"[0-9]{1,9}", run.tag("seed")) is not None
