"""What is missing is told with the fewest commands, and they do the same work."""

import shlex
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldrep.names import FINETUNINGS, parse_model
from worldrep.stages.commands import command_line
from worldrep.studies import expand, load_definition, named_study
from worldrep.studies.commands import fewest_commands, in_order
from worldrep.studies.definition import in_ranges, parse_names

EXP1 = ["pt1", *(f"pt1_{ft}" for ft in FINETUNINGS if ft.startswith(("ftwb1", "ftwb2")))]
SETTINGS = {"epochs": 3}


def single(entry, model, seed, experiment="worldrep", **overrides):
    """The command of an analysis for one model."""
    own = {"model": model}
    if entry in ("pretrain", "finetune"):
        name = parse_model(model)
        own = {"ft": name.ft, "strategy": name.strategy, "width": name.width}
        own = own if entry == "finetune" else {"pretrain": name.pretrain, "width": name.width}
    parameters = own | {"seed": seed, "scale": "smoke"} | overrides
    return command_line(entry, parameters, experiment)


def fewest(commands, present=()):
    found = fewest_commands(commands, present)
    return in_order(command for chain in found.values() for command in chain)


def study(*parameters):
    typed = " ".join(f"-P {parameter}" for parameter in parameters)
    return f"mlflow run . -e study {typed} --env-manager local"


def graph_of(command):
    """The steps of a study that a command names."""
    words = shlex.split(command)
    assert words[:5] == ["mlflow", "run", ".", "-e", "study"]
    typed = dict(word.split("=", 1) for before, word in pairwise(words) if before == "-P")
    named, models = typed.pop("name", ""), typed.pop("models", "")
    own = {key: int(typed.pop(key)) for key in SETTINGS if key in typed}
    definition = load_definition(named) if named else named_study(models)
    return expand(definition.asked_for(**typed, settings=own))


def test_a_study_of_the_library_is_named_if_it_does_nothing_else():
    lacking = [single("evaluate", model, 1) for model in EXP1[3:]]
    present = [(model, 1) for model in EXP1]
    whole = study("name=exp1", "seeds=1", "scale=smoke")
    assert fewest(lacking, present) == [whole]
    assert fewest([single("evaluate", model, 1) for model in EXP1]) == [whole]
    # It would train the other models.
    (some,) = fewest(lacking[:2])
    assert some == study("models=pt1_ftwb1-3..4", "seeds=1", "scale=smoke", "steps=evaluate")
    wide = [single("extract", f"pt1@wide_ftwb1-{k}", 42) for k in (1, 2)]
    steps = {s.settings.model_name for s in expand(load_definition("exp3")).steps.values()}
    present = [(str(name), 42) for name in steps if name.width == "wide"]
    of_width = study("name=exp3", "seeds=42", "widths=wide", "scale=smoke")
    assert fewest(wide, present) == [of_width]


def test_outside_of_the_project_the_program_is_advised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = single("evaluate", "pt1_ftwb1-1", 1)
    assert one == "worldrep evaluate --model=pt1_ftwb1-1 --seed=1 --scale=smoke"
    assert single("main", "pt1", 1, experiment="mine out").endswith("'--experiment=mine out'")
    lacking = [single("evaluate", model, 1) for model in EXP1]
    assert fewest(lacking) == ["worldrep study --name=exp1 --seeds=1 --scale=smoke"]
    lacking = [single("extract", "pt1", seed, epochs=3) for seed in (1, 2)]
    named = "--models=pt1 --seeds=1,2 --scale=smoke --steps=extract --epochs=3"
    assert fewest(lacking) == [f"worldrep study {named}"]


def test_one_study_takes_the_place_of_a_chain_and_a_single_command_stays():
    train, evaluate = single("finetune", "pt1_ftwb1-3", 1), single("evaluate", "pt1_ftwb1-3", 1)
    assert fewest([evaluate]) == [evaluate] and fewest([]) == []
    named = "models=pt1_ftwb1-3", "seeds=1", "scale=smoke"
    assert fewest([f"{train} && {evaluate}"]) == [study(*named, "steps=evaluate")]
    assert fewest([train, single("extract", "pt1_ftwb1-3", 1), evaluate]) == [study(*named)]


def test_checkpoints_of_many_models_are_one_study():
    every = [single("evaluate", model, 1, checkpoints="all") for model in EXP1[1:8]]
    named = "models=pt1_ftwb1-1..7", "seeds=1", "scale=smoke", "steps=evaluate", "checkpoints=all"
    whole = study(*named)
    assert fewest(every, [(model, 1) for model in EXP1]) == [whole]
    last = single("evaluate", "pt1_ftwb1-1", 1)
    assert fewest([*every, last]) == [whole, last]
    chosen = [single("evaluate", model, 1, checkpoints="3,6") for model in EXP1[1:3]]
    assert fewest(chosen) == chosen  # of which no study does the work


def test_seeds_that_lack_other_models_have_studies_of_their_own():
    lacking = [("pt1_ftwb1-1", 1), ("pt1_ftwb1-1", 2), ("pt1_ftwb1-2", 2), ("pt1_ftwb1-4", 2)]
    commands = [single("evaluate", model, seed) for model, seed in lacking]
    assert fewest(commands) == [
        study("models=pt1_ftwb1-1", "seeds=1,2", "scale=smoke", "steps=evaluate"),
        study("models=pt1_ftwb1-2,pt1_ftwb1-4", "seeds=2", "scale=smoke", "steps=evaluate"),
    ]
    present = product(["pt1_ftwb1-2", "pt1_ftwb1-4"], [1])  # they are reused
    (whole,) = fewest(commands, [*present])
    assert "models=pt1_ftwb1-1..2,pt1_ftwb1-4 -P seeds=1,2" in whole


def test_what_no_study_does_is_told_after_it_and_deletions_before_it():
    by_id = "mlflow run . -e evaluate -P run_id=ab --env-manager local"
    every = single("evaluate", "pt1_ftwb1-1", 1, checkpoints="all")
    evaluate = [single("evaluate", f"pt1_ftwb1-{k}", 1) for k in (1, 2)]
    delete = "mlflow runs delete --run-id ab"
    found = fewest([every, by_id, f"{delete} && {evaluate[0]}", *evaluate])
    assert [shlex.split(command)[1] for command in found] == ["runs", "run", "run", "run"]
    assert "study" in found[1] and found[2:] == [every, by_id]
    by_command = fewest_commands([f"{delete} && {evaluate[0]}", *evaluate])
    assert by_command[f"{delete} && {evaluate[0]}"] == found[:2]
    assert by_command[evaluate[1]] == [found[1]]


def test_experiments_worlds_and_settings_are_kept_apart_and_named():
    commands = [
        single("evaluate", f"pt1_ftwb1-{k}", 1, experiment, **own)
        for k in (1, 2)
        for experiment in ("worldrep", "my own")
        for own in ({}, {"world": "scattered"}, {"epochs": 3})
    ]
    found = fewest(commands)
    assert len(found) == 6
    assert sum("--experiment-name 'my own'" in command for command in found) == 3
    assert sum("-P worlds=scattered" in command for command in found) == 2
    assert sum("-P epochs=3" in command for command in found) == 2


def fingerprint_of(kind, model, seed, overrides):
    """The fingerprint of what a command for one model does."""
    definition = named_study(model).asked_for(seeds=str(seed), scale="smoke", settings=overrides)
    (step,) = [s for s in expand(definition).steps.values() if s.listed and s.kind == kind]
    return step.fingerprint


MODELS = [*EXP1, "pt1-1", "pt1-2", "pt2-3", "pt1@wide_ftwb1-2", "pt1_ftwb1-1+lora"]
WORK = st.tuples(
    st.sampled_from(["train", "evaluate", "extract"]),
    st.sampled_from(MODELS),
    st.integers(1, 3),
    st.sampled_from([{}, {}, SETTINGS]),
)


@settings(max_examples=25)
@given(
    st.lists(WORK, min_size=2, max_size=40), st.sets(st.tuples(st.sampled_from(EXP1), st.just(1)))
)
def test_the_fewest_commands_do_the_work_and_train_no_model_that_is_not_asked_for(works, present):
    commands = []
    for kind, model, seed, overrides in works:
        training = "pretrain" if "_" not in model else "finetune"
        entry = training if kind == "train" else kind
        commands.append(single(entry, model, seed, **overrides))
    found = fewest(commands, present)
    assert len(found) <= len(set(commands))
    steps = [step for c in found if "study" in c for step in graph_of(c).steps.values()]
    done = {step.fingerprint for step in steps}
    named = {(str(s.settings.model_name), s.settings.seed) for s in steps if s.listed}
    assert named <= {(model, seed) for _, model, seed, _ in works} | present
    for command, (kind, model, seed, own) in zip(commands, works, strict=True):
        assert command in found or fingerprint_of(kind, model, seed, own) in done


@given(st.sets(st.sampled_from([*MODELS, *(f"{model}+ewc" for model in EXP1[1:])]), min_size=1))
def test_ranges_are_read_back(models):
    assert set(map(str, named_study(in_ranges(models)).model_names)) == models


def test_a_study_of_named_models_is_called_after_them():
    assert named_study("pt1,pt1_ftwb2-1..21").name == "pt1,pt1_ftwb2-1..21"
    assert len(parse_names(in_ranges(EXP1))) == 3
    assert len(named_study(",".join(EXP1)).name) < 70


@pytest.mark.parametrize(
    "models", ["pt1,", "pt1_ftwb1-3..1", "pt1_ftwb9-1", "all", "pt1_ftwb1-1..x"]
)
def test_models_that_do_not_parse_are_named(models):
    with pytest.raises(ValueError, match="ftwb|unknown|run backwards"):
        named_study(models)
