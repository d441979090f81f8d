"""Heatmaps: the numbers in the cells, what is said of them, and that nothing overlaps."""

import re

import numpy as np
import pandas as pd
import pytest
from drawn_text import clashes

from analysis.exp1_heatmaps import FAMILIES
from analysis.figures.heatmap import Panel
from analysis.figures.kinds import DIFFERENCE, PERFORMANCE
from analysis.panels import panels_of
from analysis.statistics.matrices import aggregate, trained_mask
from worldrep.names import TASK_NAMES, finetunings

ONE, TWO = FAMILIES.values()


def draw_heatmap(matrix, kind, title, about=""):
    return Panel("name", title, kind, matrix).draw(about)


def synthetic_matrix(fts, offset=0.0) -> pd.DataFrame:
    numbers = np.arange(len(fts) * 7).reshape(-1, 7) / 100 + offset
    return pd.DataFrame(numbers, index=pd.Index(fts, name="model"), columns=TASK_NAMES)


def cell_texts(figure) -> dict[tuple[int, int], str]:
    """(row, column) -> the number in the cell."""
    return {
        (int(y), int(x)): text.get_text()
        for text in figure.axes[0].texts
        for x, y in (text.get_position(),)
        if re.fullmatch(r"[+-]?\d\.\d\d", text.get_text())
    }


def test_a_figure_shows_the_numbers_of_its_matrix():
    numbers = synthetic_matrix(TWO)
    numbers.loc["ftwb2-3"] = np.nan
    figure = draw_heatmap(numbers, PERFORMANCE, "title")
    shown = cell_texts(figure)
    assert len(shown) == 140 and not any(row == 2 for row, _ in shown)
    assert all(text == f"{numbers.iat[cell]:.2f}" for cell, text in shown.items())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[12].split() == ["distance", "+", "perimeter", "ftwb2-13"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(TASK_NAMES)
    marks = {
        (int(text.get_position()[1]), int(text.get_position()[0]))
        for text in figure.axes[0].texts
        if text.get_text() == "T"
    }
    assert marks == set(map(tuple, np.argwhere(trained_mask(TWO).to_numpy()).tolist()))
    foot = " ".join(text.get_text() for text in figure.texts)
    assert "(n = 40, missing 2)" in foot and "(n = 100, missing 5)" in foot
    assert "missing.csv" in foot


def test_differences_carry_their_sign():
    numbers = synthetic_matrix(ONE, -0.1)
    shown = cell_texts(draw_heatmap(numbers, DIFFERENCE, "title"))
    assert (shown[0, 0], shown[1, 3], shown[2, 0]) == ("-0.10", "0.00", "+0.04")


def test_the_mean_of_seeds_shows_its_spread():
    low, high = synthetic_matrix(ONE), synthetic_matrix(ONE, 0.2)
    high.loc["ftwb1-2"] = np.nan
    figure = draw_heatmap(aggregate([low, high]), PERFORMANCE, "title")
    assert cell_texts(figure)[0, 0] == "0.10"
    below = [text.get_text() for text in figure.axes[0].texts]
    assert below.count("±0.10") == 42 and below.count("(1)") == 7
    foot = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "only n of the 2 seeds have this cell (7 cells)" in foot


@pytest.mark.parametrize(
    "fts, kind",
    [
        (TWO, PERFORMANCE),
        (finetunings("ftwb3"), DIFFERENCE),
        (ONE[:1], DIFFERENCE),
    ],
)
def test_no_text_is_cut_off_or_overlaps_another(fts, kind):
    matrices = [synthetic_matrix(fts, offset) for offset in (-0.2, 0.3, 0.1)]
    matrices[0].iloc[0] = np.nan
    about = "scale mini, width base, world with_atlantis, experiment worldrep; " + "x" * 60
    title = "Fine-tuned on two tasks (ftwb2): actual - expected, mean of 6 seeds 1, 2, 3, 4, 5, 42"
    for shown in (matrices[0], aggregate(matrices)):
        figure = draw_heatmap(shown, kind, title, about)
        assert clashes(figure) == []


def test_panels_of_many_seeds_keep_a_short_title():
    matrices = {seed: synthetic_matrix(ONE) for seed in range(10, 30)}
    assert panels_of("a", "A", PERFORMANCE, matrices)[-1].title == "A, mean of 20 seeds"
