"""The plane of what fine-tuning gains on new cities against what it loses on the old ones.

Groups are told apart by colour, such as families of fine-tunings.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.scatter import Scatter
from analysis.statistics.pareto import over_seeds

MOST_LABELS = 40  # with more models, only those on the front are named
LINES = (
    "Right: less is forgotten of the cities that the base knows. Up: more is gained on Atlantis, "
    "the new cities. Both are means over the seven tasks{over}.",
    "Large: the mean of a {what}'s seeds, with their standard deviation (ddof = 1). Small and "
    "pale: single seeds. Ringed and joined: no other {what} does better in one without doing worse "
    "in the other.",
)


def gain_against_loss(
    points: pd.DataFrame,
    group: str,
    *,
    name: str,
    title: str,
    what: str = "model",
    plural: str = "models",
    over: str = "",
) -> Scatter:
    """The plane of some models in groups. what, plural: what a point stands for; over: what it is
    a mean over, beside tasks.

    points: one row per model and seed with the columns of `group`, label (short name of the
    model, by which its seeds belong together), model, seed, change (mean normalised change on
    standard questions), gain (mean normalised improvement on Atlantis; NaN for either where
    something is missing), run_id. The front is that of all groups together.
    """
    means = over_seeds(points, [group, "label", "model"])
    named = means["on_front"] | (len(means) <= MOST_LABELS)
    shown = pd.concat(
        [
            means.assign(seed="mean", one_seed=False, text=means["label"].where(named, "")),
            points.assign(one_seed=True, text="", on_front=False, n=1).dropna(
                subset=["change", "gain"]
            ),
        ],
        ignore_index=True,
    )
    if isinstance(points[group].dtype, pd.CategoricalDtype):
        shown[group] = pd.Categorical(shown[group], points[group].cat.categories)
    return Scatter(
        name=name,
        title=title,
        lines=tuple(line.format(what=what, over=over) for line in LINES),
        table=shown,
        x="change",
        y="gain",
        x_label="mean normalised change on standard questions (no unit; negative: forgotten)",
        y_label="mean normalised improvement on Atlantis (no unit)",
        group=group,
        label="text",
        error=("change_std", "gain_std"),
        faint="one_seed",
        front="on_front",
        hover=("model", "seed", "change", "gain", "n", "on_front", "run_id"),
        size=(8.0, 5.4),
        notes=notes(points, means, plural),
        statistics={name: statistics(means, plural)},
        said=tuple(said(name, means, plural)),
    )


def notes(points: pd.DataFrame, means: pd.DataFrame, plural: str) -> tuple[str, ...]:
    """What is behind the points, and what is not there."""
    seeds = points["seed"].nunique()
    there = means[means["n"] > 0]
    of = f"{seeds} seeds" if seeds > 1 else "one seed: no spread"
    found = [f"{len(there)} {plural}, {int(means['n'].sum())} points of single seeds, of {of}"]
    partial = int((there["missing"] > 0).sum())
    if partial:
        found.append(
            f"{partial} of the {plural} lack some of the seeds: their means are of the others"
        )
    if len(there) < len(means):
        found.append(
            f"{len(means) - len(there)} {plural} have no point, as values are missing; missing.csv "
            "has the commands"
        )
    if len(means) > MOST_LABELS:
        found.append(f"only the {plural} on the front are named; the table has all")
    return tuple(found)


def statistics(means: pd.DataFrame, plural: str) -> dict[str, Any]:
    """By model, or whatever a point stands for; and the names of those on the front."""
    numbers = ["change", "change_std", "gain", "gain_std", "n", "missing"]
    models = {row["label"]: {key: row[key] for key in numbers} for _, row in means.iterrows()}
    return {"front": means.loc[means["on_front"], "label"].tolist(), plural: models}


def said(name: str, means: pd.DataFrame, plural: str) -> list[str]:
    """The front in words, least forgotten first."""
    front = means[means["on_front"]].sort_values("change", ascending=False)
    parts = [
        f"{row.label} (change {row.change:+.2f}, gain {row.gain:.2f})" for row in front.itertuples()
    ]
    n = int((means["n"] > 0).sum())
    return [f"{name}: not dominated: {', '.join(parts) or 'none'} (of {n} {plural})"]
