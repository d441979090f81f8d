"""Strategies of fine-tuning against one another, in a store whose every number is known."""

import math

import pytest
from synthetic import part, score, values

from analysis.exp1_heatmaps import exp1_heatmaps
from analysis.forgetting import forgetting
from analysis.options import Options
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.errors import InputError
from worldrep.names import TASK_NAMES, parse_model
from worldrep.scales import resolve
from worldrep.sweeps.search import Objective
from worldrep.tracking import Store

ERRORS = [task for task in TASK_NAMES if not TASKS[task].accuracy]


def result(strategy="plain", analyse=forgetting, **options):
    source = Source(Store.connect(), strategy)
    return analyse(source, Options(out="unused", strategy=strategy, **options))


def standard(error):
    """Standard values: those of the base but for the errors, which are 1 there."""
    return {f"standard/{task}/mean": error if task in ERRORS else 0.9 for task in TASK_NAMES}


def tuned(synthetic, model, base, *, gain, error, seed=1, curve=None):
    """A fine-tuned model with this improvement on Atlantis, and this error on standard questions.

    curve: step -> error, of the validations.
    """
    run_id = synthetic.run("finetune", model, seed, tags={"base_run_id": base})
    synthetic.evaluate(model, seed, run_id, values(gain) | standard(error), base)
    for task in TASK_NAMES if curve else ():
        for split in ("standard", "atlantis"):
            points = {
                step: (value if task in ERRORS else 0.9) if split == "standard" else score(task, 0)
                for step, value in curve.items()
            }
            synthetic.curve(run_id, f"val/{split}/{task}/mean", points)
    return run_id


def change(error):
    """Mean normalised change over the seven tasks; accuracies are as they were."""
    return -math.log(error) * len(ERRORS) / 7


@pytest.fixture
def three(synthetic):
    """Two models of three strategies and two seeds; one of replay is missing."""
    for seed in (1, 2):
        base = synthetic.base(seed)
        for ft, more in (("ftwb1-1", 0.0), ("ftwb1-2", 0.2)):
            curve = {0: 1.0, 50: 10.0, 100: 100.0}
            tuned(synthetic, f"pt1_{ft}", base, gain=0.4 + more, error=100.0 * seed, seed=seed,
                  curve=curve)  # fmt: skip
            tuned(synthetic, f"pt1_{ft}+ewc", base, gain=0.1 + more, error=20.0, seed=seed)
            if (ft, seed) != ("ftwb1-2", 2):
                tuned(synthetic, f"pt1_{ft}+replay", base, gain=0.5 + more, error=10.0, seed=seed)
        tuned(synthetic, "pt1_ftwb1-3", base, gain=1.0, error=1.0, seed=seed)
    return synthetic


def test_strategies_are_means_over_the_models_that_all_of_them_have(three):
    found = result()
    table = found.tables["strategies_over_seeds"].set_index(["strategy", "quantity"])
    plain = table.loc["plain"]
    assert plain.loc["gain", "mean"] == pytest.approx(0.5)
    assert plain.loc["change", "mean"] == pytest.approx((change(100) + change(200)) / 2)
    assert plain.loc["change", "std"] == pytest.approx(abs(change(100) - change(200)) / 2**0.5)
    assert list(plain["n"][:5]) == [2] * 5 and plain["missing"].loc["gain"] == 0
    # Errors of 100 are those of the base on Atlantis, and more than that is as bad: retention 0.
    assert plain.loc["retention", "mean"] == pytest.approx(3 / 7)
    replay = table.loc["replay"]  # of seed 1 alone: a mean over models lacks none of them
    assert (replay.loc["gain", "n"], replay.loc["gain", "missing"]) == (1, 1)
    assert replay.loc["gain", "mean"] == pytest.approx(0.6)
    assert replay.loc["retention", "mean"] == pytest.approx((3 + 4 * 0.5) / 7)
    assert found.all_statistics["strategies"]["models"] == ["ftwb1-1", "ftwb1-2"]
    assert any("as one of them lacks it: ftwb1-3" in caveat for caveat in found.caveats)
    missing = found.missing[found.missing["matrix"] == "gain_replay"]
    assert set(missing["model"]) == {"ftwb1-2"} and set(missing["seed"]) == {2}
    assert "-P ft=ftwb1-2 -P strategy=replay -P seed=2" in missing["command"].iloc[0]
    assert "-P model=pt1_ftwb1-2+replay" in missing["command"].iloc[0]


def test_a_sweeps_objectives_are_the_numbers_of_the_comparison(three):
    models = part(result(), "strategies_by_model").table
    own = models[(models["label"] == "ftwb1-2+replay") & (models["seed"] == 1)].iloc[0]
    store = Store.connect()
    tuned = store.get(own["run_id"]).metrics
    base = next(run.metrics for run in store.find(stage="evaluate", model="pt1", seed="1"))
    settings = resolve(parse_model("pt1_ftwb1-2+replay"))
    for name in ("transfer", "trained", "retention"):
        assert Objective(name).value(tuned, base, settings) == pytest.approx(own[name])


def test_the_plane_has_a_front_of_strategies_and_one_of_models(three):
    found = result()
    plane = part(found, "strategies")
    means = plane.table[~plane.table["one_seed"].astype(bool)].set_index("label")
    assert dict(means["on_front"]) == {"plain": False, "replay": True, "ewc": False}
    assert plane.statistics["strategies"]["front"] == ["replay"]
    models = part(found, "strategies_by_model").table
    assert len(models[~models["one_seed"].astype(bool)]) == 6
    assert "ftwb1-2+replay" in set(models["text"])


def test_the_curve_is_by_share_of_the_training(three):
    found = result()
    curve = part(found, "strategies_course").table
    own = curve[curve["is_mean"] & (curve["split"] == "standard")]
    assert set(own["strategy"]) == {"plain"}  # the only one with validations
    assert list(own["percent"]) == [0, 50, 100]
    assert list(own["normalised"]) == pytest.approx([0.0, change(10), change(100)])
    table = found.tables["strategies_over_seeds"].set_index(["strategy", "quantity"])
    assert table.loc[("plain", "halfway_share"), "mean"] == pytest.approx(0.5)
    assert table.loc[("ewc", "halfway_share"), "n"] == 0


def test_an_analysis_is_about_one_strategy(three):
    plain, replay = (result(name, exp1_heatmaps) for name in ("plain", "replay"))
    gains = [part(found, "ftwb1_seed1").values.loc["ftwb1-1"] for found in (plain, replay)]
    assert list(gains[0]) == pytest.approx([0.4] * 7) and list(gains[1]) == pytest.approx([0.5] * 7)
    assert not any("replay" in caveat or "ewc" in caveat for caveat in plain.caveats)
    assert set(plain.runs_used["model"]) == {"pt1", "pt1_ftwb1-1", "pt1_ftwb1-2", "pt1_ftwb1-3"}
    assert set(replay.runs_used["model"]) == {"pt1", "pt1_ftwb1-1+replay", "pt1_ftwb1-2+replay"}
    with pytest.raises(InputError, match="unknown strategy 'repaly'"):
        Options(out="unused", strategy="repaly")


def test_one_strategy_is_not_compared(synthetic):
    tuned(synthetic, "pt1_ftwb1-1", synthetic.base(), gain=0.4, error=10.0)
    found = result()
    assert not any(part.name.startswith("strategies") for part in found.parts)
    assert "strategies_over_seeds" not in found.tables
    assert found.runs_used.index.name == "run_id" and len(found.runs_used) == 2
    assert not any("strategies" in caveat for caveat in found.caveats)


def test_any_strategy_leads_to_the_same_comparison(three):
    found = result("replay")
    said = [line for part in found.parts for line in part.said]
    assert any(line.startswith("strategies: not dominated: replay") for line in said)
    gain = found.all_statistics["strategies"]["ewc"]["gain"]
    assert gain["mean"] == pytest.approx(0.2)
    names = {part.name for part in found.parts}
    assert {"strategies", "strategies_by_model", "strategies_course"} < names
    assert set(found.tables["values"]["model"].str.partition("+")[2]) == {"replay"}
