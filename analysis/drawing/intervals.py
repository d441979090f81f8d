"""Intervals: for each name a value, and how far it may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.drawing.chart import GREY, Chart

LETTER = 0.068


@dataclass(frozen=True, kw_only=True)
class Intervals(Chart):
    """One line for each value of the column `label`, from the top; groups lie below each other.

    value: column; low, high: columns of the interval's ends, NaN for none; parts: column of tuples
    of the single values (one for each seed) behind a row, drawn as small rings; reference: x of a
    vertical line.
    """

    label: str
    value: str
    low: str = ""
    high: str = ""
    parts: str = ""
    reference: float | None = None

    @property
    def left(self) -> float:
        longest = max((len(str(label)) for label in self.table[self.label]), default=0)
        return 0.3 + LETTER * longest

    def plot(self, axes: Axes, rows: pd.DataFrame, facet: Any) -> None:
        labels = list(dict.fromkeys(rows[self.label]))
        places = {label: i for i, label in enumerate(labels)}
        groups = self.grouped(rows)
        shifts = np.linspace(-0.25, 0.25, len(groups)) if len(groups) > 1 else [0.0]
        if self.reference is not None:
            axes.axvline(self.reference, color=GREY, linewidth=1.0)
        for (_, own, style), shift in zip(groups, shifts, strict=True):
            y = own[self.label].map(places).to_numpy(dtype=float) + shift
            value = own[self.value].to_numpy(dtype=float)
            if self.low:
                low, high = (own[c].to_numpy(dtype=float) for c in (self.low, self.high))
                axes.hlines(y, low, high, color=style.colour, linewidth=1.6, alpha=0.8)
            if self.parts:
                for height, parts in zip(y, own[self.parts], strict=True):
                    axes.scatter(
                        parts, [height] * len(parts), s=14, facecolors="none",
                        edgecolors=style.colour, linewidths=0.7, alpha=0.8,
                    )  # fmt: skip
            axes.scatter(value, y, s=34, color=style.colour, marker=style.marker, zorder=3)
        axes.set_yticks(range(len(labels)), [str(label) for label in labels], fontsize=9)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.margins(x=0.06)
