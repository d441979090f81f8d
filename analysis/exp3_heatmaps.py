"""Does the width of a model change what is carried over? The heatmaps of exp1 for each width.

Rows are those pairs of tasks that exp3 trains, in its order. Widths stand side by side as means
over the seeds that all of them have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from analysis.command import analysis_command
from analysis.options import ALL, Options
from analysis.panels import (
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


def exp3_heatmaps(source: Source, options: Options) -> Result:
    """Return the heatmaps of every width asked for. Raises NothingThere when none has models."""
    found, caveats = _by_width(source, options)
    panels = {
        (width, *key): panels
        for width, own in found.items()
        for key, panels in family_panels(own, FAMILIES, f"{width}_", f", {width}").items()
    }
    parts: list[Part] = [
        replace(panel, which="mean over each width's own seeds") if panel.which == MEAN else panel
        for own in panels.values()
        for panel in own
    ]
    common = sorted(set.intersection(*(set(own.seeds) for own in found.values())))
    seeds = sorted({seed for own in found.values() for seed in own.seeds})
    if len(found) > 1 and common:
        parts += side_by_side(panels, common)
    if len(found) > 1 and common != seeds:
        shown = ", ".join(map(str, common)) or "none, so that no figure compares them"
        caveats.append(f"seeds that all widths have, which are compared side by side: {shown}")
    return Result(
        name=NAME,
        options=options,
        seeds=tuple(seeds),
        parts=parts,
        missing=pd.concat(family_missing(own, FAMILIES, f"{w}_") for w, own in found.items()),
        runs_used=pd.concat([own.runs_used for own in found.values()]),
        caveats=caveats,
        tables={"values": pd.concat([own.cells.assign(width=w) for w, own in found.items()])},
        tags={"pretrain": "pt1", "ft": ",".join(FAMILIES), "tasks": ",".join(TASK_NAMES)},
    )


def _by_width(source: Source, options: Options) -> tuple[dict[str, Improvements], list[str]]:
    """Read each width that has models; return them with caveats about all widths."""
    fts, found, faults, caveats = sum(FAMILIES.values(), ()), {}, [], []
    for width in options.widths:
        try:
            found[width] = read_improvements(source, replace(options, width=width), fts)
        except NothingThere as fault:
            faults.append(str(fault))
            caveats.append(f"width {width} is left out: {fault}")
        else:
            caveats += [f"width {width}: {caveat}" for caveat in found[width].caveats]
    if not found:
        raise NothingThere("; ".join(faults))
    return found, caveats


def side_by_side(
    panels: dict[tuple[str, str, str], list[Panel]], seeds: list[int]
) -> Iterator[Strip]:
    """Compare all widths for each kind of matrix, as means over the same seeds.

    panels: by width, family and end of the file name.
    """
    which = [f"seed {seed}" for seed in seeds]
    for family, end in dict.fromkeys(key[1:] for key in panels):
        title = f"Fine-tuned on {family_in_words(family)}, by width, {seeds_in_words(seeds)}"
        means = []
        for width in dict.fromkeys(key[0] for key in panels):
            own = panels[width, family, end]
            mean = aggregate([panel.matrix for panel in own if panel.which in which])
            stem, kind = f"{width}_{family}{end}", own[0].kind
            further = {"heading": width, "stem": stem, "which": MEAN}
            means.append(make_panel(f"{stem}_common", title, kind, mean, **further))
        yield Strip(f"{family}{end}_widths", title, kind.lines, means)


main = analysis_command(NAME, exp3_heatmaps, width=ALL)

if __name__ == "__main__":
    main()
