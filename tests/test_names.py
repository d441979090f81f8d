"""Names: every mixture of the study under its number, and model names that are read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrep.errors import InputError
from worldrep.names import (
    FINETUNINGS,
    PRETRAININGS,
    TASK_NAMES,
    WIDTHS,
    ModelName,
    has_warmup_rows,
    parse_model,
)

# The tables of the study as they are printed in its description.
PAIRS = """
1 distance+trianglearea, 2 angle+compass, 3 inside+perimeter, 4 crossing+distance,
5 trianglearea+angle, 6 compass+inside, 7 perimeter+crossing, 8 angle+distance,
9 compass+trianglearea, 10 angle+inside, 11 compass+perimeter, 12 crossing+inside,
13 distance+perimeter, 14 crossing+trianglearea, 15 compass+distance, 16 inside+trianglearea,
17 angle+perimeter, 18 compass+crossing, 19 distance+inside, 20 perimeter+trianglearea,
21 angle+crossing"""
TRIPLES = """
1 distance+trianglearea+angle, 2 compass+inside+perimeter, 3 crossing+distance+trianglearea,
4 angle+compass+inside, 5 perimeter+crossing+distance, 6 trianglearea+angle+compass,
7 inside+perimeter+crossing"""
SINGLES = ",".join(f"{k} {task}" for k, task in enumerate(TASK_NAMES, start=1))

ALL_MODELS = [
    ModelName(pretrain, ft, width)
    for pretrain in PRETRAININGS
    for ft in ("none", *FINETUNINGS)
    for width in WIDTHS
]


def table(prefix, text):
    """A printed table as names and mixtures: `2 angle+compass` -> ft2-2: (angle, compass)."""
    entries = [entry.split() for entry in text.split(",")]
    return {f"{prefix}-{number}": tuple(tasks.split("+")) for number, tasks in entries}


def test_finetunings_are_those_of_the_study_with_and_without_warmup():
    assert {
        name: tasks
        for family in ("ft", "ftwb")
        for size, text in ((1, SINGLES), (2, PAIRS), (3, TRIPLES))
        for name, tasks in table(f"{family}{size}", text).items()
    } == FINETUNINGS


def test_pretrainings_are_those_of_the_study():
    pairs, triples = table("pt2", PAIRS), table("pt3", TRIPLES)
    assert {
        "pt1": TASK_NAMES,
        **table("pt1", SINGLES),
        **{f"pt2-{k}": pairs[f"pt2-{k}"] for k in range(1, 8)},
        "pt2-8": ("distance", "angle"),
        **triples,
        "pt3-8": ("distance", "trianglearea", "compass"),
    } == PRETRAININGS


def test_pairs_are_all_pairs_of_tasks_once():
    pairs = [frozenset(FINETUNINGS[f"ft2-{k}"]) for k in range(1, 22)]
    assert len(set(pairs)) == 21
    assert all(len(pair) == 2 for pair in pairs)


def test_every_mixture_names_tasks_once():
    for tasks in (*PRETRAININGS.values(), *FINETUNINGS.values()):
        assert set(tasks) <= set(TASK_NAMES)
        assert len(set(tasks)) == len(tasks)


def test_warmup_rows_belong_to_ftwb_alone():
    assert has_warmup_rows("ftwb2-13")
    assert not has_warmup_rows("ft2-13")
    assert not has_warmup_rows("none")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pt1", ("pt1", "none", "base")),
        ("pt1-3", ("pt1-3", "none", "base")),
        ("pt1_ftwb2-13", ("pt1", "ftwb2-13", "base")),
        ("pt1@wide", ("pt1", "none", "wide")),
        ("pt1@wide_ftwb2-13", ("pt1", "ftwb2-13", "wide")),
        ("pt3-8@narrow_ft1-7", ("pt3-8", "ft1-7", "narrow")),
    ],
)
def test_a_model_name_is_read_and_written(text, parts):
    assert parse_model(text) == ModelName(*parts)
    assert str(ModelName(*parts)) == text


def test_every_model_name_is_read_back():
    assert all(parse_model(str(model)) == model for model in ALL_MODELS)
    assert len({str(model) for model in ALL_MODELS}) == len(ALL_MODELS)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("pt4", "pt"),
        ("pt1-9", "pt1-"),
        ("pt1@wided", "wide"),
        ("pt1_ftwb2-22", "ftwb2-2"),
        ("pt1_ftbw2-13", "ftwb2-13"),
    ],
)
def test_an_unknown_part_is_told_with_the_nearest_one(text, nearest):
    with pytest.raises(InputError, match=rf"did you mean '{nearest}.*allowed: "):
        parse_model(text)


@pytest.mark.parametrize(
    "text", ["", "pt1_", "pt1@", "pt1@_ft1-1", "_ft1-1", "pt1_ft1-1@wide", "PT1"]
)
def test_malformed_names_are_refused(text):
    with pytest.raises(InputError):
        parse_model(text)


def test_a_finetuning_without_its_base_is_told():
    with pytest.raises(InputError, match="'ftwb1-3' has no base: .* as in pt1_ftwb1-3"):
        parse_model("ftwb1-3")


@given(st.text(alphabet="ptfwb123-_@ide", max_size=20))
def test_any_text_is_a_model_or_an_input_error(text):
    try:
        model = parse_model(text)
    except InputError:
        return
    assert parse_model(str(model)) == model


def test_the_base_of_a_model():
    assert parse_model("pt1@wide_ftwb2-13").base == parse_model("pt1@wide")
    assert parse_model("pt1-3").base == parse_model("pt1-3")


def test_the_tasks_of_a_model_are_those_of_its_last_stage():
    assert parse_model("pt1").tasks == TASK_NAMES
    assert parse_model("pt2-8").tasks == ("distance", "angle")
    assert parse_model("pt2-8_ftwb2-4").tasks == ("crossing", "distance")
