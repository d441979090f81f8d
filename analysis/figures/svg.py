"""Figure -> SVG in which marks carry hover texts and links, and texts that every font can show.

Drawing code registers what a mark stands for with `MarkedFigure.mark` and gives the returned
URL to the artist. Here these URLs become `<title>` elements and links. To keep the text short,
styles become classes, groups without attributes are dropped, and numbers are rounded.
"""

import io
import re
from collections.abc import Iterator
from functools import cache
from xml.etree.ElementTree import Element, fromstring, tostring

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text

from worldrep.text import plain

MARK = "mark:"  # prefix of the URLs of marks
HATCHING = {"hatch.linewidth": 0.7}
LOOK = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"], **HATCHING}
HEAD = ".figure{stroke-linejoin:round;stroke-linecap:butt}.figure text{pointer-events:none}"
LENGTHS = {"x", "y", "width", "height", "transform"}
FAMILY = "DejaVu Sans"  # comes with matplotlib
matplotlib.rcParams["text.parse_math"] = False  # a name may have dollar signs


def svg_of(figure: Figure, name: str, runs: str = "") -> str:
    """Return the figure as one `<svg>` element.

    Args:
        figure: A figure. The output is deterministic.
        name: Prefix of all classes and salt of all ids, unique in the page.
        runs: URL prefix to which the run id is appended; empty for no links.
    """
    make_drawable(figure)
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, **LOOK}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    root, marks = fromstring(written.getvalue()), getattr(figure, "marks", [])
    classes: dict[str, str] = {}  # CSS declarations -> class
    for element in list(root.iter()):
        _shorten(element)
        if style := element.attrib.pop("style", ""):
            element.set("class", classes.setdefault(style, f"{name}-{len(classes)}"))
        if element.get("href", "").startswith(MARK):
            text, run_id = marks[int(element.attrib.pop("href").removeprefix(MARK))]
            element.attrib |= {"href": runs + run_id} if runs and run_id else {}
            element.insert(0, _element("title", text))
    for element in list(root.iter()):
        element[:] = _without_groups(element)
    root.attrib |= {"class": "figure", "xmlns": "http://www.w3.org/2000/svg"}
    rules = (f".{own}{{{style}}}" for style, own in classes.items())
    root.insert(0, _element("style", HEAD + "".join(rules)))
    return tostring(root, encoding="unicode").replace(" />", "/>")


def _element(tag: str, text: str) -> Element:
    element = Element(tag)
    element.text = plain(text)
    return element


def _shorten(element: Element) -> None:
    """Drop namespaces, white space, and what only programs read; clip by a style; round numbers."""
    element.tag, element.tail = element.tag.rpartition("}")[2], None
    if element.tag != "text":
        element.text = None
    element[:] = [c for c in element if c.tag.rpartition("}")[2] not in ("metadata", "style")]
    given = {key.rpartition("}")[2]: value for key, value in element.items() if key != "target"}
    if element.tag in ("g", "image"):  # to which nothing refers
        given.pop("id", None)
    for key in LENGTHS & given.keys() if element.tag != "image" else ():
        given[key] = _rounded(given[key], 1)
    if given.get("transform", "").startswith("rotate(-0 "):
        del given["transform"]
    if "d" in given:
        path = re.sub(r"\s*([A-Za-z]|$)\s*", r"\1", given["d"])
        given["d"] = _rounded(path, 2 if "C" in path else 1)
    style = given.pop("style", "")
    if fill := re.match(r"fill: (#\w+)(; |$)", style):  # hardly two cells have the same colour
        given["fill"], style = fill[1], style[fill.end() :]
    clip = f"clip-path: {given.pop('clip-path')}" if "clip-path" in given else ""
    element.attrib = given | {"style": "; ".join(filter(None, (style, clip)))}


def _rounded(text: str, digits: int) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), digits):g}", text)


def _without_groups(element: Element) -> Iterator[Element]:
    """Yield the children, with those of a group without attributes in its place."""
    for child in element:
        yield from _without_groups(child) if child.tag == "g" and not child.attrib else [child]


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
