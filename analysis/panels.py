"""Matrices -> panels: one for each seed and for their mean, with titles and missing cells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.figures.heatmap import Panel
from analysis.figures.kinds import DIFFERENCE, EXPECTED, PERFORMANCE, Kind
from analysis.options import Options
from analysis.result import Part, Result
from analysis.statistics.matrices import aggregate, expected_matrix
from analysis.store.evaluations import PRETRAIN, Improvements
from analysis.store.missing import missing_cells, missing_expected
from worldrep.names import TASK_NAMES, family_in_words, finetunings

MANY_SEEDS = 6
KINDS: Mapping[str, tuple[Kind, str]] = {  # end of the file name -> kind and heading
    "": (PERFORMANCE, "actual"),
    "_expected": (EXPECTED, "expected"),
    "_difference": (DIFFERENCE, "actual - expected"),
}


def panels_of(
    name: str, title: str, kind: Kind, matrices: Mapping[int, pd.DataFrame], heading: str = "",
    cells: pd.DataFrame | None = None,
) -> list[Panel]:  # fmt: skip
    """Return the panel of each seed's matrix, and that of their mean.

    name: start of the file names; cells: rows of `improvement_cells`, for the hover texts.
    """
    words = f"{name}_aggregate", f"{title}, {seeds_in_words([*matrices])}"
    mean = aggregate([*matrices.values()])
    mean_panel = Panel(*words, kind, mean, heading, details=cells, stem=name)
    of_seeds = [
        replace(
            mean_panel, name=f"{name}_seed{seed}", title=f"{title}, seed {seed}", matrix=matrix,
            details=None if cells is None else cells[cells["seed"] == seed], seed=seed,
        )
        for seed, matrix in matrices.items()
    ]  # fmt: skip
    return [*of_seeds, mean_panel]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return the seeds of a mean as text, such as `mean of seeds 1, 2`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} only: no spread"
    if len(seeds) > MANY_SEEDS:
        return f"mean of {len(seeds)} seeds"
    return f"mean of seeds {', '.join(map(str, seeds))}"


def family_panels(
    found: Improvements, families: Mapping[str, Sequence[str]], prefix: str = "", title: str = ""
) -> dict[str, list[list[Panel]]]:
    """Return the panels of each family: actual, expected and the difference, by seed and the mean.

    families: family -> fine-tunings; a model of one task is its own specialist, so its family has
    the actual matrix only. prefix: start of the file names; title: end of the titles.
    """
    panels = {}
    for family, fts in families.items():
        matrices = [found.matrices(fts)]
        if not family.endswith("1"):
            ones = found.matrices(finetunings(f"{family[:-1]}1"))
            expected = {seed: expected_matrix(fts, ones[seed]) for seed in found.seeds}
            gain = {seed: matrices[0][seed] - expected[seed] for seed in found.seeds}
            matrices += [expected, gain]
        head = f"Fine-tuned on {family_in_words(family)}{title}"
        panels[family] = [
            panels_of(
                f"{prefix}{family}{end}", f"{head}: {heading}" if end else head, kind, by_seed,
                heading, None if end else found.cells,
            )
            for (end, (kind, heading)), by_seed in zip(KINDS.items(), matrices, strict=False)
        ]  # fmt: skip
    return panels


def flat(panels: Mapping[str, list[list[Panel]]]) -> list[Panel]:
    """Return all panels of `family_panels`."""
    return [panel for kinds in panels.values() for own in kinds for panel in own]


def family_missing(
    found: Improvements, families: Mapping[str, Sequence[str]], prefix: str = ""
) -> pd.DataFrame:
    """Return the missing cells of the families' matrices, with the commands that compute them."""
    tables = []
    for family, fts in families.items():
        actual, expected, difference = (f"{prefix}{family}{end}" for end in KINDS)
        tables.append(missing_cells(found.cells, actual, fts))
        if not family.endswith("1"):
            tables.append(missing_expected(found.cells, expected, fts, actual=False))
            tables.append(missing_expected(found.cells, difference, fts, actual=True))
    return pd.concat(tables)


def family_result(
    name: str, options: Options, found: Improvements, families: Mapping[str, Sequence[str]],
    parts: Sequence[Part], **further: Any,
) -> Result:  # fmt: skip
    """Return the result of an analysis of improvements; further: fields of `Result` to change."""
    fields = {
        "missing": family_missing(found, families), "runs_used": found.runs_used,
        "caveats": found.caveats, "tables": {"values": found.cells},
        "tags": improvement_tags(families),
    }  # fmt: skip
    return Result(name, options, found.seeds, parts, **(fields | further))


def improvement_tags(fts: Iterable[str]) -> dict[str, str]:
    """Return the tags of a result about models fine-tuned from pt1."""
    return {"pretrain": PRETRAIN, "ft": ",".join(fts), "tasks": ",".join(TASK_NAMES)}
