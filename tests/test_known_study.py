"""All of exp1 with two seeds, 58 models through the study's own code, with known numbers."""

import math

import numpy as np
import pytest

from analysis.exp1_heatmaps import FAMILIES, exp1_heatmaps
from analysis.options import Options
from analysis.predictors import predictors
from analysis.reciprocity import reciprocity
from analysis.statistics.matrices import expected_matrix
from analysis.store.source import Source
from benchmarks.stores import PERFORM
from worldrep.data.tasks import TASKS
from worldrep.executors import ExecutorOptions
from worldrep.names import NO_FT, TASK_NAMES, ModelName, has_warmup_rows
from worldrep.settings import Settings
from worldrep.studies import expand, load_definition
from worldrep.studies.driver import run_study
from worldrep.tracking import Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("known_study")]

ONE, TWO = FAMILIES.values()
SEEDS = (1, 42)
MADE_UP = ExecutorOptions(perform=PERFORM)


def affinity(one: str, other: str) -> float:
    """Return 1 for a task and itself, less the further two tasks are apart on the ring."""
    apart = abs(TASK_NAMES.index(one) - TASK_NAMES.index(other))
    return math.exp(-min(apart, len(TASK_NAMES) - apart) / 2.0)


def improvement(model: ModelName, seed: int, task: str) -> float:
    """Return the normalised improvement of a fine-tuned model on a task of Atlantis.

    A one-task model has the affinity and a term of the seed. Several tasks have the best of theirs
    and a known difference; without warm-up rows untrained tasks are 0.1 lower.
    """
    ones = [affinity(own, task) + _of_seed(seed, own, task) for own in model.tasks]
    without = 0.0 if has_warmup_rows(model.ft) or task in model.tasks else 0.1
    return max(ones) - without + (difference(model, task) if len(model.tasks) > 1 else 0.0)


def difference(model: ModelName, task: str) -> float:
    """Return actual - expected of a model of several tasks: from -0.1 to 0.1."""
    number = int(model.ft.rpartition("-")[2])
    return 0.1 * math.cos(number + TASK_NAMES.index(task))


def _of_seed(seed: int, own: str, task: str) -> float:
    return 0.05 * math.sin(seed + 3 * TASK_NAMES.index(own) + TASK_NAMES.index(task))


def base_values(task: str) -> tuple[float, float]:
    """Return the scores of every base on Atlantis and on standard questions."""
    return (0.2, 0.9) if TASKS[task].accuracy else (100.0, 1.0)


def known_score(settings: Settings, split: str, task: str) -> float:
    """Return the mean score of a model in a suite of the split standard, multi or atlantis."""
    model, seed = settings.model_name, settings.seed
    atlantis, standard = base_values(task)
    is_atlantis = split == "atlantis"
    if model.ft == NO_FT:
        return atlantis if is_atlantis else standard
    part = improvement(model, seed, task) if is_atlantis else 1 - forgotten(model, task)
    if TASKS[task].accuracy:
        return atlantis + (standard - atlantis) * part
    return atlantis / (atlantis / standard) ** part


def forgotten(model: ModelName, task: str) -> float:
    """Return the share of the base's ability that a model has lost on standard questions."""
    return 0.8 * (1 - max(affinity(own, task) for own in model.tasks))


@pytest.fixture(scope="session")  # pytest-xdist may run tests of other files in between
def study(new_store):
    """The tracking URI of a store that holds the study."""
    with new_store("exp1") as (uri, patch):
        patch.setattr("benchmarks.stores.CURVE_POINTS", 20)  # 200 are more of the same
        patch.setattr("benchmarks.stores.score", known_score)
        graph = expand(load_definition("exp1").changed(seeds=SEEDS))
        result = run_study(Store.connect(), graph, MADE_UP)
    assert result.counts["done"] == len(graph.steps) == 174
    return uri


@pytest.fixture
def source(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study)
    return Source(Store.connect())


def known_matrix(fts, seed):
    """Cut off as figures do."""
    rows = [[improvement(ModelName("pt1", ft), seed, t) for t in TASK_NAMES] for ft in fts]
    return np.clip(rows, 0, 1.5)


def test_every_matrix_is_the_known_one(source):
    found = exp1_heatmaps(source, Options(out="unused"))
    panels = {part.name: part.values for part in found.parts}
    assert found.seeds == SEEDS and found.missing.empty and found.caveats == []
    assert len(found.runs_used) == 58
    for seed in SEEDS:
        one, two = panels[f"ftwb1_seed{seed}"], panels[f"ftwb2_seed{seed}"]
        assert np.allclose(one, known_matrix(ONE, seed)), seed
        assert np.allclose(two, known_matrix(TWO, seed)), seed
        gain = [[difference(ModelName("pt1", ft), task) for task in TASK_NAMES] for ft in TWO]
        assert np.allclose(panels[f"ftwb2_difference_seed{seed}"], gain), seed
    mean = np.mean([known_matrix(TWO, seed) for seed in SEEDS], axis=0)
    assert np.allclose(panels["ftwb2_aggregate"], mean)
    expected = np.mean([expected_matrix(TWO, panels[f"ftwb1_seed{s}"]) for s in SEEDS], axis=0)
    assert np.allclose(panels["ftwb2_expected_aggregate"], expected)


def test_sums_and_predictions_follow(source):
    give = reciprocity(source, Options(out="unused")).all_statistics["give"]
    for own, task in enumerate(TASK_NAMES):
        rows = [known_matrix(ONE, seed)[own] for seed in SEEDS]
        sums = [row.sum() - row[own] for row in rows]
        assert give[task]["mean"] == pytest.approx(np.mean(sums))
        assert give[task]["std"] == pytest.approx(np.std(sums, ddof=1))
    scores = predictors(source, Options(out="unused")).all_statistics["predictors"]
    errors = [abs(difference(ModelName("pt1", ft), t)) for ft in TWO for t in TASK_NAMES]
    assert scores["maximum"]["mae"] == pytest.approx(np.mean(errors))
    assert scores["maximum"]["n"] == 2 * 147 and scores["maximum"]["missing"] == 0
