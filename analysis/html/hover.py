"""What a page says of the thing that the mouse is on, as plotly's own small HTML.

Every text is escaped: names and tags are the users', and are shown as they are.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Links:
    """Where runs can be seen: the address of an MLflow server, and the experiment's id."""

    server: str
    experiment_id: str

    def of(self, run_id: object) -> str:
        """The address of a run; empty without a run."""
        if not isinstance(run_id, str) or not run_id:
            return ""
        return f"{self.server.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{run_id}"


def escaped(value: object) -> str:
    """A value as text that plotly shows as it is."""
    return html.escape(_plain(value))


def hover_text(facts: Mapping[str, Any]) -> str:
    """One line for each fact that there is; of a run only that a click leads to it."""
    lines = [
        f"{escaped(name.replace('_', ' '))}: <b>{escaped(value)}</b>"
        for name, value in facts.items()
        if name != "run_id" and not _is_none(value)
    ]
    if facts.get("run_id"):
        lines.append("<i>click: its run in MLflow</i>")
    return "<br>".join(lines)


def hover_texts(rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The hover text of every row, of those of the columns that the table has."""
    known = [column for column in columns if column in rows.columns]
    return [hover_text(facts) for facts in rows[known].to_dict("records")]


def _is_none(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
