"""A map of the cities: where they lie, and where a probe on the model's hidden states puts them."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from worldrep.data.world import X_LIMIT, Y_LIMIT, World
from worldrep.evaluation.probe import ProbeResult

_KINDS = (
    # mask, label, colour, marker
    ("trained", "world, probe fitted on it", "#9aa5b1", "o"),
    ("baseline", "world, held out", "#0072b2", "s"),
    ("atlantis", "Atlantis, held out", "#d55e00", "*"),
)


def draw_map(world: World, probe: ProbeResult, title: str) -> Figure:
    """True positions (hollow) joined to predicted ones (filled), in degrees."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.add_subplot()
    true, predicted = world.positions / 10, probe.predicted / 10
    for kind, label, colour, marker in _KINDS:
        mask = getattr(probe, kind)
        if not mask.any():
            continue
        error = probe.errors[mask].mean() / 10
        lines = [*np.stack([true[mask], predicted[mask]], axis=1)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.6))
        x, y = true[mask].T
        axes.scatter(x, y, s=34, marker=marker, facecolors="white", edgecolors=colour, zorder=2)
        x, y = predicted[mask].T
        shown = f"{label}: n={mask.sum()}, mean error {error:.1f}°"
        axes.scatter(x, y, s=34, marker=marker, color=colour, zorder=3, label=shown)
    axes.set_xlim(-X_LIMIT / 10 - 5, X_LIMIT / 10 + 5)
    axes.set_ylim(-Y_LIMIT / 10 - 5, Y_LIMIT / 10 + 5)
    axes.set_aspect("equal")
    axes.set_xlabel("longitude (degrees)")
    axes.set_ylabel("latitude (degrees)")
    axes.grid(color="#e5e7eb", linewidth=0.5)
    axes.set_title(f"{title}\nhollow: true position, filled: read off by a linear probe")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
