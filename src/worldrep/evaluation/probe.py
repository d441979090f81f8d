"""A linear probe: how well the position of a city can be read off its representation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldrep.data.world import World
from worldrep.digests import random_stream

TRAIN_CITIES, BASELINE_CITIES = 4000, 100
SMALL_WORLD_SHARE = 0.8


@dataclass(frozen=True)
class ProbeResult:
    """Predicted positions of all cities, and their errors.

    Attributes:
        predicted: (n, 2) positions x, y in 0.1 degree.
        errors: (n,) Euclidean distances to the true positions, in 0.1 degree.
        trained: (n,) mask of the cities that the probe was fitted on.
        baseline: (n,) mask of the held-out world cities.
        atlantis: (n,) mask of the cities of Atlantis, which are all held out.
    """

    predicted: NDArray[np.float64]
    errors: NDArray[np.float64]
    trained: NDArray[np.bool_]
    baseline: NDArray[np.bool_]
    atlantis: NDArray[np.bool_]

    def summary(self) -> dict[str, float]:
        """Return the mean errors of `train`, `world` (held out) and `atlantis`, if they exist."""
        parts = {"train": self.trained, "world": self.baseline, "atlantis": self.atlantis}
        return {name: float(self.errors[mask].mean()) for name, mask in parts.items() if mask.any()}


def probe_positions(representations: NDArray[np.float32], world: World) -> ProbeResult:
    """Fit least squares from representations (n, d) to x and y, on world cities only.

    4,000 world cities are fitted and 100 held out; in a smaller world 80% are fitted and the rest
    held out. With more features than cities, the solution of least norm is taken.
    """
    atlantis = world.is_atlantis
    cities = np.flatnonzero(~atlantis)
    order = random_stream(0, "probe", len(cities)).permutation(cities)
    large = len(cities) >= TRAIN_CITIES + BASELINE_CITIES
    fitted = TRAIN_CITIES if large else round(SMALL_WORLD_SHARE * len(cities))
    held_out = BASELINE_CITIES if large else len(cities) - fitted
    trained, baseline = np.zeros_like(atlantis), np.zeros_like(atlantis)
    trained[order[:fitted]] = True
    baseline[order[fitted : fitted + held_out]] = True
    features = np.asarray(representations, dtype=np.float64)
    centre = features[trained].mean(axis=0)
    target = world.positions.astype(np.float64)
    middle = target[trained].mean(axis=0)
    weights = np.linalg.lstsq(features[trained] - centre, target[trained] - middle, rcond=None)[0]
    predicted = (features - centre) @ weights + middle
    errors = np.linalg.norm(predicted - target, axis=1)
    return ProbeResult(predicted, errors, trained, baseline, atlantis)
