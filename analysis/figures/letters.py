"""Texts as figures draw them: no mathematics, and no letters that no font here has."""

from collections.abc import Iterator
from functools import cache

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

from worldrep.text import plain

FAMILY = "DejaVu Sans"  # comes with matplotlib
matplotlib.rcParams["text.parse_math"] = False  # a name may have dollar signs


def make_drawable(figure: Figure) -> None:
    r"""Draw letters that the usual font lacks with another one, or as an escape such as \u6771."""
    for text in figure.findobj(Text):
        if not text.get_text().isascii() or not text.get_text().isprintable():
            _make_drawable(text)


def _make_drawable(text: Text) -> None:
    shown = plain(text.get_text())
    fonts = {letter: _font_with(ord(letter)) for letter in set(shown) - {"\n"}}
    absent = {ord(letter): _escaped(letter) for letter, font in fonts.items() if not font}
    text.set_text(shown.translate(absent))
    if others := sorted({font for font in fonts.values() if font} - {FAMILY}):
        text.set_fontfamily([FAMILY, *others])


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@cache
def _font_with(letter: int) -> str:
    """Return the family of a font that has a letter, the usual one first; empty if none has."""
    return next((family for family, path in _fonts() if letter in _letters(path)), "")


def _fonts() -> Iterator[tuple[str, str]]:
    upright = [font for font in fontManager.ttflist if font.style == "normal"]
    for font in sorted(upright, key=lambda f: (f.name != FAMILY, abs(int(f.weight) - 400), f.name)):
        yield font.name, font.fname


@cache
def _letters(path: str) -> frozenset[int]:
    return frozenset(get_font(path).get_charmap())
