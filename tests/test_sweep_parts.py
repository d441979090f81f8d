"""What a sweep searches and for what, before anything runs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from worldrep.data.tasks import TASKS
from worldrep.errors import InputError
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import TASK_NAMES, parse_model
from worldrep.scales import resolve
from worldrep.sweeps.definition import Sweep
from worldrep.sweeps.search import Objective, combinations, parse_objectives, read_space, searchable

FINETUNE = resolve(parse_model("pt1_ftwb2-13"), scale="paper")
PRETRAIN = resolve(parse_model("pt1"), scale="paper")


def space(text, settings=FINETUNE):
    Path("space.yaml").write_text(text)
    return read_space("space.yaml", settings)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# The space


def test_the_default_of_a_fine_tuning_lies_around_the_settings_of_its_scale():
    found, own = read_space("default", FINETUNE), FINETUNE.learning_rate
    assert found == {
        "learning_rate": FloatDistribution(0.1 * own, 10 * own, log=True),
        "epochs": IntDistribution(8, 60),
        "warmup_steps": IntDistribution(0, 200),
        "weight_decay": FloatDistribution(1e-3, 1.0, log=True),
        "ft_world_rows": IntDistribution(0, 80_000),
        "ft_warmup_rows": IntDistribution(0, 512),
    }


@pytest.mark.parametrize("scale", ["paper", "small", "mini", "smoke"])
@pytest.mark.parametrize("model", ["pt1", "pt1_ftwb2-13", "pt1_ft1-3+lora", "pt1-2@wide"])
def test_the_defaults_suit_every_scale(scale, model):
    settings = resolve(parse_model(model), scale=scale)
    found = read_space("default", settings)
    assert set(found) <= set(searchable(settings))
    sampler = optuna.samplers.RandomSampler(0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(5):
        params = study.ask(fixed_distributions=found).params
        changed = replace(settings, **params)
        assert {name: getattr(changed, name) for name in params} == params
        assert changed.model_name == settings.model_name


def test_an_infinite_end_is_refused_and_an_infinite_choice_is_not():
    settings = resolve(parse_model("pt1_ftwb1-1+l2sp"), scale="mini")
    with pytest.raises(InputError, match="both must be finite"):
        space("l2sp_strength: {low: 1, high: .inf}", settings)
    assert space("l2sp_strength: [1.0, inf]", settings)["l2sp_strength"].choices == (1.0, math.inf)


def test_warm_up_rows_are_searched_where_there_are_some():
    settings = resolve(parse_model("pt1_ft2-13"), scale="mini")
    assert "ft_warmup_rows" not in read_space("default", settings)
    with pytest.raises(InputError, match="unknown setting to search here 'ft_warmup_rows'"):
        space("ft_warmup_rows: [1, 2]", settings)


def test_numbers_multiples_and_lists():
    found = space(
        "batch_size: [64, 128, 64]\nloss: [full, answer]\nepochs: {low: 10, high: 2x, step: 10}\n"
        "learning_rate: {low: 0.5x, high: 1e-3}\n"
    )
    assert found == {
        "batch_size": CategoricalDistribution((64, 128)),
        "loss": CategoricalDistribution(("full", "answer")),
        "epochs": IntDistribution(10, 60, step=10),
        "learning_rate": FloatDistribution(5e-6, 1e-3),
    }


def test_a_strategys_settings_are_searched_with_it_alone():
    replay = resolve(parse_model("pt1_ftwb1-1+replay"), scale="mini")
    assert set(space("replay_share: {low: 0, high: 0.9}", replay)) == {"replay_share"}
    with pytest.raises(InputError, match="is read by strategy=replay alone: set that$"):
        space("replay_share: {low: 0, high: 0.9}")


@pytest.mark.parametrize("model", ["pt1", "pt1_ftwb1-1"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_default_searches_the_rate_of_muon_where_it_has_an_effect(model, optimizer):
    overrides = {"optimizer": optimizer}
    settings = resolve(parse_model(model), scale="mini", overrides=overrides)
    space = read_space("default", settings)
    assert "learning_rate" in space and ("muon_learning_rate" in space) == (optimizer == "muon")


def test_a_rate_of_muon_is_searched_with_the_optimizer():
    found = space("optimizer: [adamw, muon]\nmuon_learning_rate: {low: 0.001, high: 0.01}")
    assert set(found) == {"optimizer", "muon_learning_rate"}
    with pytest.raises(InputError, match="set that, or search optimizer$"):
        space("muon_learning_rate: {low: 0.001, high: 0.01}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: [1, 2]", "unknown setting 'learning_rat' (did you mean 'learning_rate'?)"),
        ("learning_rate: {low: 1e-3, high: 1e-6}", "runs from 0.001 to 1e-06: low must be below"),
        ("learning_rate: {low: 1e-3, high: 1e-3}", "low must be below high"),
        ("learning_rate: {low: 0, high: 1, log: true}", "on a logarithmic scale it must be above"),
        ("learning_rate: {low: 0, high: 1, log: 1}", "log='1' is not one of: true, false"),
        ("learning_rate: {low: -1, high: 1}", "learning_rate=-1.0 is too small"),
        ("learning_rate: {low: 0, high: .inf}", "runs from 0.0 to inf: both must be finite"),
        ("learning_rate: {low: 0, high: .nan}", "nan"),
        ("learning_rate: {low: 0, hihg: 1}", "unknown key of learning_rate 'hihg' (did you mean"),
        ("learning_rate: {low: 0}", "learning_rate has no high"),
        ("learning_rate: {low: 0, high: 1, step: 2}", "step=2.0 must be above 0 and within"),
        ("learning_rate: {low: 0.1, high: 1, step: 0.1, log: true}", "both log and step"),
        ("learning_rate: {low: ax, high: 1}", "'ax' is neither a number nor a multiple such as 2x"),
        ("learning_rate: 0.1", "neither a range such as"),
        ("epochs: {low: 1.5, high: 3}", "epochs='1.5' is not a whole number"),
        ("epochs: [1, 1]", "fewer than two different values"),
        ("epochs: [1, 0]", "epochs=0 is too small"),
        ("loss: {low: 1, high: 2}", "loss is not a number: list its values"),
        ("loss: [full, al]", "unknown loss 'al'"),
        ("hidden_size: [64, 128]", "unknown setting to search here 'hidden_size'"),
        ("seed: [1, 2]", "unknown setting to search here 'seed'"),
        ("test_rows: [1, 2]", "unknown setting to search here 'test_rows'"),
        ("n_cities: [1, 2]", "unknown setting to search here 'n_cities'"),
        ("epochs: {low: 1, high: infx}", "'infx' is not a finite multiple"),
        ("epochs: {low: 1, high: nanx}", "'nanx' is not a finite multiple"),
        ("epochs: [1, 2]\nepochs: [3, 4]", "'epochs' is there twice"),
        ("[1, 2]", "is not a list of settings with ranges"),
        ("", "is not a list of settings with ranges"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_space_that_is_none_is_one_sentence(text, message):
    with pytest.raises(InputError) as fault:
        space(text)
    assert message in str(fault.value) and "\n" not in str(fault.value)


def test_a_space_that_is_not_there():
    with pytest.raises(InputError, match="cannot read search space nowhere.yaml"):
        read_space("nowhere.yaml", FINETUNE)


# The objectives


def known_metrics(shift):
    """A number for every suite, none like another."""
    return {
        f"{split}/{task}/{fact}": shift
        + (0.1 if TASKS[task].accuracy else 10.0) * (i + 1) * (0.5 if split == "standard" else 1)
        for split in ("standard", "atlantis")
        for i, task in enumerate(TASK_NAMES)
        for fact in ("mean", "valid_ratio")
    }


def test_aggregates_are_means_of_the_normalised_improvement():
    base, tuned = known_metrics(0.0), known_metrics(0.07)

    def improvement(task, split):
        return normalized_improvement(
            tuned[f"{split}/{task}/mean"],
            base[f"atlantis/{task}/mean"],
            base[f"standard/{task}/mean"],
            TASKS[task].accuracy,
        )

    trained = ("distance", "perimeter")  # of ftwb2-13
    others = [task for task in TASK_NAMES if task not in trained]
    value = {
        name: Objective(name).value(tuned, base, FINETUNE)
        for name in ("trained", "transfer", "retention")
    }
    assert value["trained"] == fmean(improvement(task, "atlantis") for task in trained)
    assert value["transfer"] == fmean(improvement(task, "atlantis") for task in others)
    assert value["retention"] == fmean(improvement(task, "standard") for task in TASK_NAMES)
    assert Objective("retention").value(base, base, FINETUNE) == pytest.approx(
        sum(not TASKS[task].accuracy for task in TASK_NAMES) / 7  # here bases do worse at those
    )
    assert Objective("atlantis/angle/mean").value(tuned, base, FINETUNE) == 30.07


@pytest.mark.parametrize(
    ("name", "higher", "validated"),
    [
        ("transfer", True, True),
        ("retention", True, True),
        ("atlantis/angle/mean", False, True),
        ("standard/compass/mean", True, True),
        ("standard/compass/median", True, False),
        ("atlantis/angle/valid_ratio", True, True),
        ("multi/distance/mean", False, False),
    ],
)
def test_what_is_better_and_what_validations_show(name, higher, validated):
    objective = Objective(name)
    assert objective.higher_is_better is higher
    assert objective.is_validated(FINETUNE) is validated


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("transfr", FINETUNE, "unknown objective 'transfr' (did you mean 'transfer'?)"),
        ("atlantis/angel/mean", FINETUNE, "(did you mean 'atlantis/angle/mean'?)"),
        ("atlantis/angle/std", FINETUNE, "FACT one of mean, median, valid_ratio"),
        ("", FINETUNE, "unknown objective ''"),
        ("transfer", PRETRAIN, "compares a fine-tuning with its base"),
    ],
)
def test_an_objective_that_is_none_is_one_sentence(text, settings, message):
    with pytest.raises(InputError) as fault:
        parse_objectives(text, settings)
    assert message in str(fault.value) and "\n" not in str(fault.value)


# Both together


def sweep(**changed):
    goals = parse_objectives(changed.pop("objective", "transfer"), FINETUNE)
    known = {"name": "s", "settings": FINETUNE, "objectives": goals}
    return Sweep(**{**known, "space": read_space("default", FINETUNE), **changed})


def test_the_identity_is_of_everything_that_trials_share():
    others = [
        sweep(objective="trained"),
        sweep(pruner="none"),
        sweep(sampler="random"),
        sweep(space=space("epochs: [1, 2]")),
        sweep(settings=resolve(parse_model("pt1_ftwb2-13"), scale="paper", seed=1)),
        sweep(settings=resolve(parse_model("pt1_ftwb2-13"), overrides={"test_rows": 100})),
    ]
    assert len({sweep().identity, *(other.identity for other in others)}) == 7
    assert sweep(name="t").identity == sweep().identity
    assert sweep(name="t").trial_fingerprint(0) != sweep().trial_fingerprint(0)
    ranges = json.loads(sweep().searches.partition(" by ")[2].partition(" with ")[0])
    assert ranges["epochs"]["attributes"]["high"] == 60


def test_pruning_needs_one_objective_that_validations_show():
    assert sweep().pruner == "median"
    assert sweep(objective="transfer,retention").pruner == "none"
    assert sweep(objective="multi/angle/mean").pruner == "none"
    for wrong in ({"objective": "transfer,retention"}, {"objective": "multi/angle/mean"}):
        with pytest.raises(InputError, match="choose pruner=none"):
            sweep(pruner="hyperband", **wrong)
    with pytest.raises(InputError, match=r"unknown pruner 'medium' \(did you mean 'median'"):
        sweep(pruner="medium")
    with pytest.raises(InputError, match="unknown sampler"):
        sweep(sampler="grid")
    with pytest.raises(InputError, match="is not made of letters"):
        sweep(name="../up")


def test_what_is_suggested_depends_on_the_seed_and_the_trials_before_alone():
    def suggestions():
        study = optuna.create_study(direction="maximize")
        found = []
        for number in range(14):
            study.sampler = sweep().sampler_of(number)  # as after a restart
            trial = study.ask(fixed_distributions=sweep().space)
            found.append(trial.params)
            study.tell(trial, math.log(trial.params["learning_rate"]))
        return found

    once = suggestions()
    assert suggestions() == once
    assert len({params["learning_rate"] for params in once}) == 14


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("epochs: [1, 2]\nlearning_rate: [1e-3, 0.001, 2e-3]", 4),
        ("epochs: {low: 1, high: 10, step: 2}\nloss: [full, answer]", 10),
        ("epochs: [1, 2]\nlearning_rate: {low: 0.1, high: 1}", math.inf),
    ],
)
def test_the_different_settings_of_a_space_are_counted(text, count):
    assert combinations(space(text)) == count
