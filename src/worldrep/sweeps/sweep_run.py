"""The run of a sweep: how good its best trial is by trial, and at the end what it was."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from worldrep.stages.provenance import identity_tags
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.figures import draw
from worldrep.sweeps.objectives import Objective
from worldrep.sweeps.storage import shown
from worldrep.sweeps.trial import RUN_ID
from worldrep.tracking import OpenRun, RunSpec

LONGEST_TAG = 4000
MOST_NAMED = 20  # best trials in the description
TABLE, BEST, FIGURES = "trials.csv", "best.json", "figures"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def sweep_spec(sweep: Sweep, storage: str) -> RunSpec:
    """The run of a sweep, which may be opened again for more trials."""
    tags = identity_tags(sweep.settings) | {
        "sweep": sweep.name,
        "identity": sweep.identity,
        "searches": sweep.searches,
        "storage": shown(storage),
        "objectives": ",".join(objective.name for objective in sweep.objectives),
    }
    values = sweep.settings.as_dict()
    return RunSpec("sweep", sweep.title, sweep.fingerprint, tags, values, repeatable=True)


class SweepRun:
    """Writes to the run of a sweep what Optuna's study says."""

    def __init__(self, run: OpenRun, sweep: Sweep, study: optuna.Study) -> None:
        self.id = run.id
        self._run, self._sweep, self._study, self._written = run, sweep, study, 0

    def write(self) -> None:
        """Enter the best values so far, by how many trials had ended."""
        numbers = progress(self._study.get_trials(deepcopy=False), self._sweep.objectives)
        for i in range(self._written, len(numbers)):
            self._run.metrics(i + 1, numbers[i])
        self._written = len(numbers)

    def conclude(self) -> tuple[FrozenTrial, ...]:
        """Enter the best trials, a table of all and Optuna's figures; returns the best ones."""
        best = best_trials(self._study)
        facts = [self._facts(trial) for trial in best]
        self._run.tags(
            {
                "worldrep.best_trial": _short(",".join(str(trial.number) for trial in best)),
                "worldrep.best_settings": _short(json.dumps([trial.params for trial in best])),
                "mlflow.note.content": self._note(best),
            }
        )
        with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
            folder = Path(temporary)
            (folder / BEST).write_text(json.dumps(facts, indent=1))
            self._run.artifact(folder / BEST)
            self._study.trials_dataframe().to_csv(folder / TABLE, index=False)
            self._run.artifact(folder / TABLE)
            for path in draw(self._study, self._sweep, folder):
                self._run.artifact(path, FIGURES)
        return best

    def _facts(self, trial: FrozenTrial) -> dict[str, Any]:
        names = [objective.name for objective in self._sweep.objectives]
        return {
            "trial": trial.number,
            "run_id": trial.user_attrs.get(RUN_ID),
            "values": dict(zip(names, trial.values, strict=True)),
            "settings": trial.params,
        }

    def _note(self, best: Sequence[FrozenTrial]) -> str:
        """The sweep's description in the UI."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        numbers = ", ".join(f"{states.count(s)} {s.name.lower()}" for s in ENDED)
        lines = [f"**{self._sweep.name}** searches {self._sweep.searches}", ""]
        lines += [f"Trials: {numbers}.", "", "Best:" if best else "No trial was completed.", ""]
        lines += [f"- trial {t.number}: {self._sweep.outcome(t)}" for t in best[:MOST_NAMED]]
        return "\n".join(lines)


def progress(
    trials: Sequence[FrozenTrial], objectives: Sequence[Objective]
) -> list[dict[str, float]]:
    """After each trial that ended, in the order in which they did: `best/<objective>` so far, and
    `trials/complete`, `trials/pruned`, `trials/fail`.
    """
    ended = [trial for trial in trials if trial.state in ENDED]
    ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    numbers = {f"trials/{state.name.lower()}": 0.0 for state in ENDED}
    found = []
    for trial in ended:
        numbers[f"trials/{trial.state.name.lower()}"] += 1
        for goal, value in zip(objectives, trial.values or [], strict=False):
            if trial.state == TrialState.COMPLETE:  # a pruned one has the value it was pruned at
                better = max if goal.higher_is_better else min
                name = f"best/{goal.name}"
                numbers[name] = better(value, numbers.get(name, value))
        found.append(dict(numbers))
    return found


def best_trials(study: optuna.Study) -> tuple[FrozenTrial, ...]:
    """The best completed trial, the earliest of equals; of several objectives the Pareto front."""
    completed = study.get_trials(states=[TrialState.COMPLETE])
    if not completed:
        return ()
    return (study.best_trial,) if len(study.directions) == 1 else tuple(study.best_trials)


def _short(text: str) -> str:
    """A text as a tag, or where to find it."""
    return text if len(text) <= LONGEST_TAG else f"see {BEST}"
