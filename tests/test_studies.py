"""What studies consist of: the built-in ones name by name, files of users, graphs, shards."""

from collections import Counter

import pytest

from worldrep.errors import InputError
from worldrep.names import parse_model
from worldrep.settings import parse_seeds
from worldrep.studies import Shard, builtin_names, expand, load_definition
from worldrep.studies.definition import LIBRARY

FTWB1 = [f"ftwb1-{k}" for k in range(1, 8)]
FTWB2 = [f"ftwb2-{k}" for k in range(1, 22)]
WIDE = ("pt1@wide", "pt1@narrow")
EXP3 = [f"ftwb2-{k}" for k in (2, 4, 9, 12, 13, 15)]


def tuned(base, fts):
    return [base, *(f"{base}_{ft}" for ft in fts)]


def models(name, **changes):
    """(model, world, seed) of every model of a study."""
    resolved = load_definition(name).changed(**changes).resolved
    return [(str(s.model_name), s.world, s.seed) for s in resolved]


def expected(names, seeds, world="standard"):
    return [(name, world, seed) for seed in seeds for name in names]


FTSET = [f"ft{w}{m}-{k}" for w in ("", "wb") for m, n in ((1, 7), (2, 21), (3, 7))
         for k in range(1, n + 1)]  # fmt: skip
STRATEGIES = ("", "+replay", "+l2sp", "+ewc", "+lora", "+freeze")
MITIGATION = ["pt1"] + [f"pt1_{ft}{strategy}" for strategy in STRATEGIES
                        for ft in (*FTWB1, "ftwb2-1", "ftwb2-2", "ftwb2-13")]  # fmt: skip
CONTENT = {
    "exp1": (87, expected(tuned("pt1", FTWB1 + FTWB2), (1, 2, 3))),
    "exp2": (42, expected([f"pt{m}-{k}" for m in (2, 3) for k in range(1, 8)], (42, 1, 2))),
    "exp3": (28, expected([n for w in WIDE for n in tuned(w, FTWB1 + EXP3)], (42,))),
    "exp4": (21, expected([f"pt1-{k}" for k in range(1, 8)], (42, 1, 2))),
    "exp5": (1, expected(["pt1"], (42,), "with_atlantis")),
    "exp6": (29, expected(tuned("pt1", FTWB1 + FTWB2), (42,), "scattered")),
    "ftset": (71, expected(tuned("pt1", FTSET), (42,))),
    "mitigation": (183, expected(MITIGATION, (42, 1, 2))),
    "demo": (29, expected(tuned("pt1", FTWB1 + FTWB2), (42,))),
}  # fmt: skip


def test_every_study_of_the_design_is_there():
    assert builtin_names() == sorted(CONTENT)


@pytest.mark.parametrize("name", CONTENT)
def test_a_study_has_exactly_its_models(name):
    count, content = CONTENT[name]
    found = models(name)
    assert len(found) == count == len(set(found))
    assert Counter(found) == Counter(content)


@pytest.mark.parametrize("name", CONTENT)
def test_every_model_is_trained_and_evaluated_and_extracted_where_that_is_asked(name):
    count, _ = CONTENT[name]
    steps = expand(load_definition(name)).steps.values()
    kinds = ["train", "evaluate"] + ["extract"] * (name != "mitigation")
    assert Counter(step.kind for step in steps) == dict.fromkeys(kinds, count)
    assert all(step.listed for step in steps)
    models = "1 model" if count == 1 else f"{count} models"
    first_line = (LIBRARY / f"{name}.yaml").read_text().splitlines()[0]
    assert first_line == f"# {models}, {len(steps)} steps"


def test_the_sizes_that_the_design_states():
    assert len(models("exp1", seeds=(1, 2, 3, 42))) == 116
    assert len(models("exp3", widths=("wide", "narrow", "wider"))) == 42


def test_a_base_comes_before_what_is_fine_tuned_from_it():
    for name in builtin_names():
        seen = set()
        for fingerprint, step in expand(load_definition(name)).steps.items():
            assert not step.needs or step.needs in seen
            seen.add(fingerprint)


def test_studies_share_the_steps_that_they_have_in_common():
    exp1 = expand(load_definition("exp1").changed(seeds=(42,))).steps
    ftset = expand(load_definition("ftset")).steps
    shared = {(str(ftset[f].settings.model_name), ftset[f].kind) for f in exp1.keys() & ftset}
    assert ("pt1_ftwb1-3", "train") in shared and ("pt1_ftwb1-3", "extract") in shared
    assert len(shared) == 29 * 3


def test_seeds_share_a_configuration_and_nothing_else():
    steps = expand(load_definition("exp1")).steps.values()
    ones = [s for s in steps if str(s.settings.model_name) == "pt1_ftwb2-13"]
    assert len({step.configuration for step in ones}) == 3  # one for each kind
    assert len({step.fingerprint for step in ones}) == 9


def write(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_users_file_spans_a_study(tmp_path):
    text = """
        about: Mine.
        models: [pt1, pt1_ftwb1-2..4, pt1_ft2-7]
        seeds: 3
        widths: [base, narrow]
        worlds: [standard, scattered]
        scale: smoke
        settings: {learning_rate: 1e-3}
    """
    definition = load_definition(write(tmp_path, text))
    assert definition.name == "mine" and len(definition.resolved) == 5 * 2 * 2
    assert {s.learning_rate for s in definition.resolved} == {1e-3}
    assert {s.seed for s in definition.resolved} == {3}
    names = {str(s.model_name) for s in definition.resolved}
    assert {"pt1", "pt1@narrow_ftwb1-3", "pt1_ft2-7"} <= names


def test_an_unlisted_base_is_trained_and_no_more(tmp_path):
    definition = load_definition(write(tmp_path, "models: [pt1_ftwb1-1]\nscale: smoke"))
    steps = list(expand(definition).steps.values())
    assert [(s.stage, s.listed) for s in steps] == [
        ("pretrain", False),
        ("finetune", True),
        ("evaluate", True),
        ("extract", True),
    ]


def test_steps_can_be_left_out(tmp_path):
    text = "models: [pt1]\nscale: smoke\nsteps: [evaluate]"
    kinds = [s.kind for s in expand(load_definition(write(tmp_path, text))).steps.values()]
    assert kinds == ["train", "evaluate"]


def test_a_listed_base_takes_the_studys_settings_and_an_unlisted_one_does_not(tmp_path):
    own = "scale: smoke\nsettings: {epochs: 1}\nmodels: "
    with_base = expand(load_definition(write(tmp_path, own + "[pt1, pt1_ft1-1]")))
    without = expand(load_definition(write(tmp_path, own + "[pt1_ft1-1]")))
    epochs = [
        {s.stage: s.settings.epochs for s in graph.steps.values() if s.kind == "train"}
        for graph in (with_base, without)
    ]
    assert epochs == [{"pretrain": 1, "finetune": 1}, {"pretrain": 2, "finetune": 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [pt9]", "unknown pretrain 'pt9'"),
        ("models: [pt1_ftwb1-8]", "unknown ft 'ftwb1-8' (did you mean"),
        ("model: [pt1]", "unknown key 'model' (did you mean 'models'?)"),
        ("models: [pt1]\nseeds: [a]", "seed='a' is not a whole number"),
        ("models: [pt1]\nseeds: [-1]", "must be at least 0"),
        ("models: [pt1]\nwidths: [huge]", "unknown width 'huge'"),
        ("models: [pt1]\nworlds: [flat]", "unknown world 'flat'"),
        ("models: [pt1]\nscale: minni", "unknown scale 'minni' (did you mean 'mini'?)"),
        ("models: [pt1]\nsteps: [draw]", "unknown step 'draw'"),
        ("models: [pt1]\nsettings: {epoch: 1}", "unknown setting 'epoch' (did you mean"),
        ("models: [pt1]\nsettings: {epochs: many}", "epochs='many' is not a whole number"),
        ("models: [pt1]\nsettings: 3", "settings is not a list of names with values"),
        ("models: [pt1_ft1-3..1]", "run backwards"),
        ("models: [pt1@wide]\nwidths: [base]", "names a width, and widths are given beside it"),
        ("models: []", "has no models"),
        ("seeds: [1]", "has no models"),
        ("models: {a: 1}", "models is not a list of names or numbers"),
        ("- pt1", "is not a list of keys with values"),
        ("models: [pt1", "line 2 is not YAML"),
        ("", "is not a list of keys with values"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        load_definition(write(tmp_path, text + "\n"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_must_be_there_and_not_take_a_built_in_name(tmp_path):
    with pytest.raises(InputError, match="cannot read study"):
        load_definition(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="'exp1' is taken"):
        load_definition(write(tmp_path, "models: [pt1]", "exp1.yaml"))
    with pytest.raises(InputError, match="did you mean 'exp1'"):
        load_definition("expp1")


@pytest.mark.parametrize("text", ["", "1,,2", "1.5", "one", "1-3"])
def test_seeds_that_do_not_parse_are_named(text):
    with pytest.raises(InputError, match="seed="):
        parse_seeds(text)


@pytest.fixture(scope="module")
def exp1():
    return expand(load_definition("exp1"))


def test_a_graph_tells_how_many_trainings_can_run_at_once(exp1):
    assert exp1.n_bases == len(exp1.definition.seeds)
    assert exp1.parallel == 28 * exp1.n_bases


@pytest.mark.parametrize("count", range(1, 17))
def test_shards_are_disjoint_and_complete(exp1, count):
    parts = [Shard(index, count).steps_of(exp1) for index in range(1, count + 1)]
    assert sum(map(len, parts)) == len(exp1.steps)
    assert set().union(*parts) == exp1.steps.keys()


@pytest.mark.parametrize("count", range(2, 17))
def test_shards_are_as_even_as_their_largest_model_allows(exp1, count):
    loads = [
        sum(exp1.steps[f].cost for f in Shard(index, count).steps_of(exp1))
        for index in range(1, count + 1)
    ]
    models = [sum(s.cost for s in steps.values()) for steps in exp1.by_model().values()]
    # A greedy schedule, longest first, is at most a third above the best possible one.
    assert max(loads) <= 4 / 3 * max(*models, sum(loads) / count)


def test_shards_do_not_depend_on_the_process(exp1):
    again = expand(load_definition("exp1"))
    assert Shard(2, 7).steps_of(again) == Shard(2, 7).steps_of(exp1)


@pytest.mark.parametrize("text", ["0/7", "8/7", "2", "2/", "/7", "a/b", "1/0", "-1/2", "2/7/1"])
def test_a_shard_that_does_not_parse_is_named(text):
    with pytest.raises(InputError, match="shard="):
        Shard.parse(text)


def test_names_of_models_are_read_back(exp1):
    for step in exp1.steps.values():
        assert parse_model(str(step.settings.model_name)) == step.settings.model_name
