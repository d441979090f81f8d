"""How similar the representations of cities are in models pretrained on one to three tasks.

For the models pt1-X, pt2-k and pt3-k: the linear CKA between every two of them, as a matrix over
pairs of seeds, by layer, and models of the same tasks against models of different ones.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.cka.families import (
    OTHER_SEED,
    SAME,
    SHARED_SEED,
    SHUFFLED,
    Family,
    Likeness,
    compare_family,
    mean_over_pairs,
    mixture_masks,
    pair_statistics,
)
from analysis.command import analysis_command
from analysis.figures.curves import Curves
from analysis.figures.heatmap import Panel
from analysis.figures.kinds import GAP, Kind
from analysis.options import ALL, Options
from analysis.panels import seeds_in_words
from analysis.result import Result
from analysis.statistics.matrices import diagonal_masks
from analysis.store.extractions import DEFAULT, parse_layer
from analysis.store.missing import missing_table
from analysis.store.selection import NothingThere, Trained, nothing_of
from analysis.store.source import Source
from worldrep.names import PRETRAININGS, TASK_NAMES

NAME = "cka"
FAMILIES = {"pt1": "one task", "pt2": "two tasks", "pt3": "three tasks"}
KINDS = (SAME, OTHER_SEED, SHARED_SEED, SHUFFLED)
LABEL = "linear CKA (no unit)"


def cka(source: Source, options: Options, layer: str = DEFAULT) -> Result:
    """Compute the CKA matrices of all families in the store, at a layer or at `all` of them."""
    families, caveats = compare_families(source, options, parse_layer(layer, ALL))
    layers = [likeness for family in families for likeness in family.layers]
    statistics = {own.name: pair_statistics(own) for own in layers}
    parts: list[Panel | Curves] = [panel_of(own, statistics[own.name]) for own in layers]
    if layer == ALL:
        parts += [curves_of(family, statistics) for family in families]
    return Result(
        name=NAME, options=options,
        seeds=tuple(sorted({seed for own in layers for seed in own.seeds})), parts=parts,
        missing=missing_table(row for family in families for row in family.missing),
        runs_used=pd.concat([family.runs_used for family in families]),
        caveats=[*caveats, *(text for family in families for text in family.caveats)],
        tables={"pairs": pd.concat([own.pairs for own in layers], ignore_index=True)},
        statistics={f"{name}_pairs": facts for name, facts in statistics.items()},
        tags={
            "pretrain": ",".join(family.name for family in families),
            "ft": "none",
            "tasks": ",".join(TASK_NAMES),
        },
    )  # fmt: skip


def compare_families(
    source: Source, options: Options, layer: int | str, names: Iterable[str] = FAMILIES
) -> tuple[list[Family], list[str]]:
    """Return the families that can be compared, and caveats about the others."""
    trained = Trained.read(source, options)
    families, caveats, faults = [], [], []
    for name in names:
        reason = "the store has no representations of its models"
        try:
            if family := compare_family(source, options, trained, name, layer):
                families.append(family)
                continue
        except NothingThere as fault:
            faults.append(fault)
            reason = str(fault)
        caveats.append(f"{name} is left out: {reason}")
    if families:
        return families, caveats
    if faults:
        raise faults[0]
    kinds = ", ".join(f"{FAMILIES[name]} ({name}-X)" for name in names)
    kind = f"representations of models pretrained on {kinds}"
    raise nothing_of(kind, options.in_words, source, "extract")


ONE_TASK = Kind(
    LABEL, (), "viridis", (0.0, 1.0), rows="pretrained on", columns="pretrained on", row_label=str,
    masks=diagonal_masks, shown=("same task", "different tasks"), marked="",
)  # fmt: skip
MIXTURES = replace(
    ONE_TASK,
    columns="pretrained on (the rows say what)",
    row_label=lambda name: f"{' + '.join(PRETRAININGS[name])}{GAP}{name}",
    masks=mixture_masks,
    shown=("same mixture", "overlapping mixtures", "disjoint mixtures"),
)


def panel_of(likeness: Likeness, statistics: dict[str, Any]) -> Panel:
    """Return the heatmap of one family at one layer: means over pairs of seeds."""
    words = f"{FAMILIES[likeness.family]}, layer {likeness.layer}"
    lines = (
        "How alike two models represent the same cities, each asked with its own (first) task: "
        f"linear CKA, double-centred. {likeness.n_cities} world cities, "
        f"{likeness.features_in_words}, layer {likeness.layer}.",
        "1: the same but for rotation and scale. 0: nothing in common. Each cell is the mean over "
        "all pairs of seeds, on the diagonal over pairs of different seeds.",
    )
    kind = replace(ONE_TASK if likeness.family == "pt1" else MIXTURES, lines=lines)
    title = f"CKA of models pretrained on {words}, {seeds_in_words(likeness.seeds)}"
    matrix, notes = mean_over_pairs(likeness), notes_of(statistics)
    return Panel(likeness.name, title, kind, matrix, notes=notes)


def notes_of(statistics: dict[str, Any]) -> tuple[str, ...]:
    """Return sentences about same against different tasks, and about CKA by chance."""
    test, counted = statistics["comparison"], {}
    for kind in KINDS:
        found = statistics[kind]
        some = found["mean"] is not None
        counted[kind] = "{mean:.2f} ± {std:.2f} (n = {n})".format(**found) if some else "none"
    compared = "Same against different tasks: not compared, which needs pairs of both, two seeds."
    if test["difference"] is not None:
        compared = (
            f"Same minus different tasks, both of different seeds: {test['difference']:+.2f}, "
            f"p = {test['p']:.2g} by permutation of the tasks within seeds."
        )
    return (
        f"Pairs of models: same tasks (never one seed) {counted[SAME]}; different tasks, "
        f"different seeds {counted[OTHER_SEED]}; different tasks, same seed "
        f"{counted[SHARED_SEED]}.",
        compared,
        f"CKA by chance, with the cities of one of two models shuffled: {counted[SHUFFLED]}.",
    )


def curves_of(family: Family, statistics: dict[str, dict[str, Any]]) -> Curves:
    """Chart models of the same tasks against models of different ones, by layer."""
    rows = [
        {"layer": likeness.layer, "pairs_of_models": kind, **statistics[likeness.name][kind]}
        for kind in KINDS
        for likeness in family.layers
    ]
    first, last = family.layers[0], family.layers[-1]
    return Curves(
        name=f"cka_{family.name}_by_layer",
        title=f"CKA of models pretrained on {FAMILIES[family.name]}, by layer",
        lines=(
            f"Mean linear CKA over pairs of models, on {first.n_cities} world cities; "
            "the same tasks are always of different seeds. Layer 0 is the embeddings.",
            f"{SHUFFLED.capitalize()}: CKA by chance, the cities of one in random order.",
        ),
        table=pd.DataFrame(rows).astype({"mean": float, "std": float}), x="layer", y="mean",
        x_label=f"layer ({first.layer} to {last.layer})", y_label=LABEL, group="pairs_of_models",
        series="pairs_of_models", hover=("pairs_of_models", "mean", "std", "n", "missing"),
    )  # fmt: skip


main = analysis_command(NAME, cka, layer="A layer, all, or default.")
