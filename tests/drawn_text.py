"""The texts of a figure: which of them are cut off, or lie over another."""

import itertools

from matplotlib.text import Text


def clashes(figure) -> list[tuple[str, ...]]:
    """Texts that leave the figure, and pairs of texts that overlap.

    Of slanted texts only the first: their boxes overlap where they do not.
    """
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = set(figure.findobj(Text)) - _beyond(figure)
    drawn = [text for text in texts if text.get_visible() and text.get_text()]
    # Of the letters alone: an annotation counts the line that leads to it.
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in drawn]
    level = [box for text, box in zip(drawn, boxes, strict=True) if text.get_rotation() % 90 == 0]
    found: list[tuple[str, ...]] = [(text,) for text, box in boxes if not _inside(box, figure)]
    for (one, a), (other, b) in itertools.combinations(level, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > 0.5 and high > 0.5:
            found.append((one, other))
    return found


def _inside(box, figure) -> bool:
    right, top = figure.bbox.x1, figure.bbox.y1
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= right and box.y1 <= top


def _beyond(figure) -> set[Text]:
    """Labels of ticks outside their axes, which are not drawn."""
    return {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
