"""Runs as a table, and which of several runs of one model and seed is used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from worldrep.tracking import StoredRun

STAGES = ("pretrain", "finetune")  # whose runs are trainings
COLUMNS = [
    "run_id", "run_name", "model", "ft", "seed", "ended", "model_run_id", "base_run_id", "current",
]  # fmt: skip


def training_id(run: StoredRun) -> str:
    """The training that a run is of: itself if it is one, else the one that it names."""
    return run.id if run.tag("stage") in STAGES else run.tag("model_run_id")


def run_table(runs: Iterable[StoredRun], current: Collection[str]) -> pd.DataFrame:
    """One row per run, in their order: COLUMNS, indexed by run_id.

    current: ids of the trainings that are what their models' names stand for today; as a column,
    whether the run is of one of them.
    """
    rows = [
        (run.id, run.name, run.tag("model"), run.tag("ft"), int(run.tag("seed")),
         pd.Timestamp(run.ended, unit="s", tz="UTC").floor("s"), training_id(run),
         run.tag("base_run_id"), training_id(run) in current)
        for run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS).set_index("run_id").astype({"current": bool})


def choose(
    runs: pd.DataFrame,
    kind: str,
    *,
    keys: Sequence[str] = ("model", "seed"),
    most_layers: bool = False,
) -> pd.DataFrame:
    """Mark one run of each model and seed: of the model as its name stands today, then the newest.

    runs: of `run_table`, the newest first; kind: what one of them is called; keys: columns that
    are the same among runs to choose from; most_layers: one with most `layers` goes before a newer
    one. The runs come back with the columns chosen and why, the one to prefer first.
    """
    runs = runs.assign(n_layers=runs["layers"].map(len) if most_layers else 0)
    runs = runs.sort_values(["current", "n_layers"], ascending=False, kind="stable")
    groups = runs.groupby([*keys], sort=False)
    peers = runs.groupby([*keys, "current"], sort=False)["n_layers"]
    n = runs.groupby([*keys, "current", "n_layers"], sort=False)["ended"].transform("size")
    chosen = groups.cumcount() == 0
    why = "the newest of " + n.astype(str) + f" finished {kind}s"
    why = why.where(n > 1, f"the only finished {kind}")
    why = why.where(runs["n_layers"] == peers.transform("min"), why + " with most layers")
    preferred = runs["current"] & ~groups["current"].transform("all").astype(bool)
    why = why.where(~preferred, why + " of the model as its name stands today")
    return runs.drop(columns="n_layers").assign(chosen=chosen, why=why.where(chosen, "not used"))
