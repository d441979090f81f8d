"""The seven tasks: how questions are written, answered and scored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrep.data.tasks import TASKS
from worldrep.names import TASK_NAMES

IDS = ["0865", "4879", "0012", "7777", "0001", "9999"]
NUMBER_TASKS = ["distance", "trianglearea", "angle", "perimeter"]
CHOICE_TASKS = ["compass", "inside", "crossing"]


def test_tasks_stand_in_their_order_everywhere():
    expected = ["distance", "trianglearea", "angle", "compass", "inside", "perimeter", "crossing"]
    assert list(TASKS) == expected == list(TASK_NAMES)
    assert [task.name for task in TASKS.values()] == expected


def test_accuracy_tasks_and_balanced_tasks():
    assert [name for name, task in TASKS.items() if task.accuracy] == CHOICE_TASKS
    assert [name for name, task in TASKS.items() if task.balanced] == ["inside", "crossing"]


# Questions


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("distance", "dist(c_0865,c_4879)="),
        ("trianglearea", "triarea(c_0865,c_4879,c_0012)="),
        ("angle", "angle(c_0865,c_4879,c_0012)="),
        ("compass", "compass(c_0865,c_4879)="),
        ("inside", "inside(c_0865;c_4879,c_0012,c_7777)="),
        ("inside", "inside(c_0865;c_4879,c_0012,c_7777,c_0001)="),
        ("inside", "inside(c_0865;c_4879,c_0012,c_7777,c_0001,c_9999)="),
        ("perimeter", "perimeter(c_0865,c_4879)="),
        ("perimeter", "perimeter(c_0865,c_4879,c_0012)="),
        ("perimeter", "perimeter(c_0865,c_4879,c_0012,c_7777)="),
        ("perimeter", "perimeter(c_0865,c_4879,c_0012,c_7777,c_0001)="),
        ("crossing", "cross(c_0865,c_4879;c_0012,c_7777)="),
    ],
)
def test_a_question_is_written_as_the_design_says(name, question):
    assert TASKS[name].question(IDS[: question.count("c_")]) == question


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("distance", (2,)),
        ("trianglearea", (3,)),
        ("angle", (3,)),
        ("compass", (2,)),
        ("inside", (4, 5, 6)),
        ("perimeter", (2, 3, 4, 5)),
        ("crossing", (4,)),
    ],
)
def test_other_numbers_of_cities_are_refused(name, sizes):
    task = TASKS[name]
    assert task.sizes == sizes
    for k in set(range(8)) - set(sizes):
        with pytest.raises(ValueError, match=rf"{name} .*not"):
            task.question(["0000"] * k)
        with pytest.raises(ValueError, match=rf"{name} .*not"):
            task.answers(np.zeros((3, k, 2), dtype=int))


@pytest.mark.parametrize("shape", [(2, 2), (4, 2, 3), (2,)])
def test_points_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(n, k, 2\)"):
        TASKS["distance"].answers(np.zeros(shape, dtype=int))


# Answers


@pytest.mark.parametrize(
    ("name", "points", "answer"),
    [
        ("distance", [(0, 0), (3, 4)], "5"),
        ("trianglearea", [(0, 0), (1, 0), (0, 5)], "2"),
        ("angle", [(5, 0), (0, 0), (0, 3)], "90"),
        ("compass", [(0, 0), (5, 5)], "NE"),
        ("inside", [(1, 1), (0, 0), (4, 0), (0, 4)], "TRUE"),
        ("inside", [(9, 9), (0, 0), (4, 0), (0, 4)], "FALSE"),
        ("perimeter", [(0, 0), (3, 0), (3, 4)], "12"),
        ("crossing", [(0, 0), (4, 4), (0, 4), (4, 0)], "TRUE"),
        ("crossing", [(0, 0), (1, 1), (3, 0), (4, 5)], "FALSE"),
    ],
)
def test_answers_are_texts(name, points, answer):
    assert TASKS[name].answers([points, points]) == [answer, answer]


@pytest.mark.parametrize(
    ("to", "direction"),
    [
        ((9, 0), "E"),
        ((9, 9), "NE"),
        ((0, 9), "N"),
        ((-9, 9), "NW"),
        ((-9, 0), "W"),
        ((-9, -9), "SW"),
        ((0, -9), "S"),
        ((9, -9), "SE"),
    ],
)
def test_compass_points_from_the_first_city_to_the_second(to, direction):
    assert TASKS["compass"].answers([[(0, 0), to]]) == [direction]


def test_coincident_cities_have_angle_0_and_compass_n():
    here, there = (120, -35), (7, 8)
    assert TASKS["angle"].answers([[here, here, there]]) == ["0"]
    assert TASKS["compass"].answers([[here, here]]) == ["N"]


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_longer_than_announced(name):
    task, rng = TASKS[name], np.random.default_rng(0)
    corners = np.array([(-1800, -900), (1800, -900), (1800, 900), (-1800, 900), (0, 900)])
    lengths = set()
    for k in task.sizes:
        answers = task.answers(corners[rng.integers(0, 5, size=(5000, k))])
        lengths |= {len(answer) for answer in answers}
    assert max(lengths) == task.longest


# Scores of error tasks


@pytest.mark.parametrize("name", NUMBER_TASKS)
@pytest.mark.parametrize(
    ("generated", "error"),
    [
        ("769", 0),
        ("12", 757),
        ("0", 769),
        ("0769", 0),
        ("1000", 231),
        ("12abc", 757),
        ("769<pad>", 0),
        ("769.9", 0),
        ("769 12", 0),
        ("769-1", 0),
    ],
)
def test_error_against_the_digits_directly_after_the_equals_sign(name, generated, error):
    task = TASKS[name]
    assert task.scores(["769"], [generated]).tolist() == [error]
    assert task.valid([generated]).tolist() == [True]


@pytest.mark.parametrize(
    ("name", "failure"),
    [("distance", 4024.92), ("trianglearea", 3_240_000), ("angle", 180), ("perimeter", 20_000)],
)
@pytest.mark.parametrize(
    "generated", ["", "-12", "x12", " 12", "+12", "\n12", ".5", "<eos>", "=12", "\u0661\u0662"]
)
def test_an_unparsable_number_costs_the_failure_value(name, failure, generated):
    task = TASKS[name]
    assert task.scores(["12"], [generated]).tolist() == [failure]
    assert task.valid([generated]).tolist() == [False]


def test_an_error_may_exceed_the_failure_value():
    assert TASKS["angle"].scores(["10"], ["999"]).tolist() == [989]


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_generated_text_gets_a_finite_error(texts):
    task = TASKS["distance"]
    scores, valid = task.scores(["5"] * len(texts), texts), task.valid(texts)
    assert scores.shape == valid.shape == (len(texts),)
    assert np.isfinite(scores).all()
    assert (scores[~valid] == 4024.92).all()


# Scores of accuracy tasks


@pytest.mark.parametrize(
    ("name", "expected", "generated", "score", "valid"),
    [
        ("compass", "NE", "NE", 1, True),
        ("compass", "NE", "ne", 1, True),
        ("compass", "NE", "nE", 1, True),
        ("compass", "NE", "N", 0, True),
        ("compass", "N", "NE", 0, True),
        ("compass", "NE", "NEE", 0, False),
        ("compass", "NE", " NE", 0, False),
        ("compass", "NE", "NE ", 0, False),
        ("compass", "NE", "EN", 0, False),
        ("compass", "NE", "", 0, False),
        ("inside", "TRUE", "TRUE", 1, True),
        ("inside", "TRUE", "true", 1, True),
        ("inside", "TRUE", "False", 0, True),
        ("inside", "TRUE", "T", 0, False),
        ("inside", "TRUE", "TRUE<pad>", 0, False),
        ("crossing", "FALSE", "fAlSe", 1, True),
        ("crossing", "FALSE", "TRUE", 0, True),
        ("crossing", "FALSE", "1", 0, False),
        ("crossing", "FALSE", "NE", 0, False),
    ],
)
def test_a_choice_is_right_when_the_whole_text_equals_it(name, expected, generated, score, valid):
    task = TASKS[name]
    assert task.scores([expected], [generated]).tolist() == [score]
    assert task.valid([generated]).tolist() == [valid]


# All tasks


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_a_float_for_each_row(name):
    task = TASKS[name]
    answer = "NW" if name == "compass" else "TRUE" if task.accuracy else "17"
    scores = task.scores([answer] * 3, [answer, "?", answer])
    assert scores.dtype == np.float64
    assert scores.tolist() == ([1, 0, 1] if task.accuracy else [0, task.failure, 0])
    assert task.valid([answer, "?", answer]).tolist() == [True, False, True]


@pytest.mark.parametrize("name", TASKS)
def test_no_rows_have_no_scores(name):
    assert TASKS[name].scores([], []).shape == TASKS[name].valid([]).shape == (0,)


@pytest.mark.parametrize("name", TASKS)
def test_unequal_numbers_of_answers_are_refused(name):
    with pytest.raises(ValueError, match="2 expected answers against 1 generations"):
        TASKS[name].scores(["1", "2"], ["1"])
