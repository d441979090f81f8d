"""Figures with hover texts and links: title and reading aid above, notes below, files."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.figures.svg import HATCHING, MARK, make_drawable, svg_of

EDGE, LINE = 0.2, 0.185  # margin and height of a line, inches
LETTER, TITLE_LETTER = 0.073, 0.112  # average width of a letter, inches
DPI = 120
MOST_MARKS = 500  # marks of one chart with a hover text; more would make its file too large


class MarkedFigure(Figure):
    """A figure with its words, which knows what its marks stand for.

    width, height: of the part between the words, inches, where matplotlib lays out the axes;
    lines: how to read the figure; about: small print on the origin of the numbers.
    """

    def __init__(
        self, width: float, height: float, title: str, lines: Sequence[str] = (),
        notes: Sequence[str] = (), about: str = "",
    ) -> None:  # fmt: skip
        width = max(width, 2 * EDGE + TITLE_LETTER * len(title))
        letters = max(20, int((width - 2 * EDGE) / LETTER))
        wrap = textwrap.TextWrapper(letters).wrap
        head, foot = ([part for text in own for part in wrap(text)] for own in (lines, notes))
        above, below = 0.55 + LINE * len(head), 0.45 + LINE * len(foot)
        whole = above + height + below
        area = (0.06 / width, below / whole, 1 - 0.12 / width, height / whole)
        layout = ConstrainedLayoutEngine(rect=area, w_pad=0.08, h_pad=0.08)
        super().__init__(figsize=(width, whole), layout=layout)
        FigureCanvasAgg(self)
        self.marks: list[tuple[str, str]] = []
        x = EDGE / width
        self.text(x, 1 - 0.16 / whole, title, fontsize=13, fontweight="bold", va="top")
        self.text(x, 1 - 0.48 / whole, "\n".join(head), fontsize=9.5, va="top")
        self.text(x, 0.34 / whole, "\n".join(foot), fontsize=9.5, va="bottom")
        self.text(x, 0.1 / whole, about, fontsize=7.5, color="0.35", va="bottom")

    def settle(self) -> None:
        """Lay out the axes once, so that their places are known and the same in all files."""
        make_drawable(self)
        self.get_layout_engine().execute(self)  # type: ignore[union-attr]
        self.set_layout_engine("none")

    def mark(self, text: str, run_id: object = "") -> str:
        """Register a hover text and the run behind it, and return the URL for the artist."""
        self.marks.append((text, run_id if isinstance(run_id, str) else ""))
        return f"{MARK}{len(self.marks) - 1}"

    def mark_rows(self, rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
        """Register a mark for each row, with the facts in `columns`, and return the URLs."""
        runs = rows["run_id"] if "run_id" in rows.columns else [""] * len(rows)
        facts = rows[[c for c in columns if c in rows.columns]].to_dict("records")
        return [self.mark(hover_text(own), run) for own, run in zip(facts, runs, strict=True)]


def figure_of(axes: Axes) -> MarkedFigure:
    """Return the figure of some axes."""
    assert isinstance(axes.figure, MarkedFigure)
    return axes.figure


def for_collection(urls: Sequence[str]) -> list[str] | None:
    """Return URLs in the form that `set_urls` of a collection needs."""
    if len(urls) == 1:
        return [*urls, *urls]  # matplotlib ignores a single one
    return list(urls) or None


def hover_text(facts: Mapping[str, Any]) -> str:
    """Return one line for each fact that is known, such as `seed: 1`; without the run's id."""
    return "\n".join(
        f"{name.replace('_', ' ')}: {plain(value)}"
        for name, value in facts.items()
        if name != "run_id" and value not in (None, "") and value == value  # not NaN
    )


def plain(value: object) -> str:
    """Return a value as text, numbers with four significant digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write name.png and name.svg; the same figure always gives the same files."""
    make_drawable(figure)
    with matplotlib.rc_context(HATCHING):
        png: dict[str, Any] = {"dpi": DPI, "metadata": {"Software": None}}
        figure.savefig(folder / f"{name}.png", pil_kwargs={"compress_level": 3}, **png)
    (folder / f"{name}.svg").write_text(svg_of(figure, name), encoding="utf-8")
