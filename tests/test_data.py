"""Which rows a model is trained, validated and tested on."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from plain_answers import parse

from worldrep.data import sets as data
from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.tokens import PAD, decode_rows
from worldrep.data.world import world_of
from worldrep.names import TASK_NAMES, parse_model
from worldrep.scales import resolve

LABELS = ["dist", "triarea", "angle", "compass", "inside", "perimeter", "cross"]


def settings_of(model, world="standard", **overrides):
    return resolve(parse_model(model), scale="smoke", world=world, overrides=overrides)


@cache
def maker_of(settings):
    return RowMaker(world_of(settings), settings)


def training_sets(model, world="standard", **overrides):
    settings = settings_of(model, world, **overrides)
    return data.training_sets(settings, maker_of(settings_of("pt1", world)).world)


def training_texts(model, **overrides):
    settings = settings_of(model, **overrides)
    maker = maker_of(settings)
    rows = data.stack_rows(maker, data.training_sets(settings, maker.world))
    return [text.removeprefix("<bos>") for text in decode_rows(rows)]


# Training


def test_pretraining_takes_world_rows_of_its_tasks():
    assert training_sets("pt1") == [RowSet(task, "world", "pretrain", 64) for task in TASK_NAMES]
    assert training_sets("pt2-8") == [
        RowSet("distance", "world", "pretrain", 64),
        RowSet("angle", "world", "pretrain", 64),
    ]


def test_pretraining_takes_any_city_where_atlantis_is_part_of_it():
    assert {rowset.pool for rowset in training_sets("pt1", "with_atlantis")} == {"all"}
    assert {rowset.pool for rowset in training_sets("pt1", "scattered")} == {"world"}


def test_finetuning_takes_atlantis_and_world_rows_of_its_tasks():
    assert training_sets("pt1_ft2-2", ft_atlantis_rows=90, ft_world_rows=20) == [
        RowSet("angle", "atlantis", "finetune", 90),
        RowSet("compass", "atlantis", "finetune", 90),
        RowSet("angle", "world", "finetune", 20),
        RowSet("compass", "world", "finetune", 20),
    ]


def test_warmup_adds_atlantis_rows_of_all_seven_tasks():
    added = [RowSet(task, "atlantis", "warmup", 4) for task in TASK_NAMES]
    assert training_sets("pt1_ftwb2-2") == training_sets("pt1_ft2-2") + added


def test_parts_of_no_rows_are_left_out():
    rowsets = training_sets("pt1_ftwb1-1", ft_world_rows=0, ft_warmup_rows=0)
    assert [(rowset.pool, rowset.split) for rowset in rowsets] == [("atlantis", "finetune")]


def test_the_rows_trained_on_have_every_task_in_its_share():
    labels = Counter(parse(text)[0] for text in training_texts("pt1_ftwb2-2"))
    assert labels == {label: 4 + (112 if label in ("angle", "compass") else 0) for label in LABELS}


def test_the_rows_trained_on_are_balanced():
    rows = training_texts("pt1_ftwb2-12", ft_atlantis_rows=600, ft_world_rows=60)
    counts = Counter()
    for label, ids, answer in map(parse, rows):
        if answer in ("TRUE", "FALSE"):
            counts[label, len(ids), answer] += 1
    assert len(counts) == 8
    for label, k, _ in list(counts):
        assert counts[label, k, "TRUE"] == counts[label, k, "FALSE"] > 0


# Validation and tests


def test_there_are_14_test_sets_of_the_asked_size():
    sets = data.suite_sets(settings_of("pt1", test_rows=17))
    assert list(sets) == [f"{part}/{t}" for part in ("standard", "atlantis") for t in TASK_NAMES]
    for suite, rowset in sets.items():
        part, task = suite.split("/")
        pool = {"standard": "world", "atlantis": "atlantis"}[part]
        assert rowset == RowSet(task, pool, "test", 17)


@pytest.mark.parametrize("model", ["pt1", "pt1-3", "pt1_ftwb2-13"])
def test_every_model_of_a_world_takes_the_same_tests(model):
    assert data.suite_sets(settings_of(model)) == data.suite_sets(settings_of("pt1"))


@pytest.mark.parametrize(
    ("model", "world", "parts"),
    [
        ("pt1", "standard", {"standard"}),
        ("pt1", "with_atlantis", {"standard", "atlantis"}),
        ("pt1_ft1-1", "standard", {"standard", "atlantis"}),
    ],
)
def test_atlantis_is_validated_where_it_is_learnt(model, world, parts):
    sets = data.validation_sets(settings_of(model, world, val_rows=9))
    assert {suite.split("/")[0] for suite in sets} == parts
    assert {(rowset.split, rowset.rows) for rowset in sets.values()} == {("val", 9)}
    assert len(sets) == 7 * len(parts)


# Loading


def test_loaded_rows_are_those_that_are_made():
    maker = maker_of(settings_of("pt1"))
    rowset = RowSet("inside", "world", "test", 16)
    for _ in range(2):
        assert (data.load_rows(maker, rowset) == maker.tokens(rowset)).all()


def test_stacked_rows_keep_their_order_and_are_padded():
    maker = maker_of(settings_of("pt1"))
    rowsets = [RowSet(task, "world", "test", 5) for task in ("distance", "inside", "angle")]
    parts = [maker.tokens(rowset) for rowset in rowsets]
    rows = data.stack_rows(maker, rowsets)
    assert rows.shape == (15, max(part.shape[1] for part in parts))
    for part, stacked in zip(parts, np.split(rows, 3), strict=True):
        assert (stacked[:, : part.shape[1]] == part).all()
        assert (stacked[:, part.shape[1] :] == PAD).all()


# The digest of training rows


def training_digest(model, **overrides):
    settings = settings_of(model, **overrides)
    maker = maker_of(settings)
    return tuple(map(maker.digest, data.training_sets(settings, maker.world)))


def test_the_digest_of_training_rows_tells_mixtures_sizes_and_worlds_apart():
    digests = {training_digest(model) for model in ("pt1", "pt1-1", "pt1_ft1-1", "pt1_ftwb1-1")}
    digests |= {training_digest("pt1", pretrain_rows=65), training_digest("pt1", world_seed=7)}
    assert len(digests) == 6


def test_the_digest_of_training_rows_does_not_depend_on_how_they_are_trained_on():
    assert training_digest("pt1", epochs=9, n_layers=1) == training_digest("pt1")
