"""Does the width of a model change its transfer? The heatmaps of exp1 for each width.

Rows are those pairs of tasks that exp3 trains, in its order. Widths stand side by side as means
over the seeds that all of them have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.command import analysis_command
from analysis.figures.heatmap import Panel, Strip
from analysis.options import ALL, Options
from analysis.panels import family_missing, family_panels, flat, improvement_tags, seeds_in_words
from analysis.result import Part, Result
from analysis.statistics.matrices import aggregate
from analysis.store.evaluations import Improvements, read_improvements
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.names import WIDTHS, family_in_words, finetunings

NAME = "exp3_heatmaps"
PAIRS = tuple(f"ftwb2-{k}" for k in (4, 13, 15, 2, 9, 12))  # the order of the study's figures
FAMILIES = {"ftwb1": finetunings("ftwb1"), "ftwb2": PAIRS}


def exp3_heatmaps(source: Source, options: Options) -> Result:
    """Return the heatmaps of every width asked for. Raises NothingThere when none has models."""
    found, caveats = _by_width(source, options)
    panels = {w: family_panels(own, FAMILIES, f"{w}_", f", {w}") for w, own in found.items()}
    parts: list[Part] = [panel for own in panels.values() for panel in flat(own)]
    common = sorted(set.intersection(*(set(own.seeds) for own in found.values())))
    seeds = sorted({seed for own in found.values() for seed in own.seeds})
    if len(found) > 1 and common:
        parts += side_by_side(panels, common)
    if len(found) > 1 and common != seeds:
        shown = ", ".join(map(str, common)) or "none, so that no figure compares them"
        caveats.append(f"seeds that all widths have, which are compared side by side: {shown}")
    return Result(
        name=NAME, options=options, seeds=tuple(seeds), parts=parts,
        missing=pd.concat(family_missing(own, FAMILIES, f"{w}_") for w, own in found.items()),
        runs_used=pd.concat([own.runs_used for own in found.values()]), caveats=caveats,
        tables={"values": pd.concat([own.cells.assign(width=w) for w, own in found.items()])},
        tags=improvement_tags(FAMILIES),
    )  # fmt: skip


def _by_width(source: Source, options: Options) -> tuple[dict[str, Improvements], list[str]]:
    """Read each width that has models; return them with caveats about all widths."""
    fts, found, faults = sum(FAMILIES.values(), ()), {}, {}
    for width in WIDTHS if options.width == ALL else [options.width]:
        try:
            found[width] = read_improvements(source, replace(options, width=width), fts)
        except NothingThere as fault:
            faults[width] = str(fault)
    if not found:
        raise NothingThere("; ".join(faults.values()))
    caveats = [f"width {width}: {text}" for width, own in found.items() for text in own.caveats]
    among = " among those asked for" if options.seeds else ""
    absent = f"left out: no seed{among} has both an evaluated base and a fine-tuned model"
    return found, [*caveats, *(f"width {width} is {absent}" for width in faults)]


def side_by_side(
    panels: Mapping[str, Mapping[str, list[list[Panel]]]], seeds: Sequence[int]
) -> Iterator[Strip]:
    """Compare all widths for each kind of matrix, as means over the same seeds.

    panels: width -> panels of `family_panels`.
    """
    for family in FAMILIES:
        title = f"Fine-tuned on {family_in_words(family)}, by width, {seeds_in_words(seeds)}"
        for of_kind in zip(*(own[family] for own in panels.values()), strict=True):
            means = [
                Panel(f"{own[0].stem}_common", title, own[0].kind, mean, width, stem=own[0].stem)
                for width, own in zip(panels, of_kind, strict=True)
                for mean in [aggregate([panel.matrix for panel in own if panel.seed in seeds])]
            ]
            name = means[0].stem.partition("_")[2]
            yield Strip(f"{name}_widths", title, means[0].kind.lines, means)


main = analysis_command(NAME, exp3_heatmaps, {"width": ALL})

if __name__ == "__main__":
    main()
