"""What an analysis comes to: figures with their tables, statistics, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from analysis.options import Options


class Part(Protocol):
    """One figure of an analysis."""

    @property
    def name(self) -> str:
        """Of its files, without ending."""

    @property
    def title(self) -> str:
        """Of its figure."""

    @property
    def lines(self) -> Sequence[str]:
        """How it is to be read."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences below it."""

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """What it shows, by file name without ending."""

    @property
    def statistics(self) -> Mapping[str, Any]:
        """JSON-able numbers by name."""

    @property
    def said(self) -> Sequence[str]:
        """Lines that are printed."""

    def draw(self, about: str) -> Figure:
        """The figure. about: small print that says where the numbers come from."""


@dataclass(frozen=True)
class Result:
    """The outcome of an analysis.

    tables: further ones, by file name; statistics: further ones, by name; missing: what the store
    lacks, a `missing_table`; runs_used: the runs behind the numbers, by run id, and why they were
    chosen; caveats: sentences that a reader has to know; tags: for its run, without prefix;
    pages: texts by file name.
    """

    name: str
    options: Options
    seeds: Sequence[int]
    parts: Sequence[Part]
    missing: pd.DataFrame
    runs_used: pd.DataFrame
    caveats: Sequence[str] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_statistics(self) -> dict[str, Any]:
        """Those of the parts, and the further ones."""
        found = {name: facts for part in self.parts for name, facts in part.statistics.items()}
        return {**found, **self.statistics}

    @property
    def all_tables(self) -> dict[str, pd.DataFrame]:
        found = {name: table for part in self.parts for name, table in part.tables.items()}
        return {**found, **self.tables}

    @property
    def commands(self) -> list[str]:
        """The commands that fill what is missing, each once."""
        return [command for command in dict.fromkeys(self.missing["command"]) if command]
