"""Does the width of a model change what is carried over? The heatmaps of exp1 for each width.

Rows are those pairs of tasks that exp3 trains, in its order. Widths stand side by side as means
over the seeds that all of them have.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.command import analysis_command
from analysis.options import ALL, Options
from analysis.panels import (
    KINDS,
    MEAN,
    Panel,
    Strip,
    family_missing,
    family_panels,
    make_panel,
    seeds_in_words,
)
from analysis.result import Part, Result
from analysis.statistics.matrices import aggregate
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.names import TASK_NAMES, family_in_words, finetunings

NAME = "exp3_heatmaps"
PAIRS = tuple(f"ftwb2-{k}" for k in (4, 13, 15, 2, 9, 12))  # the order of the study's figures
FAMILIES = {"ftwb1": finetunings("ftwb1"), "ftwb2": PAIRS}

Families = dict[str, dict[str, list[Panel]]]  # family -> kind of matrix -> panels


def exp3_heatmaps(source: Source, options: Options) -> Result:
    """Return the heatmaps of every width asked for. Raises NothingThere when none has models."""
    found, caveats = _by_width(source, options)
    panels = {width: panels_of_width(width, own) for width, own in found.items()}
    parts: list[Part] = [
        replace(panel, which="mean over each width's own seeds") if panel.which == MEAN else panel
        for families in panels.values()
        for kinds in families.values()
        for own in kinds.values()
        for panel in own
    ]
    common = sorted(set.intersection(*(set(own.seeds) for own in found.values())))
    seeds = sorted({seed for own in found.values() for seed in own.seeds})
    if len(found) > 1 and common:
        parts += side_by_side(panels, common)
    if len(found) > 1 and common != seeds:
        shown = ", ".join(map(str, common)) or "none, so that no figure compares them"
        caveats.append(f"seeds that all widths have, which are compared side by side: {shown}")
    missing = [
        family_missing(own, family, fts, prefix=f"{width}_")
        for width, own in found.items()
        for family, fts in FAMILIES.items()
    ]
    return Result(
        name=NAME,
        options=options,
        seeds=tuple(seeds),
        parts=parts,
        missing=pd.concat(missing),
        runs_used=pd.concat([own.runs_used for own in found.values()]),
        caveats=caveats,
        tables={"values": pd.concat([own.cells.assign(width=w) for w, own in found.items()])},
        tags={"pretrain": "pt1", "ft": ",".join(FAMILIES), "tasks": ",".join(TASK_NAMES)},
    )


def _by_width(source: Source, options: Options) -> tuple[dict[str, Improvements], list[str]]:
    """Read each width that has models; return them with caveats about all widths."""
    found, faults, caveats = {}, [], []
    for width in options.widths:
        try:
            found[width] = read_improvements(
                source, replace(options, width=width), [*FAMILIES["ftwb1"], *PAIRS]
            )
        except NothingThere as fault:
            faults.append(str(fault))
            caveats.append(f"width {width} is left out: {fault}")
        else:
            caveats += [f"width {width}: {caveat}" for caveat in found[width].caveats]
    if not found:
        raise NothingThere("; ".join(faults))
    return found, caveats


def panels_of_width(width: str, found: Improvements) -> Families:
    """Return all panels of one width."""
    return {
        family: family_panels(found, family, fts, prefix=f"{width}_", title=f", {width}")
        for family, fts in FAMILIES.items()
    }


def side_by_side(panels: dict[str, Families], seeds: list[int]) -> list[Strip]:
    """Return one figure of all widths for each kind of matrix, as means over the same seeds."""
    strips = []
    for family, kinds in next(iter(panels.values())).items():
        for what in kinds:
            name, kind = f"{family}{what}", KINDS[what]
            title = f"Fine-tuned on {family_in_words(family)}, by width, {seeds_in_words(seeds)}"
            means = []
            for width, families in panels.items():
                which = {f"seed {seed}" for seed in seeds}
                own = [p.matrix for p in families[family][what] if p.which in which]
                stem = f"{width}_{name}"
                panel = make_panel(f"{stem}_common", title, kind, aggregate(own), width)
                means.append(replace(panel, stem=stem, which=MEAN))
            strips.append(Strip(f"{name}_widths", title, kind.lines, means))
    return strips


main = analysis_command(NAME, exp3_heatmaps, width=ALL)

if __name__ == "__main__":
    main()
