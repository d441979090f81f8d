"""Evaluation: from answers to the metrics of section suites."""

import numpy as np
import pytest

from worldrep.data.rows import RowMaker
from worldrep.data.sets import load_rows, suite_sets
from worldrep.data.tasks import TASKS
from worldrep.data.world import world_of
from worldrep.errors import InputError
from worldrep.evaluation.suites import (
    answer_suites,
    build_suites,
    evaluate,
    generate,
    multi_rows,
    suite_of,
    summarize,
)
from worldrep.model.qwen2 import build_model
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve


@pytest.fixture(scope="module")
def smoke():
    settings = resolve(ModelName("pt1"), scale="smoke")
    return settings, RowMaker(world_of(settings), settings), build_model(settings).eval()


def test_all_fifteen_suites_have_all_their_metrics(smoke):
    settings, maker, model = smoke
    metrics, answers = evaluate(model, maker, settings)
    facts = ("mean", "median", "std", "min", "max", "n", "valid_ratio")
    expected = {
        f"{split}/{task}/{fact}"
        for split in ("standard", "atlantis", "multi")
        for task in TASK_NAMES
        for fact in facts
    }
    assert set(metrics) == expected
    assert all(metrics[f"{s}/{t}/n"] == 16 for s in ("standard", "atlantis") for t in TASK_NAMES)
    assert sum(metrics[f"multi/{task}/n"] for task in TASK_NAMES) == settings.multi_rows
    assert len(answers) == 14 * 16 + settings.multi_rows


def test_prompts_and_answers_are_cut_behind_the_equals_sign(smoke):
    settings, maker, _ = smoke
    for name, rowset in suite_sets(settings).items():
        suite = suite_of(name, load_rows(maker, rowset))
        task = TASKS[suite.task]
        assert task.valid(suite.expected).all()
        assert (task.scores(suite.expected, suite.expected) == float(task.accuracy)).all()


def test_the_generated_text_is_that_of_generate(smoke):
    settings, maker, model = smoke
    answers = answer_suites(model, build_suites(maker, settings))
    assert answers["generated"].tolist() == generate(model, answers["prompt"].tolist(), 8)


def test_the_multi_suite_is_a_fixed_sample_of_the_standard_answers(smoke):
    settings, maker, model = smoke
    answers = answer_suites(model, build_suites(maker, settings))
    once, again = multi_rows(answers, settings), multi_rows(answers, settings)
    assert once["prompt"].tolist() == again["prompt"].tolist()
    standard = answers[answers["suite"].str.startswith("standard/")]
    assert not once.index.duplicated().any() and set(once.index) <= set(standard.index)
    assert (answers.loc[once.index, "score"] == once["score"]).all()


def test_a_multi_suite_larger_than_its_union_is_refused():
    with pytest.raises(InputError, match="multi_rows=113 is more than the 112"):
        resolve(ModelName("pt1"), scale="smoke", overrides={"multi_rows": 113})


def test_summaries_are_those_computed_by_hand():
    import pandas as pd

    answers = pd.DataFrame(
        {"suite": "standard/angle", "score": [1.0, 2.0, 6.0], "valid": [True, True, False]}
    )
    metrics = summarize(answers)
    assert metrics["standard/angle/mean"] == 3.0
    assert metrics["standard/angle/median"] == 2.0
    assert metrics["standard/angle/std"] == pytest.approx(np.sqrt(14 / 3))
    assert (metrics["standard/angle/min"], metrics["standard/angle/max"]) == (1.0, 6.0)
    assert metrics["standard/angle/valid_ratio"] == pytest.approx(2 / 3)
