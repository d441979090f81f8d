"""Matrices -> panels: compute the statistics of each matrix, which the figure then shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.figures.heatmap import Panel, Strip
from analysis.figures.kinds import Kind
from analysis.statistics.matrices import Aggregate, aggregate, summaries

__all__ = ["MEAN", "Panel", "Strip", "make_panel", "panels_of", "seeds_in_words"]

MANY_SEEDS = 6
MEAN = "mean over seeds"


def make_panel(
    name: str,
    title: str,
    kind: Kind,
    matrix: pd.DataFrame | Aggregate,
    heading: str = "",
    notes: tuple[str, ...] = (),
    details: pd.DataFrame | None = None,
    stem: str = "",
    which: str = "",
) -> Panel:
    """Return the panel of one matrix, with the statistics of its groups of cells.

    The arguments are those of `Panel`.
    """
    values = matrix.mean if isinstance(matrix, Aggregate) else matrix
    masks = kind.frame.masks(values)
    marked = masks[kind.frame.marked] if kind.frame.marked else None
    return Panel(
        name=name,
        title=title,
        kind=kind,
        matrix=matrix,
        summary=summaries(values, masks),
        heading=heading,
        notes=notes,
        marked=marked,
        details=details,
        stem=stem,
        which=which,
    )


def panels_of(
    name: str,
    title: str,
    kind: Kind,
    matrices: Mapping[int, pd.DataFrame],
    heading: str = "",
    cells: pd.DataFrame | None = None,
) -> list[Panel]:
    """Return the panel of each seed's matrix, and that of their mean.

    Args:
        name: Part of the file names that all seeds share.
        title: Title, to which the seeds are added.
        kind: What the numbers mean.
        matrices: Seed -> matrix; all have the same rows.
        heading: Heading when several matrices are side by side.
        cells: Rows of `improvement_cells`, for the hover texts.
    """
    panels = [
        make_panel(
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
    mean = make_panel(
        f"{name}_aggregate",
        f"{title}, {seeds_in_words(list(matrices))}",
        kind,
        aggregate(list(matrices.values())),
        heading,
        details=cells,
        stem=name,
        which=MEAN,
    )
    return [*panels, mean]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return the seeds of a mean as text, such as `mean of seeds 1, 2`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} only: no spread"
    if len(seeds) > MANY_SEEDS:
        return f"mean of {len(seeds)} seeds"
    return f"mean of seeds {', '.join(map(str, seeds))}"
