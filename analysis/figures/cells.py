"""The cells of a heatmap: colours, numbers, signs, hover texts and links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from analysis.figures.kinds import Heatmap
from analysis.figures.marks import (
    MarkedFigure,
    common_run,
    facts_by_cell,
    figure_of,
    for_collection,
    plain,
    seed_text,
)
from analysis.figures.page import HATCH
from analysis.statistics.matrices import Aggregate

MOST_CELLS = 1000  # more are an image with one hover text for each row
MIDDLE: dict[str, Any] = {"ha": "center", "va": "center"}
BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue (ITU-R BT.601)
MISSING = "0.82"


def draw_cells(axes: Axes, heatmap: Heatmap) -> None:
    """Draw coloured cells with their numbers, hover texts and links."""
    numbers = np.ma.masked_invalid(heatmap.values.to_numpy(dtype=float))
    missing = np.ma.getmaskarray(numbers)
    colours = heatmap.kind.mappable().to_rgba(numbers)
    inks = np.where(missing, "black", _inks(colours))
    present, holes = np.argwhere(~missing), np.argwhere(missing)
    boxes = [_box(row, column, 1, 1) for row, column in present]
    urls = _cell_urls(figure_of(axes), heatmap)
    look = {"facecolors": colours[~missing], "edgecolors": "white", "linewidths": 1}
    if heatmap.values.size > MOST_CELLS:
        draw_image(axes, heatmap)
    else:
        _add_boxes(axes, boxes, urls=for_collection(urls[~missing]), **look)
    boxes = [_box(row + 0.03, column + 0.02, 0.94, 0.96) for row, column in holes]
    _add_boxes(axes, boxes, urls=for_collection(urls[missing]), **HATCH)
    if heatmap.is_dense:
        return
    _write_numbers(axes, heatmap, [(int(i), int(j)) for i, j in present], inks)
    if heatmap.marked is not None:
        _mark(axes, heatmap.marked, inks, missing)


def _write_numbers(
    axes: Axes, heatmap: Heatmap, cells: Sequence[tuple[int, int]], inks: NDArray[np.str_]
) -> None:
    """Write the number of each cell, below it the spread, and draw it as a bar."""
    values, kind, several = heatmap.values.to_numpy(dtype=float), heatmap.kind, heatmap.several
    for row, column in cells:
        text, style = kind.write(values[row, column]), {"color": inks[row, column], **MIDDLE}
        axes.text(column + 0.5, row + (0.31 if several else 0.5), text, fontsize=9, **style)
        spread = _spread(several, row, column) if several else ""
        if spread:
            axes.text(column + 0.5, row + 0.66, spread, fontsize=7, **style)
    if kind.full:
        inch = len(values) * axes.figure.dpi / axes.bbox.height  # in rows
        bars = [
            _box(i + 1 - 0.06 * inch, j + 0.05, 0.025 * inch, 0.9 * values[i, j] / kind.full)
            for i, j in cells
        ]
        inked = [inks[cell] for cell in cells]
        _add_boxes(axes, bars, facecolors=inked, linewidth=0)


def _box(top: float, left: float, height: float, width: float) -> list[tuple[float, float]]:
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _add_boxes(axes: Axes, boxes: Sequence[Sequence[tuple[float, float]]], **look: Any) -> None:
    axes.add_collection(PolyCollection(boxes, **look), autolim=False)


def _spread(several: Aggregate, row: int, column: int) -> str:
    """The spread below a mean, and the number of its seeds if some are missing."""
    spread, n = several.spread.iat[row, column], several.n.iat[row, column]
    text = "" if math.isnan(spread) else f"±{spread:.2f}"
    full = several.n_seeds if several.full is None else several.full.iat[row, column]
    return f"{text} ({n})".strip() if n < full else text


def _mark(
    axes: Axes, marked: NDArray[np.bool_], inks: NDArray[np.str_], missing: NDArray[np.bool_]
) -> None:
    """Write a T in the corner of marked cells, legible on hatching too."""
    style: dict[str, Any] = {"va": "top", "fontsize": 7, "fontweight": "bold"}
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for row, column in np.argwhere(marked):
        box = white if missing[row, column] else None
        axes.text(column + 0.05, row + 0.1, "T", color=inks[row, column], bbox=box, **style)


def _inks(colours: NDArray[np.float64]) -> NDArray[np.str_]:
    """Black or white, whichever is legible on colours (..., red green blue opacity)."""
    return np.where(colours[..., :3] @ BRIGHTNESS < 0.45, "white", "black")


def draw_image(axes: Axes, heatmap: Heatmap, which: str = "") -> None:
    """Draw a matrix as an image, with a hover text and a link for each row.

    which: the seed, for the hover text.
    """
    numbers = np.ma.masked_invalid(heatmap.values.to_numpy(dtype=float))
    rows, columns = numbers.shape
    colours = heatmap.kind.mappable()
    image = colours.cmap.with_extremes(bad=MISSING)(colours.norm(numbers))
    axes.imshow(image, extent=(0, columns, rows, 0), aspect="auto", interpolation="none")
    details, urls = facts_by_cell(heatmap.details), []
    for name, values in heatmap.values.iterrows():
        known = [heatmap.kind.write(value) if value == value else "-" for value in values]
        own = [facts for column in values.index for facts in details.get((name, column), ())]
        text = f"{f'{name} {which}'.strip()}: {' '.join(known)}"
        urls.append(figure_of(axes).mark(text, common_run(own)))
    boxes = [_box(row, 0, 1, columns) for row in range(rows)]
    # Not quite transparent: a shape without a fill has no hover text.
    look: dict[str, Any] = {"facecolors": "white", "alpha": 0.01, "linewidths": 0}
    _add_boxes(axes, boxes, urls=for_collection(urls), **look)


def _cell_urls(figure: MarkedFigure, heatmap: Heatmap) -> NDArray[np.object_]:
    """The URL of each cell, with its numbers, its seeds, and its run if there is only one."""
    values = heatmap.values
    details, urls = facts_by_cell(heatmap.details), np.full(values.shape, None, dtype=object)
    if values.size > MOST_CELLS:
        return urls
    for (i, j), number in np.ndenumerate(values.to_numpy(dtype=float)):
        row, column = values.index[i], values.columns[j]
        own = details.get((row, column), [])
        known = "missing" if math.isnan(number) else plain(float(number))
        spread = _spread(heatmap.several, i, j) if heatmap.several else ""
        text = "\n".join([f"{row}, {column}: {known} {spread}".rstrip(), *map(seed_text, own)])
        urls[i, j] = figure.mark(text, common_run(own))
    return urls
