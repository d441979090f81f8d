"""Heatmaps as parts of a result: a panel is one matrix under one name, a strip several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.heatmap import Block, draw_heatmaps
from analysis.figures.kinds import Kind
from analysis.statistics.matrices import Aggregate, Summary, aggregate

MANY_SEEDS = 6
MEAN = "mean over seeds"


@dataclass(frozen=True)
class Panel:
    """One matrix.

    name: of its files, without ending; title: of its figure; heading: within a strip; notes:
    further sentences, below the figure and printed; details: rows of `improvement_cells` behind
    the matrix, which a page shows; stem: what the names of all seeds' panels have in common; which:
    what sets this one apart from them, in words; both empty for a panel that stands alone.
    """

    name: str
    title: str
    kind: Kind
    matrix: pd.DataFrame | Aggregate
    heading: str = ""
    notes: tuple[str, ...] = ()
    details: pd.DataFrame | None = None
    stem: str = ""
    which: str = ""

    @property
    def block(self) -> Block:
        return Block(self.matrix, self.kind, self.heading)

    @property
    def lines(self) -> tuple[str, ...]:
        return self.kind.lines

    @property
    def values(self) -> pd.DataFrame:
        return self.block.values

    @property
    def partial(self) -> int:
        """Cells that only some of the seeds have."""
        return self.matrix.partial if isinstance(self.matrix, Aggregate) else 0

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The matrix; of several seeds also their standard deviation and number in each cell."""
        tables = {self.name: self.values}
        if isinstance(self.matrix, Aggregate):
            tables |= {f"{self.name}_std": self.matrix.spread, f"{self.name}_n": self.matrix.n}
        return tables

    @property
    def statistics(self) -> dict[str, dict[str, Summary]]:
        return {self.name: self.block.statistics}

    @property
    def said(self) -> list[str]:
        statistics = self.block.statistics
        parts = [f"{kind} {_short(statistics[kind])}" for kind in self.kind.frame.shown]
        parts += [f"{self.partial} cells of some seeds only"] if self.partial else []
        return [
            f"{self.name}: {'; '.join(parts)}",
            *(f"{self.name}: {note}" for note in self.notes),
        ]

    def draw(self, about: str) -> Figure:
        return draw_heatmaps([self.block], self.title, self.lines, about, self.notes)


@dataclass(frozen=True)
class Strip:
    """Panels of the same rows side by side in one figure. lines: how they are to be read."""

    name: str
    title: str
    lines: tuple[str, ...]
    panels: Sequence[Panel]
    notes: tuple[str, ...] = ()

    @property
    def which(self) -> str:
        """Of which seed, or their mean, all of its panels are."""
        return self.panels[0].which

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: table for panel in self.panels for name, table in panel.tables.items()}

    @property
    def statistics(self) -> dict[str, dict[str, Summary]]:
        return {name: facts for panel in self.panels for name, facts in panel.statistics.items()}

    @property
    def said(self) -> list[str]:
        return [line for panel in self.panels for line in panel.said]

    def draw(self, about: str) -> Figure:
        return draw_heatmaps([panel.block for panel in self.panels], self.title, self.lines, about)


def panels_of(
    name: str,
    title: str,
    kind: Kind,
    matrices: Mapping[int, pd.DataFrame],
    heading: str = "",
    cells: pd.DataFrame | None = None,
) -> list[Panel]:
    """The panels of each seed's matrix and of their mean. cells: as `improvement_cells` gives."""
    which = seeds_in_words(list(matrices))
    panels = [
        Panel(
            f"{name}_seed{seed}",
            f"{title}, seed {seed}",
            kind,
            matrix,
            heading,
            details=None if cells is None else cells[cells["seed"] == seed],
            stem=name,
            which=f"seed {seed}",
        )
        for seed, matrix in matrices.items()
    ]
    mean = Panel(
        f"{name}_aggregate",
        f"{title}, {which}",
        kind,
        aggregate(list(matrices.values())),
        heading,
        details=cells,
        stem=name,
        which=MEAN,
    )
    return [*panels, mean]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Of what a mean is, such as `mean of seeds 1, 2`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} only: no spread"
    if len(seeds) > MANY_SEEDS:
        return f"mean of {len(seeds)} seeds"
    return f"mean of seeds {', '.join(map(str, seeds))}"


def _short(summary: Summary) -> str:
    if summary["mean"] is None:
        return f"none (n = 0, missing {summary['missing']})"
    spread = f"{summary['mean']:.3f} ± {summary['std']:.3f}"
    return f"{spread} (n = {summary['n']}, missing {summary['missing']})"
