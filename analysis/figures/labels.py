"""Short labels beside points, so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, 1], [1, -1], [-1, -1]])
REACHES = (5.0, 10.0, 16.0, 24.0, 34.0, 48.0)  # from the point, in points of print
POINT = 4.0  # half the width of what is drawn for a point
STROKE = 0.8  # half the width of a line
SIZE = 7.5


def label_points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    texts: Sequence[str],
    strokes: NDArray[np.float64] | None = None,
) -> None:
    """Write each text beside its point, where there is most room; the axes' limits must be set.

    A point whose text is empty is only kept free, and so are strokes (n, 4): the ends x, y, x, y of
    horizontal or vertical lines such as error bars, NaN for none.
    """
    scale = 72 / axes.figure.dpi
    places = axes.transData.transform(np.column_stack([x, y])) * scale
    frame = np.array(axes.bbox.extents) * scale
    taken = [_around(place, POINT, POINT) for place in places]
    if strokes is not None:
        ends = strokes[np.isfinite(strokes).all(axis=1)].reshape(-1, 2)
        lines = axes.transData.transform(ends).reshape(-1, 4) * scale
        taken += (lines + [-STROKE, -STROKE, STROKE, STROKE]).tolist()
    for point, place, text in zip(zip(x, y, strict=True), places, texts, strict=True):
        if not text:
            continue
        half = np.array([0.29 * SIZE * len(text), 0.5 * SIZE])
        offset = _freest(place, half, np.array(taken), frame)
        taken.append(_around(place + offset, *half))
        far = np.abs(offset).max() > half.max() + REACHES[1]
        line = {"arrowstyle": "-", "color": "#9ca3af", "linewidth": 0.5} if far else None
        axes.annotate(
            text,
            point,  # in units of the data: pixels would differ in a file of another resolution
            xytext=(offset[0], offset[1]),
            textcoords="offset points",
            fontsize=SIZE,
            ha="center",
            va="center",
            arrowprops=line,
            annotation_clip=False,
        )


def _freest(
    place: NDArray[np.float64],
    half: NDArray[np.float64],
    taken: NDArray[np.float64],
    frame: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The nearest offset at which a text of this half size covers least."""
    offsets = [
        direction * (half + reach * (np.abs(direction).sum() ** -0.5))
        for reach in REACHES
        for direction in DIRECTIONS
    ]
    costs = [_cost(_around(place + offset, *half), taken, frame) for offset in offsets]
    return offsets[int(np.argmin(costs))]


def _around(centre: NDArray[np.float64], half_width: float, half_height: float) -> list[float]:
    x, y = centre
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _cost(box: list[float], taken: NDArray[np.float64], frame: NDArray[np.float64]) -> float:
    """The area that a box shares with those taken, and what leaves the frame."""
    left, low, right, high = box
    wide = np.minimum(right, taken[:, 2]) - np.maximum(left, taken[:, 0])
    tall = np.minimum(high, taken[:, 3]) - np.maximum(low, taken[:, 1])
    covered = (wide.clip(0) * tall.clip(0)).sum()
    outside = max(frame[0] - left, frame[1] - low, right - frame[2], high - frame[3], 0)
    return float(covered + 50 * outside)
