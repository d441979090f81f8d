"""Figure -> compact SVG in which marks carry hover texts and links.

Drawing code registers what a mark stands for with `MarkedFigure.mark` and gives the returned
URL to the artist. Here these URLs become `<title>` elements and links. The rest makes the text
short: styles become classes, attributes that siblings share move to their parent, paths become
relative with one decimal (0.1 pt), and ids are numbered.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

MARK = "mark:"  # prefix of the URLs of marks
HATCHING = {"hatch.linewidth": 0.7}
Element = ElementTree.Element
LINK = "link"  # temporary attribute of what belongs into a link
GROUPED = ("clip-path", "class", LINK, "fill")  # attributes that move to groups, outermost first


def svg_of(figure: Figure, name: str, runs: str = "", styles: dict[str, str] | None = None) -> str:
    """Return the figure as one `<svg>` element.

    Args:
        figure: A figure; the same one always gives the same text.
        name: Prefix of all ids, unique in the page.
        runs: Address to which the id of a run is added; empty for no links.
        styles: CSS declarations -> class name, shared by all figures of a page, which writes the
            rules itself. None: the element holds its own rules, as a file needs.
    """
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", **HATCHING}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    rules: dict[str, str] = {} if styles is None else styles
    _Compacter(getattr(figure, "marks", []), name, runs, rules).compact(root)
    root.set("class", "figure")
    if styles is None:
        root.set("xmlns", "http://www.w3.org/2000/svg")
        root.set("xmlns:xlink", "http://www.w3.org/1999/xlink")
        root.insert(0, Element("style"))
        root[0].text = css(rules)
    text = ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")
    return text.replace(' href="', ' xlink:href="') if styles is None else text


def css(styles: Mapping[str, str]) -> str:
    """Return the rules of all classes."""
    head = ".figure{stroke-linejoin:round;stroke-linecap:butt}.figure text{pointer-events:none}"
    return head + "".join(f".{name}{{{style}}}" for style, name in styles.items())


class _Compacter:
    """Rewrites the SVG of matplotlib."""

    def __init__(
        self, marks: Sequence[tuple[str, str]], name: str, runs: str, styles: dict[str, str]
    ) -> None:
        self._marks, self._name, self._runs, self._styles = marks, name, runs, styles
        self._ids: dict[str, str] = {}
        self._defs = Element("defs")

    def compact(self, root: Element) -> None:
        """Replace the children of the root by a short list of groups."""
        for element in root.iter():
            _simplify(element)
        values = "\n".join(f"{k}={v}" for element in root.iter() for k, v in element.items())
        for found in re.findall(r"(?:href=|url\()#(\w+)", values):
            self._ids.setdefault(found, f"{self._name}.{len(self._ids)}")
        for element in root.iter():
            self._shorten(element)
        self._see_through = {c for style, c in self._styles.items() if "opacity" in style}
        root[:] = [self._defs, *self._grouped(list(self._leaves(root, {}, "")), GROUPED)]

    def _shorten(self, element: Element) -> None:
        attributes = element.attrib
        for key, value in attributes.items():
            attributes[key] = re.sub(r"#(\w+)", lambda m: f"#{self._ids.get(m[1], m[1])}", value)
            if key == "d":
                attributes[key] = short_path(value)
            elif key in ("x", "y", "width", "height", "transform") and element.tag != "image":
                attributes[key] = _rounded(attributes[key], 1)
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        parts = (part.partition(":") for part in attributes.pop("style", "").split(";"))
        style = {key.strip(): value.strip() for key, _, value in parts if value}
        if "fill" in style:
            attributes["fill"] = style.pop("fill")
        if style:
            rule = ";".join(f"{key}:{value}" for key, value in style.items())
            attributes["class"] = self._styles.setdefault(rule, f"c{len(self._styles)}")

    def _leaves(self, element: Element, inherited: dict[str, str], text: str) -> Iterator[Element]:
        """What is drawn, in order, with the attributes and the hover text of its groups."""
        if element.tag == "defs":
            for child in element:
                if child.get("id") in self._ids:
                    child.set("id", self._ids[child.attrib["id"]])
                    self._defs.append(child)
            return
        if element.tag not in ("svg", "g", "a") or "transform" in element.attrib:
            yield from _leaf(element, inherited, text)
            return
        if element.tag == "a":
            text, run_id = self._marks[int(element.attrib["href"].removeprefix(MARK))]
            inherited = inherited | {LINK: self._runs + run_id if self._runs and run_id else ""}
        inherited = inherited | {k: v for k, v in element.items() if k == "clip-path"}
        for child in element:
            yield from self._leaves(child, inherited, text)

    def _grouped(self, elements: Sequence[Element], keys: Sequence[str]) -> list[Element]:
        """Move attributes that neighbours share to a group around them."""
        if not keys:
            return list(elements)
        groups: list[Element] = []
        key, *further = keys
        for value, run in itertools.groupby(elements, key=lambda e: e.get(key, "")):
            own = list(run)
            alone = len(own) == 1 and key != LINK
            if not value or value in self._see_through or alone:
                groups += self._grouped(own, further)
                continue
            for element in own:
                del element.attrib[key]
            groups.append(Element("a", href=value) if key == LINK else Element("g", {key: value}))
            groups[-1].extend(self._grouped(own, further))
        return groups


def _simplify(element: Element) -> None:
    """Drop namespaces, white space, and what only programs read."""
    element.tag = element.tag.rpartition("}")[2]
    kept = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.attrib.clear()
    element.attrib.update({key: value for key, value in kept.items() if key != "target"})
    element.tail = None
    if element.tag != "text":
        element.text = None
    element[:] = [c for c in element if c.tag.rpartition("}")[2] not in ("metadata", "style")]


def _leaf(element: Element, inherited: Mapping[str, str], text: str) -> Iterator[Element]:
    """An element with the attributes of its groups and a title; nothing for an empty path."""
    if element.tag == "path" and not element.get("d"):
        return
    element.attrib.pop("id", None)
    if text:
        title = Element("title")
        title.text = text
        element.insert(0, title)
    if "transform" in element.attrib and inherited:  # which a clip path must not share
        group = Element("g")
        group.append(element)
        element = group
    element.attrib.update({key: value for key, value in inherited.items() if value})
    yield element


def short_path(path: str) -> str:
    """Shorten a path: lines become relative with one decimal, curves keep two decimals."""
    if set(re.findall("[A-Za-z]", path)) - set("MLz"):
        return _rounded(" ".join(path.split()), 2)
    parts, at = [], (0, 0)
    for token, *numbers in re.findall(r"z|([ML])\s*(-?[\d.]+)\s+(-?[\d.]+)", path):
        if not token:
            parts.append("z")
            continue
        x, y = (round(10 * float(number)) for number in numbers)
        parts.append(f"M{x / 10:g} {y / 10:g}" if token == "M" else _step(x - at[0], y - at[1]))
        at = x, y
    return "".join(parts)


def _step(x: int, y: int) -> str:
    """A line to a point at this distance, in tenths."""
    if not x or not y:
        return f"h{x / 10:g}" if x else f"v{y / 10:g}" if y else ""
    return f"l{x / 10:g} {y / 10:g}".replace(" -", "-")


def _rounded(text: str, digits: int) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), digits):g}", text)
