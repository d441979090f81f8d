"""A panel is one matrix under one name: its table, its figure and its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.heatmap import Kind, draw_heatmap, save_figure
from analysis.matrices import Aggregate, Summary, aggregate, cell_statistics

MANY_SEEDS = 6


@dataclass(frozen=True)
class Panel:
    """name: of its files, without ending; title: of its figure."""

    name: str
    title: str
    kind: Kind
    matrix: pd.DataFrame | Aggregate

    @property
    def values(self) -> pd.DataFrame:
        return self.matrix.mean if isinstance(self.matrix, Aggregate) else self.matrix

    @property
    def statistics(self) -> dict[str, Summary]:
        return cell_statistics(self.values)

    @property
    def partial(self) -> int:
        """Cells that only some of the seeds have."""
        return self.matrix.partial if isinstance(self.matrix, Aggregate) else 0

    def write(self, folder: Path, about: str) -> None:
        """Write NAME.csv, .png and .svg; of several seeds also NAME_std.csv and NAME_n.csv."""
        self.values.to_csv(folder / f"{self.name}.csv")
        if isinstance(self.matrix, Aggregate):
            self.matrix.spread.to_csv(folder / f"{self.name}_std.csv")
            self.matrix.n.to_csv(folder / f"{self.name}_n.csv")
        save_figure(draw_heatmap(self.matrix, self.kind, self.title, about), folder, self.name)


def panels_of(
    name: str, title: str, kind: Kind, matrices: Mapping[int, pd.DataFrame]
) -> list[Panel]:
    """The panels of each seed's matrix and of their mean."""
    seeds = list(matrices)
    which = f"mean of seeds {', '.join(map(str, seeds))}"
    if len(seeds) == 1:
        which = f"seed {seeds[0]} only: no spread"
    elif len(seeds) > MANY_SEEDS:
        which = f"mean of {len(seeds)} seeds"
    panels = [
        Panel(f"{name}_seed{seed}", f"{title}, seed {seed}", kind, matrix)
        for seed, matrix in matrices.items()
    ]
    mean = aggregate(list(matrices.values()))
    return [*panels, Panel(f"{name}_aggregate", f"{title}, {which}", kind, mean)]
