"""What the store lacks, as one kind of table, and the commands that compute it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.statistics.matrices import specialists_of
from worldrep.names import FINETUNINGS, NO_FT, PLAIN, TASK_NAMES, ModelName
from worldrep.tracking.connection import DEFAULT_EXPERIMENT

MISSING_COLUMNS = ["matrix", "seed", "model", "task", "reason", "command"]


def missing(
    wanted: pd.DataFrame,
    found: pd.DataFrame,
    on: Sequence[str],
    why: Callable[[Any], tuple[str, str]],
) -> pd.DataFrame:
    """Return the rows of `wanted` that `found` lacks (an anti-join), with reason and command.

    Args:
        wanted: The rows that are wanted.
        found: The rows that are there.
        on: Key columns of both tables.
        why: Called with a missing row as a named tuple; returns the reason and the command that
            computes what is missing (empty if there is none).
    """
    keys, there = (pd.MultiIndex.from_frame(table[[*on]]) for table in (wanted, found))
    rows = wanted[~keys.isin(there)]
    facts = [why(row) for row in rows.itertuples()]
    return rows.assign(
        reason=[reason for reason, _ in facts], command=[command for _, command in facts]
    )


def explained(table: pd.DataFrame, gaps: Iterable[pd.DataFrame], on: list[str]) -> pd.DataFrame:
    """Return the table with the columns reason and command: those of all gaps of a row, joined.

    gaps: tables of `missing`; on: key columns of all tables. A row without gaps has empty texts.
    """
    found: dict[Any, tuple[dict[str, None], dict[str, None]]] = {}
    for gap in gaps:
        keys = gap[on].itertuples(index=False, name=None)
        for key, reason, command in zip(keys, gap["reason"], gap["command"], strict=True):
            reasons, commands = found.setdefault(key, ({}, {}))
            reasons[reason] = commands[command] = None
    facts = [found.get(key, ({}, {})) for key in table[on].itertuples(index=False, name=None)]
    return table.assign(
        reason=["; ".join(reasons) for reasons, _ in facts],
        command=[" && ".join(filter(None, commands)) for _, commands in facts],
    )


def missing_table(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Return the rows as a table with MISSING_COLUMNS; task and seed default to empty."""
    empty = {"task": "", "seed": ""}
    return pd.DataFrame([empty | dict(row) for row in rows], columns=MISSING_COLUMNS)


def missing_cells(cells: pd.DataFrame, matrix: str, fts: Sequence[str]) -> pd.DataFrame:
    """Return the missing cells of a matrix of fine-tunings, with MISSING_COLUMNS."""
    absent = cells[cells["ft"].isin(fts) & (cells["reason"] != "")]
    return absent.assign(matrix=matrix, model=absent["ft"])[MISSING_COLUMNS]


def missing_expected(
    cells: pd.DataFrame, matrix: str, fts: Sequence[str], *, actual: bool
) -> pd.DataFrame:
    """Return the missing cells of an expected matrix, explained by the cells that it needs.

    actual: the matrix is actual - expected, which needs the actual cells, too.
    """
    needs = [
        (ft, name)
        for ft in fts
        for name in (*specialists_of(FINETUNINGS[ft], ft), *((ft,) if actual else ()))
    ]
    absent = cells.loc[cells["reason"] != "", ["seed", "ft", "task", "reason", "command"]]
    gaps = pd.DataFrame(needs, columns=["model", "ft"]).merge(absent, on="ft")
    gaps["reason"] = gaps["ft"] + ": " + gaps["reason"]
    wanted = product([matrix], cells["seed"].unique(), fts, TASK_NAMES)
    table = pd.DataFrame(wanted, columns=["matrix", "seed", "model", "task"])
    table = explained(table, [gaps], ["seed", "model", "task"])
    return table[table["reason"] != ""]


@dataclass(frozen=True)
class Commands:
    """Commands that compute what is missing for the models of one scale and world.

    trained: (model, seed) -> run id of the training that represents the model; current: run ids of
    the trainings that a command finds by the model's name.
    """

    scale: str
    world: str
    trained: Mapping[tuple[str, int], str]
    current: Collection[str]
    experiment: str

    def evaluate(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Evaluate a model, after its training if it is not trained."""
        return self._downstream("evaluate", model, seed, **parameters)

    def extract(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Extract a model's representations, after its training if it is not trained."""
        return self._downstream("extract", model, seed, **parameters)

    def _downstream(self, entry: str, model: ModelName, seed: int, **parameters: object) -> str:
        training = self.trained.get((str(model), seed))
        if training and training not in self.current:
            return self._run(entry, run_id=training, **parameters)
        command = self._run(entry, model=model, seed=seed, **parameters, **self._names)
        return command if training else f"{self.train(model, seed)} && {command}"

    def train(self, model: ModelName, seed: int) -> str:
        """Train a model. A fine-tuning trains its base first if that is missing."""
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
        """Evaluate the base of a model. base_run_id: empty if it is not known."""
        return self.evaluate_run(base_run_id) if base_run_id else self.evaluate(model.base, seed)

    def again(self, run_id: str, command: str) -> str:
        """Delete a damaged run, then compute it again by a command."""
        return f"mlflow runs delete --run-id {run_id} && {command}"

    @property
    def _names(self) -> dict[str, str]:
        world = {} if self.world == "standard" else {"world": self.world}
        return {"scale": self.scale} | world

    def _run(self, entry: str, **parameters: object) -> str:
        typed = " ".join(f"-P {name}={value}" for name, value in parameters.items())
        is_usual = self.experiment == DEFAULT_EXPERIMENT
        where = "" if is_usual else f" --experiment-name {shlex.quote(self.experiment)}"
        return f"mlflow run . -e {entry} {typed}{where} --env-manager local"
