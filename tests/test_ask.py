"""Questions with names of cities, and the command that asks a model."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from entrypoints import ask, finetune
from worldrep.data.tasks import TASKS
from worldrep.data.world import World
from worldrep.errors import InputError
from worldrep.evaluation.questions import Question, cities_in_words, parse_question
from worldrep.evaluation.representations import ProbeResult

ROWS = [
    ("01", "São Paulo", 0, 0, "South America"),
    ("02", "Tokyo", 30, 40, "Asia"),
    ("03", "Springfield", 10, 0, "North America"),
    ("04", "Springfield", 0, 10, "North America"),
    ("05", "Lima", 10, 10, "South America"),
    ("06", "Atlantis 1", -350, 350, "Atlantis"),
]
WORLD = World("standard", pd.DataFrame(ROWS, columns=["city_id", "name", "x", "y", "region"]))


@pytest.mark.parametrize("typed", [
    "dist(c_01,c_02)=", "dist(São Paulo,Tokyo)=", " distance( sao paulo , TOKYO ) ",
])  # fmt: skip
def test_cities_are_named_by_name_or_id(typed):
    question = Question.parse(typed, WORLD)
    assert question.text == "dist(c_01,c_02)=" and question.answer == "50"
    assert cities_in_words(question.cities) == "São Paulo (c_01), Tokyo (c_02)"


def test_every_task_can_be_asked_and_has_its_answer(mini_world):
    ids = mini_world.cities["city_id"].tolist()
    for task in TASKS.values():
        for k in task.sizes:
            text = task.question(ids[:k])
            question = Question.parse(text, mini_world)
            assert question.text == text
            assert [question.answer] == task.answers(mini_world.positions[:k][None])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hello", "'hello' is no question; a question is, for example, dist(c_01,c_02)="),
        ("dist(Tokyo", "is no question"),
        ("area(Tokyo,Lima)", "unknown task 'area'; allowed: dist, triarea, angle"),
        ("dist(Tokio,Lima)", "this world has no city 'Tokio'; similar names: Tokyo"),
        ("dist(c_9,Lima)", "there is no city c_9; ids are c_01 to c_06, not all"),
        ("dist(Tokyo)", "distance takes 2 cities, not 1"),
        ("dist(Tokyo,tokyo)", "has a city twice"),
        ("dist(,Tokyo)", "this world has no city ''"),
    ],
)
def test_what_is_no_question_is_one_sentence(typed, message):
    with pytest.raises(InputError) as fault:
        Question.parse(typed, WORLD)
    assert message in str(fault.value) and "\n" not in str(fault.value)


def test_all_cities_of_one_name_are_listed():
    with pytest.raises(InputError) as fault:
        Question.parse("dist(Springfield,Tokyo)", WORLD)
    listed = "c_03 (longitude 1.0, latitude 0.0), c_04 (longitude 0.0, latitude 1.0)"
    assert str(fault.value) == (f"2 cities are called 'Springfield'; name one by its id: {listed}")


@pytest.mark.parametrize(
    ("typed", "generated", "said"),
    [
        ("dist(c_01,c_02)", "50", "right"),
        ("dist(c_01,c_02)", "47x", "wrong, off by 3 (0.1 degree); right is 50"),
        ("dist(c_01,c_02)", "x", "no answer; right is 50"),
        ("compass(c_01,c_02)", "ne", "right"),
        ("compass(c_01,c_02)", "S", "wrong; right is NE"),
    ],
)
def test_answers_are_judged(typed, generated, said):
    assert Question.parse(typed, WORLD).judged(generated) == said


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("where()", "this world has no city ''"),
        ("where (Tokyo,Lima)", "asks for one city, as where(Tokyo)"),
        ("where(Tokio)", "similar names: Tokyo"),
        ("where(Tokyo", "is no question"),
    ],
)
def test_a_position_is_asked_of_one_city(typed, message):
    with pytest.raises(InputError) as fault:
        parse_question(typed, WORLD)
    assert message in str(fault.value)


def test_the_position_of_a_probe_is_judged():
    question = parse_question(" where(Lima) ", WORLD)
    place = question.place
    assert WORLD.cities["name"][place] == "Lima" and question.text == "where(c_05)="
    predicted = WORLD.positions + [[30.0, 40.0]]
    trained = np.zeros(len(predicted), bool)
    probe = ProbeResult(predicted, np.full(len(predicted), 50.0), trained, trained, trained)
    x, y = predicted[place] / 10
    true_x, true_y = WORLD.positions[place] / 10
    right = f"off by 5.0 degrees; right is ({true_x},{true_y})"
    assert question.judged(probe) == (f"({x},{y})", right)
    _, fitted = question.judged(replace(probe, trained=~trained))
    assert fitted == f"{right}, and the probe was fitted on this city"


def asked(*arguments, code=0):
    result = CliRunner().invoke(ask.main, ["--scale", "smoke", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_trained_model_is_asked(store_uri, tmp_path):
    assert CliRunner().invoke(finetune.main, ["--scale", "smoke", "--ft", "ftwb1-1"]).exit_code == 0
    (tmp_path / "questions").write_text("dist(Tokyo,Atlantis 1)\n\ncompass(Lagos,Tokyo)\n")
    own = asked("--model", "pt1", "--file", "questions", "angle(Lagos,Tokyo,Atlantis 2)=")
    assert own.count("the model was not trained on Atlantis") == 2
    assert own.count("the model was trained on all") == 1
    tuned = asked("--model", "pt1_ftwb1-1", "dist(Tokyo,Atlantis 1)")
    assert "the model was trained on all" in tuned and tuned.count("\n") == 3
    assert asked("pt1_ftwb1-1", "dist(Tokyo,Atlantis 1)") == tuned
    where = asked("pt1_ftwb1-1", "where(Atlantis 1)", "dist(Tokyo,Atlantis 1)", "where(Tokyo)")
    lines = where.splitlines()
    assert len(lines) == 7 and lines[3:5] == tuned.splitlines()[1:]
    assert re.fullmatch(r"where\(c_\d+\)=\(.+,.+\)  off by .+ degrees; right is .*", lines[1])
    both = asked("--model", "pt1_ftwb1-1", "--checkpoints", "all", "dist(Tokyo,Lagos)")
    assert both.count("step ") > 1
    assert "ask a question" in asked("--model", "pt1", code=2)
    own = asked("--list-cities", "--model", "pt1_ftwb1-1")
    assert own == asked("--list-cities", "pt1_ftwb1-1") == asked("--list-cities")
    assert "not both" in asked("--list-cities", "dist(Tokyo,Lagos)", code=2)
    listed = asked("--list-cities").splitlines()
    assert len(listed) == 29
    assert listed[21].split() == ["c_09", "Atlantis", "1", "-34.9", "39.1", "Atlantis"]
    assert "name one model" in asked("dist(Tokyo,Lagos)", code=2)
    absent = asked("--model", "pt1-3", "dist(Tokyo,Lagos)", code=1)
    assert f"is not in the store {store_uri}" in absent
    assert "cannot read file=none.txt" in asked("--model", "pt1", "--file", "none.txt", code=2)
