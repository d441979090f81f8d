"""Layout that all figures share: title and reading aid above, notes below; and saving to files.

All lengths are inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.svg import HATCHING, svg_of

EDGE, LINE = 0.2, 0.235
HEAD, HEAD_LINE = 0.62, 0.2  # of the title, and of each line below it
LETTER = 0.073  # width of a letter of a line, on average
DPI = 120
QUICK: dict[str, Any] = {"compress_level": 3}
# Distinct with any kind of colour vision, and in grey (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a8a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCH: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": "0.55",
    "hatch": "/////",
    "linewidth": 0.0,
}
Note = tuple[str, str]  # a sign and its meaning; no sign: a sentence


def wrapped(lines: Sequence[str], width: float) -> list[str]:
    """Lines broken where they would leave a figure of this width."""
    letters = max(20, int((width - 2 * EDGE) / LETTER))
    return [part for line in lines for part in textwrap.wrap(line, letters)]


def wrapped_notes(notes: Sequence[Note], width: float) -> list[Note]:
    """Notes broken likewise, the sign on the first line of each."""
    broken = [(sign, wrapped([text], width - 0.42)) for sign, text in notes]
    return [
        (sign if i == 0 else " " * bool(sign), part)
        for sign, parts in broken
        for i, part in enumerate(parts)
    ]


def head_height(lines: Sequence[str]) -> float:
    """Return the height of a title with these lines below it."""
    return HEAD + HEAD_LINE * len(lines)


def foot_height(notes: Sequence[Note]) -> float:
    """Return the height of these notes with the source of the numbers."""
    return LINE * (len(notes) + 2.2)


def write_head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """The title, and below it how the figure is to be read."""
    top, inches = figure.get_figheight() - 0.16, figure.dpi_scale_trans
    style: dict[str, Any] = {"va": "top", "transform": inches}
    figure.text(EDGE, top, title, fontsize=13, fontweight="bold", **style)
    for i, line in enumerate(lines):
        figure.text(EDGE, top - 0.32 - HEAD_LINE * i, line, fontsize=9.5, **style)


def write_foot(figure: Figure, notes: Sequence[Note], about: str) -> None:
    """Notes, each with its sign, and in small print where the numbers come from."""
    inches = figure.dpi_scale_trans
    style: dict[str, Any] = {"va": "center", "transform": inches}
    for i, (sign, text) in enumerate(notes):
        y = LINE * (len(notes) + 1.2 - i)
        if sign == "hatch":
            box = Rectangle((EDGE, y - 0.075), 0.32, 0.15, transform=inches, **HATCH)
            figure.add_artist(box)
        elif sign == "bar":
            bar: dict[str, Any] = {"facecolor": "black", "linewidth": 0, "transform": inches}
            figure.add_artist(Rectangle((EDGE, y - 0.012), 0.32, 0.024, **bar))
        else:
            figure.text(EDGE, y, sign, fontsize=8, fontweight="bold", **style)
        figure.text(EDGE + (0.42 if sign else 0), y, text, fontsize=9.5, **style)
    figure.text(EDGE, LINE * 0.6, about, fontsize=7.5, color="0.35", **style)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg; the same figure always gives the same files."""
    with matplotlib.rc_context(HATCHING):
        metadata = {"Software": None}
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata=metadata, pil_kwargs=QUICK)
    (folder / f"{name}.svg").write_text(svg_of(figure, name))
