"""Does the width of a model change what is carried over? The heatmaps of exp1 for each width.

Rows are those pairs of tasks that exp3 trains, in its order. Widths stand side by side as means
over the seeds that all of them have.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.command import analysis_command
from analysis.families import KINDS, family_matrices, family_missing, family_panels
from analysis.options import ALL, Options
from analysis.panels import MEAN, Panel, Strip, make_panel, seeds_in_words
from analysis.result import Part, Result
from analysis.statistics.matrices import aggregate
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.names import TASK_NAMES, family_in_words, finetunings

NAME = "exp3_heatmaps"
PAIRS = tuple(f"ftwb2-{k}" for k in (4, 13, 15, 2, 9, 12))  # the order of the study's figures
FAMILIES = {"ftwb1": finetunings("ftwb1"), "ftwb2": PAIRS}


def exp3_heatmaps(source: Source, options: Options) -> Result:
    """Heatmaps of every width that was asked for. Raises NothingThere when no width has models."""
    found, caveats = _by_width(source, options)
    parts: list[Part] = [
        panel for width, own in found.items() for panel in panels_of_width(width, own)
    ]
    common = sorted(set.intersection(*(set(own.seeds) for own in found.values())))
    if len(found) > 1 and common:
        parts += side_by_side(found, common)
    seeds = tuple(sorted({seed for own in found.values() for seed in own.seeds}))
    if len(found) > 1 and tuple(common) != seeds:
        shown = ", ".join(map(str, common)) or "none, so that no figure compares them"
        caveats.append(f"seeds that all widths have, which are compared side by side: {shown}")
    missing = [
        family_missing(own, family, fts, prefix=f"{width}_")
        for width, own in found.items()
        for family, fts in FAMILIES.items()
    ]
    values = [own.cells.assign(width=width) for width, own in found.items()]
    return Result(
        name=NAME,
        options=options,
        seeds=seeds,
        parts=parts,
        missing=pd.concat(missing),
        runs_used=pd.concat([own.runs_used for own in found.values()]),
        caveats=caveats,
        tables={"values": pd.concat(values)},
        tags={"pretrain": "pt1", "ft": ",".join(FAMILIES), "tasks": ",".join(TASK_NAMES)},
    )


def _by_width(source: Source, options: Options) -> tuple[dict[str, Improvements], list[str]]:
    """What the store has of each width, and caveats about what it has not."""
    found, faults, caveats = {}, [], []
    for width in options.widths:
        own = replace(options, width=width)
        try:
            found[width] = read_improvements(source, own, [*FAMILIES["ftwb1"], *PAIRS])
        except NothingThere as fault:
            faults.append(str(fault))
            caveats.append(f"width {width} is left out: {fault}")
        else:
            caveats += [f"width {width}: {caveat}" for caveat in found[width].caveats]
    if not found:
        raise NothingThere("; ".join(faults))
    return found, caveats


def panels_of_width(width: str, found: Improvements) -> list[Panel]:
    """All matrices of one width. Its means are over its own seeds, and not to be compared."""
    panels = [
        panel
        for family, fts in FAMILIES.items()
        for kind in family_panels(
            found, family, fts, prefix=f"{width}_", title=f", {width}"
        ).values()
        for panel in kind
    ]
    return [
        replace(panel, which="mean over each width's own seeds") if panel.which == MEAN else panel
        for panel in panels
    ]


def side_by_side(found: dict[str, Improvements], seeds: list[int]) -> list[Strip]:
    """All widths in one figure for each kind of matrix, as means over the same seeds."""
    strips = []
    for family, fts in FAMILIES.items():
        matrices = {width: family_matrices(own, fts) for width, own in found.items()}
        for what, kind in KINDS.items():
            if what not in next(iter(matrices.values())):
                continue
            name = f"{family}{what}"
            title = f"Fine-tuned on {family_in_words(family)}, by width, {seeds_in_words(seeds)}"
            means = {
                width: aggregate([own[what][seed] for seed in seeds])
                for width, own in matrices.items()
            }
            panels = [
                make_panel(
                    f"{width}_{name}_common",
                    title,
                    kind,
                    mean,
                    width,
                    stem=f"{width}_{name}",
                    which=MEAN,
                )
                for width, mean in means.items()
            ]
            strips.append(Strip(f"{name}_widths", title, kind.lines, panels))
    return strips


main = analysis_command(NAME, exp3_heatmaps, width=ALL)

if __name__ == "__main__":
    main()
