"""The run of a sweep: how good its best trial is by trial, and at the end what it was."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from worldrep.stages.common import identity_tags
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.figures import draw
from worldrep.sweeps.storage import shown
from worldrep.sweeps.trial import RUN_ID
from worldrep.tracking import OpenRun, RunSpec

TABLE, BEST, FIGURES = "trials.csv", "best.json", "figures"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def sweep_spec(sweep: Sweep, storage: str) -> RunSpec:
    """The run of a sweep, which may be opened again for more trials."""
    tags = identity_tags(sweep.settings) | {
        "sweep": sweep.name,
        "identity": sweep.identity,
        "searches": sweep.in_words,
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
        ended = [t for t in self._study.get_trials(deepcopy=False) if t.state in ENDED]
        ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        best: dict[str, float] = {}
        for i, trial in enumerate(ended, start=1):
            for goal, value in zip(self._sweep.objectives, trial.values or [], strict=False):
                if trial.state == TrialState.COMPLETE:
                    better = max if goal.higher_is_better else min
                    best[f"best/{goal.name}"] = better(value, best.get(f"best/{goal.name}", value))
            if i > self._written:
                states = [found.state for found in ended[:i]]
                numbers = {f"trials/{s.name.lower()}": float(states.count(s)) for s in ENDED}
                self._run.metrics(i, best | numbers)
        self._written = len(ended)

    def conclude(self) -> tuple[FrozenTrial, ...]:
        """Enter the best trials, a table of all and Optuna's figures; returns the best ones."""
        best = best_trials(self._study)
        facts = [self._facts(trial) for trial in best]
        self._run.tags(
            {
                "worldrep.best_trial": ",".join(str(trial.number) for trial in best)[:4000],
                "worldrep.best_settings": json.dumps([trial.params for trial in best])[:4000],
                "mlflow.note.content": self._note(facts),
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

    def _note(self, facts: list[dict[str, Any]]) -> str:
        """The sweep's description in the UI."""
        states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
        numbers = ", ".join(f"{states.count(s)} {s.name.lower()}" for s in ENDED)
        lines = [f"**{self._sweep.name}** searches {self._sweep.in_words}", ""]
        lines += [f"Trials: {numbers}.", "", "Best:" if facts else "No trial was completed.", ""]
        for fact in facts[:20]:
            values = ", ".join(f"{name} {value:.4f}" for name, value in fact["values"].items())
            lines.append(f"- trial {fact['trial']}: {values}, {json.dumps(fact['settings'])}")
        return "\n".join(lines)


def best_trials(study: optuna.Study) -> tuple[FrozenTrial, ...]:
    """The best completed trial, the earliest of equals; of several objectives the Pareto front."""
    completed = study.get_trials(states=[TrialState.COMPLETE])
    if not completed:
        return ()
    return (study.best_trial,) if len(study.directions) == 1 else tuple(study.best_trials)
