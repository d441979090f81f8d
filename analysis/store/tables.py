"""The tables that every analysis leaves: the runs behind its numbers, and what the store lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

MISSING_COLUMNS = ["matrix", "seed", "model", "task", "reason", "command"]
USED_COLUMNS = ["run_name", "model", "seed", "why", "ended", "model_run_id", "base_run_id"]


def missing_table(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """What is missing, with MISSING_COLUMNS; what a row does not say is empty."""
    unsaid = {"task": "", "seed": ""}
    return pd.DataFrame([unsaid | dict(row) for row in rows], columns=MISSING_COLUMNS)


def used_runs(runs: pd.DataFrame, used: set[str]) -> pd.DataFrame:
    """Those of a table of runs (index run_id, with USED_COLUMNS) that were used."""
    return runs.loc[sorted(used & set(runs.index)), USED_COLUMNS].sort_values(["seed", "model"])
