"""Rows, read back from their tokens: balance, disjointness, sizes, pools, and right answers.

Nothing here looks at how rows are made: texts are decoded, parsed and answered once more, row by
row, in plain Python.
"""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import product

import numpy as np
import pytest
from plain_answers import parse, wrong_rows

from worldrep.data.rows import RowMaker, RowSet, question_keys
from worldrep.data.tokens import PAD, decode_rows
from worldrep.data.world import world_of
from worldrep.errors import InputError
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve

TINY = {  # a world so small that every training set would meet the held-out questions
    "n_cities": 9,
    "n_atlantis": 3,
    "val_rows": 12,
    "test_rows": 30,
    "pretrain_rows": 1000,
    "ft_atlantis_rows": 1000,
    "ft_world_rows": 1000,
    "ft_warmup_rows": 1000,
}
SCALES = {"tiny": ("smoke", TINY), "smoke": ("smoke", {}), "mini": ("mini", {})}
HELD_OUT = [("world", "val"), ("world", "test"), ("atlantis", "val"), ("atlantis", "test")]
TRAINING = [
    ("world", "pretrain"),
    ("all", "pretrain"),
    ("atlantis", "finetune"),
    ("world", "finetune"),
    ("atlantis", "warmup"),
]


def make(scale, **overrides):
    settings = resolve(ModelName("pt1"), scale=scale, overrides=overrides)
    return RowMaker(world_of(settings), settings)


@cache
def maker(scale):
    preset, overrides = SCALES.get(scale, (scale, {}))
    return make(preset, **overrides)


def size_of(scale, pool, split):
    """The rows of a set at a scale."""
    preset, overrides = SCALES[scale]
    rows = resolve(ModelName("pt1"), scale=preset, overrides=overrides).as_dict()
    finetune = "ft_atlantis_rows" if pool == "atlantis" else "ft_world_rows"
    names = {"val": "val_rows", "test": "test_rows", "pretrain": "pretrain_rows"}
    return rows[{**names, "finetune": finetune, "warmup": "ft_warmup_rows"}[split]]


def texts_of(maker, task, pool, split, rows):
    tokens = maker.tokens(RowSet(task, pool, split, rows))
    return [text.removeprefix("<bos>") for text in decode_rows(tokens)]


@cache
def texts(scale, task, pool, split):
    """Rows of one set at a scale, as texts."""
    return texts_of(maker(scale), task, pool, split, size_of(scale, pool, split))


@cache
def paper_texts(task, pool, split, rows):
    return texts_of(maker("paper"), task, pool, split, rows)


def questions(rows):
    return {text.split("=")[0] for text in rows}


# Answers


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_answer_agrees_with_a_plain_computation(task):
    for pool, split in HELD_OUT + TRAINING:
        assert not wrong_rows(texts("smoke", task, pool, split), maker("smoke").world)
        assert not wrong_rows(texts("tiny", task, pool, split), maker("tiny").world)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_answer_agrees_at_paper_scale(task):
    for pool in ("world", "atlantis", "all"):
        rows = paper_texts(task, pool, "pretrain", 1000)
        assert not wrong_rows(rows, maker("paper").world)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_answer_agrees_where_cities_coincide_and_line_up(tmp_path, task):
    path = tmp_path / "grid.csv"
    grid = [f"City,{x},{y},Grid" for x, y in product(range(4), repeat=2)] * 2
    path.write_text("\n".join(["name,x,y,region", *grid, "City,1,1,Atlantis", "City,5,2,Atlantis"]))
    small = make("smoke", cities=str(path))
    for pool in ("world", "atlantis"):
        assert not wrong_rows(texts_of(small, task, pool, "pretrain", 2000), small.world)


# Balance


def label_counts(rows):
    """How often each answer stands with each number of cities."""
    counts = {}
    for text in rows:
        _, ids, answer = parse(text)
        counts.setdefault(len(ids), Counter())[answer] += 1
    return counts


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("pool", "split"), HELD_OUT + TRAINING)
def test_crossing_is_true_in_exactly_half_of_the_rows(scale, pool, split):
    counts = label_counts(texts(scale, "crossing", pool, split))
    half = size_of(scale, pool, split) // 2
    assert counts == {4: {"TRUE": half, "FALSE": half}}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("pool", "split"), HELD_OUT + TRAINING)
def test_inside_is_true_in_exactly_half_of_the_rows_of_each_size(scale, pool, split):
    rows = texts(scale, "inside", pool, split)
    counts = label_counts(rows)
    assert set(counts) == ({4, 5, 6} if len(rows) >= 6 else {4, 5})
    assert all(count["TRUE"] == count["FALSE"] for count in counts.values())


@pytest.mark.parametrize(("pool", "split"), [("world", "test"), ("atlantis", "finetune")])
def test_balance_at_paper_scale(pool, split):
    assert label_counts(paper_texts("crossing", pool, split, 10_000)) == {
        4: {"TRUE": 5000, "FALSE": 5000}
    }
    assert label_counts(paper_texts("inside", pool, split, 10_000)) == {
        4: {"TRUE": 1667, "FALSE": 1667},
        5: {"TRUE": 1667, "FALSE": 1667},
        6: {"TRUE": 1666, "FALSE": 1666},
    }


def test_an_odd_number_of_rows_has_one_more_false():
    counts = label_counts(texts_of(maker("mini"), "crossing", "world", "pretrain", 37))
    assert counts == {4: {"TRUE": 18, "FALSE": 19}}
    counts = label_counts(texts_of(maker("mini"), "inside", "world", "pretrain", 37))
    assert sum(counts.values(), Counter()) == {"TRUE": 18, "FALSE": 19}


@pytest.mark.parametrize("task", ["inside", "perimeter"])
def test_numbers_of_cities_are_equally_frequent(task):
    sizes = Counter(len(parse(text)[1]) for text in texts("mini", task, "world", "pretrain"))
    assert set(sizes) == ({4, 5, 6} if task == "inside" else {2, 3, 4, 5})
    assert max(sizes.values()) - min(sizes.values()) <= 2


def test_rows_stand_in_random_order():
    start = label_counts(texts("mini", "inside", "world", "pretrain")[:120])
    assert all(count[answer] >= 5 for count in start.values() for answer in ("TRUE", "FALSE"))
    assert set(start) == {4, 5, 6}


# Disjoint questions, exact sizes


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_training_sets_hold_no_question_of_a_held_out_set(scale, task):
    held_out = set().union(*(questions(texts(scale, task, *part)) for part in HELD_OUT))
    for part in TRAINING:
        assert held_out.isdisjoint(questions(texts(scale, task, *part)))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_held_out_questions_are_all_distinct(scale, task):
    rows = [text for part in HELD_OUT for text in texts(scale, task, *part)]
    assert len(questions(rows)) == len(rows)


@pytest.mark.parametrize("task", ["distance", "compass"])
def test_sets_of_paper_scale_share_no_question(task):
    sizes = {"val": 128, "test": 10_000, "pretrain": 100_000}
    parts = [questions(paper_texts(task, "world", split, n)) for split, n in sizes.items()]
    assert len(parts[0] | parts[1]) == 10_128
    assert (parts[0] | parts[1]).isdisjoint(parts[2])


def test_a_question_may_recur_in_training():
    rows = texts("tiny", "distance", "world", "pretrain")
    assert len(questions(rows)) == 9 * 8 - 12 - 30
    assert len(rows) == 1000


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_set_has_exactly_the_rows_asked_for(scale, task):
    for part in HELD_OUT + TRAINING:
        assert len(texts(scale, task, *part)) == size_of(scale, *part)


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_very_small_sets_have_their_size_too(task, rows):
    assert len(texts_of(maker("smoke"), task, "world", "pretrain", rows)) == rows


def test_all_questions_of_a_world_can_be_used():
    full = make("smoke", n_cities=6, val_rows=10, test_rows=20)
    rows = [text for split in ("val", "test") for text in decode_split(full, split)]
    assert len(questions(rows)) == 6 * 5


def decode_split(maker, split):
    return texts_of(maker, "distance", "world", split, maker.held_out_rows[split])


def test_a_world_with_too_few_questions_is_told_in_a_sentence():
    small = make("smoke", n_cities=6, val_rows=10, test_rows=21)
    with pytest.raises(InputError) as caught:
        decode_split(small, "test")
    assert str(caught.value) == (
        "the world has too few questions for the test rows of distance (world): "
        "21 with 2 cities asked for, 20 found; take more cities, or fewer val_rows and test_rows"
    )


def test_training_rows_are_not_taken_from_the_held_out_ones_instead():
    small = make("smoke", n_cities=6, val_rows=10, test_rows=20)
    with pytest.raises(InputError, match=r"pretrain rows of distance \(world\): .* 0 found"):
        texts_of(small, "distance", "world", "pretrain", 5)


def test_the_sentence_names_the_answer_that_is_too_rare(tmp_path):
    path = tmp_path / "line.csv"
    path.write_text("\n".join(["name,x,y", *(f"City,{i},{i}" for i in range(8))]))
    line = make("smoke", cities=str(path))
    with pytest.raises(InputError, match="4 with 4 cities answered TRUE asked for, 0 found"):
        texts_of(line, "inside", "world", "val", 24)


# Pools


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_no_city_stands_twice_in_a_row(scale, task):
    for part in HELD_OUT + TRAINING:
        for text in texts(scale, task, *part):
            ids = parse(text)[1]
            assert len(set(ids)) == len(ids)


def atlantis_places(scale, rows):
    """For each row, its number of cities and the places at which a city of Atlantis stands."""
    world = maker(scale).world
    atlantis = set(world.cities["city_id"][world.is_atlantis])
    cities = [parse(text)[1] for text in rows]
    return [(len(ids), [i for i, city in enumerate(ids) if city in atlantis]) for ids in cities]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_world_rows_have_no_city_of_atlantis(task):
    for split in ("val", "test", "pretrain", "finetune"):
        assert not any(at for _, at in atlantis_places("mini", texts("mini", task, "world", split)))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_atlantis_rows_have_at_least_one_city_of_atlantis(task):
    for split in ("val", "test", "finetune", "warmup"):
        rows = texts("mini", task, "atlantis", split)
        assert all(places for _, places in atlantis_places("mini", rows))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_city_of_atlantis_stands_at_every_place(task):
    rows = paper_texts(task, "atlantis", "finetune", 10_000)
    alone = Counter((k, at[0]) for k, at in atlantis_places("paper", rows) if len(at) == 1)
    sizes = {k for k, _ in alone}
    assert set(alone) == {(k, place) for k in sizes for place in range(k)}
    for k in sizes if task not in ("inside", "crossing") else ():
        counts = [alone[k, place] for place in range(k)]
        assert max(counts) < 1.2 * min(counts)


def test_all_cities_of_atlantis_are_equally_likely():
    world = maker("paper").world
    atlantis = set(world.cities["city_id"][world.is_atlantis])
    rows = paper_texts("distance", "atlantis", "finetune", 10_000)
    counts = Counter(city for text in rows for city in parse(text)[1] if city in atlantis)
    assert set(counts) == atlantis
    assert max(counts.values()) < 2 * min(counts.values())


def test_other_cities_of_an_atlantis_row_are_any():
    rows = texts("mini", "crossing", "atlantis", "finetune")
    assert {len(at) for _, at in atlantis_places("mini", rows)} >= {1, 2, 3}


def test_the_pool_all_has_rows_with_and_without_atlantis():
    rows = texts("mini", "distance", "all", "pretrain")
    assert {len(at) for _, at in atlantis_places("mini", rows)} == {0, 1, 2}


@pytest.mark.parametrize("pool", ["world", "atlantis", "all"])
def test_every_city_of_the_pool_occurs(pool):
    world = maker("mini").world
    seen = {
        city
        for text in texts_of(maker("mini"), "distance", pool, "pretrain", 8000)
        for city in parse(text)[1]
    }
    expected = world.cities["city_id"][~world.is_atlantis if pool == "world" else slice(None)]
    assert seen == set(expected)


# Which rows, and when they change


def fingerprint(tokens):
    return hashlib.sha256(tokens.tobytes()).hexdigest()[:16]


PROGRAM = """
import hashlib
from worldrep.names import TASK_NAMES, ModelName
from worldrep.data.rows import RowMaker, RowSet
from worldrep.scales import resolve
from worldrep.data.world import world_of

settings = resolve(ModelName("pt1"), scale="smoke")
maker = RowMaker(world_of(settings), settings)
for task in TASK_NAMES:
    for pool, split in (("world", "test"), ("atlantis", "finetune")):
        rowset = RowSet(task, pool, split, 16)
        print(maker.digest(rowset), hashlib.sha256(maker.tokens(rowset).tobytes()).hexdigest()[:16])
"""


def test_the_same_bytes_in_every_process():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=60)[0].split() for process in processes)
    here = []
    for task in TASK_NAMES:
        for part in (("world", "test"), ("atlantis", "finetune")):
            rowset = RowSet(task, *part, 16)
            tokens = maker("smoke").tokens(rowset)
            here += [maker("smoke").digest(rowset), fingerprint(tokens)]
    assert first == second == here


def test_rows_do_not_depend_on_what_was_made_before():
    fresh = make("smoke")
    rowset = RowSet("inside", "world", "finetune", 16)
    assert (fresh.tokens(rowset) == maker("smoke").tokens(rowset)).all()
    assert (fresh.tokens(rowset) == fresh.tokens(rowset)).all()


def test_training_sets_of_one_pool_differ_by_name():
    rows = [
        texts_of(maker("mini"), "angle", "atlantis", split, 200) for split in ("finetune", "warmup")
    ]
    assert len(questions(rows[0]) & questions(rows[1])) < 20


def test_the_digest_tells_row_sets_apart():
    base = RowSet("angle", "world", "pretrain", 64)
    others = [
        RowSet("compass", "world", "pretrain", 64),
        RowSet("angle", "all", "pretrain", 64),
        RowSet("angle", "world", "finetune", 64),
        RowSet("angle", "world", "pretrain", 65),
    ]
    digests = {maker("smoke").digest(rowset) for rowset in (base, *others)}
    makers = (make("smoke", world_seed=7), make("smoke", test_rows=17), make("smoke", val_rows=9))
    assert len(digests | {other.digest(base) for other in makers}) == 8


def test_rows_end_in_padding_only():
    tokens = maker("smoke").tokens(RowSet("perimeter", "world", "test", 16))
    text_ends = (tokens != PAD).sum(axis=1)
    assert all((row[:end] != PAD).all() for row, end in zip(tokens, text_ends, strict=True))


def test_different_questions_have_different_keys():
    pairs = np.array(list(product(range(500), repeat=2)), dtype=np.int32)
    assert len(np.unique(question_keys(pairs))) == len(pairs)
    rows = np.random.default_rng(0).integers(0, 5175, size=(300_000, 5), dtype=np.int32)
    assert len(np.unique(question_keys(rows))) == len(np.unique(rows, axis=0))
    assert (question_keys(rows[:9]) == question_keys(rows[:9].astype(np.int64))).all()


# A change of these is a change of every result: it needs a new rows.VERSION.
PAPER_ROWS = {
    "distance": "9d931f3ab83aafe2",
    "trianglearea": "1f8980b25d357fd9",
    "angle": "61a65dcbdb26fe9d",
    "compass": "86fdd40737deca20",
    "inside": "ed05d6db567094bf",
    "perimeter": "be0bc61913628c68",
    "crossing": "cce5ae7ed2a1c54c",
}


@pytest.mark.parametrize(("task", "expected"), PAPER_ROWS.items())
def test_the_test_rows_of_the_paper_are_the_same_on_every_machine(task, expected):
    rowset = RowSet(task, "world", "test", 10_000)
    assert fingerprint(maker("paper").tokens(rowset)) == expected
