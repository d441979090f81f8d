"""Settings: every scale and width is complete, has the sizes of the study, and is checked."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import worldrep
from worldrep.data import sets as data
from worldrep.data.sets import Schedule
from worldrep.errors import InputError
from worldrep.model.qwen2 import build_model
from worldrep.names import FINETUNINGS, PRETRAININGS, WIDTHS, parse_model
from worldrep.scales import base_settings, resolve
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES, check_value, from_dict, parse_value


def settings_of(model="pt1", scale="paper", overrides=None, **names):
    return resolve(parse_model(model), scale=scale, overrides=overrides, **names)


def rows_of(settings, world):
    return sum(rowset.rows for rowset in data.training_sets(settings, world))


def steps_of(settings, world):
    return Schedule.of(settings, rows_of(settings, world)).steps


# Presets


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_model_of_every_scale_and_width_resolves(scale, width):
    for pretrain in PRETRAININGS:
        for ft in ("", *(f"_{ft}" for ft in FINETUNINGS)):
            settings = settings_of(f"{pretrain}@{width}{ft}", scale)
            assert (settings.scale, settings.width) == (scale, width)
            assert str(settings.model_name) == str(parse_model(f"{pretrain}@{width}{ft}"))


@pytest.mark.parametrize(
    ("width", "hidden", "intermediate", "heads", "parameters", "epochs"),
    [
        ("base", 128, 512, 4, 1_601_920, 6),
        ("wide", 256, 1024, 8, 6_349_568, 3),
        ("narrow", 64, 256, 2, 407_744, 12),
        ("wider", 512, 2048, 16, 25_282_048, 3),
    ],
)
def test_widths_of_the_paper(width, hidden, intermediate, heads, parameters, epochs):
    settings = settings_of(f"pt1@{width}")
    assert settings.group("model") == {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "n_heads": heads,
        "n_layers": 6,
    }
    assert settings.epochs == epochs
    assert build_model(settings).num_parameters() == parameters


@pytest.mark.parametrize("width", WIDTHS)
def test_finetuning_lasts_equally_long_at_every_width(width):
    assert settings_of(f"pt1@{width}_ftwb2-1").epochs == 30


def test_training_of_the_paper():
    settings = settings_of("pt1")
    assert settings.group("training") == {
        "epochs": 6,
        "batch_size": 128,
        "accumulation": 1,
        "optimizer": "adamw",
        "learning_rate": 3e-4,
        "muon_learning_rate": 5e-3,
        "warmup_steps": 50,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "loss": "full",
        "precision": "auto",
        "compute": "auto",
        "n_checkpoints": 10,
        "n_validations": 100,
    }
    assert settings_of("pt1_ftwb1-1").learning_rate == 1e-5


def test_rows_of_the_paper():
    settings = settings_of("pt1")
    assert (settings.n_cities, settings.n_atlantis, settings.id_digits) == (5075, 100, 4)
    assert settings.max_per_country == 0
    assert settings.group("rows", "ft_rows") == {
        "pretrain_rows": 1_000_000,
        "val_rows": 128,
        "test_rows": 10_000,
        "multi_rows": 10_000,
        "ft_atlantis_rows": 100_000,
        "ft_world_rows": 20_000,
        "ft_warmup_rows": 256,
    }


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ("pt1", 7_000_000),
        ("pt1-4", 1_000_000),
        ("pt2-8", 2_000_000),
        ("pt3-1", 3_000_000),
        ("pt1_ft1-1", 120_000),
        ("pt1_ft2-1", 240_000),
        ("pt1_ft3-1", 360_000),
        ("pt1_ftwb1-1", 121_792),
        ("pt1_ftwb2-1", 241_792),
        ("pt1_ftwb3-1", 361_792),
    ],
)
def test_numbers_of_training_rows_of_the_paper(paper_world, model, rows):
    assert rows_of(settings_of(model), paper_world) == rows


@pytest.mark.parametrize(
    ("model", "epochs", "steps"),
    [
        ("pt1", 6, 328_128),
        ("pt1_ft1-3", 30, 28_140),
        ("pt1_ft2-3", 30, 56_250),
        ("pt1_ft3-3", 20, 56_260),
        ("pt1_ftwb1-3", 30, 28_560),
        ("pt1_ftwb2-21", 30, 56_670),
        ("pt1_ftwb3-7", 20, 56_540),
        ("pt2-1_ftwb2-21", 30, 56_670),
    ],
)
def test_numbers_of_steps_of_the_paper(paper_world, model, epochs, steps):
    settings = settings_of(model)
    assert settings.epochs == epochs
    assert steps_of(settings, paper_world) == steps


@pytest.mark.parametrize("pretrain", PRETRAININGS)
def test_every_pretraining_takes_about_equally_many_steps(paper_world, pretrain):
    settings = settings_of(pretrain)
    assert settings.epochs == {7: 6, 1: 42, 2: 21, 3: 14}[len(settings.tasks)]
    assert steps_of(settings, paper_world) == pytest.approx(328_130, abs=20)


def test_mini_is_the_default_with_seed_42():
    settings = resolve(parse_model("pt1"))
    assert (settings.scale, settings.world, settings.seed) == ("mini", "standard", 42)


# Overrides


def changed(name, value):
    """Another allowed value of the same kind."""
    words = {"cities": "cities.csv", "loss": "answer", "precision": "no", "compute": "plain"}
    words |= {"trained_part": "body", "replay_share": 0.25, "optimizer": "muon"}
    return words[name] if name in words else value * 2


@pytest.mark.parametrize("name", OVERRIDABLE)
def test_any_single_value_can_be_overridden(name):
    key, reader = FIELDS[name].metadata.get("reader", (None, None))
    model = f"pt1_ftwb1-1+{reader}" if key == "strategy" else "pt1"
    given = {"max_per_country": 3} | ({"optimizer": reader} if key == "optimizer" else {})
    before = settings_of(model, "smoke", given).as_dict()
    value = 3 if name == "id_digits" else changed(name, before[name])
    after = settings_of(model, "smoke", given | {name: value}).as_dict()
    assert after == {**before, name: value}
    assert value != before[name]


@pytest.mark.parametrize("name", ["scale", "pretrain", "ft", "width", "world", "seed"])
def test_names_are_not_overridden(name):
    with pytest.raises(InputError, match=f"unknown setting '{name}'"):
        settings_of("pt1", "smoke", {name: 1})


@pytest.mark.parametrize(
    ("names", "kind", "nearest"),
    [
        ({"scale": "smoke", "overrides": {"epoch": 3}}, "setting 'epoch'", "epochs"),
        ({"scale": "papr"}, "scale 'papr'", "paper"),
        ({"scale": "smoke", "world": "scatter"}, "world 'scatter'", "scattered"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_one(names, kind, nearest):
    with pytest.raises(InputError, match=f"unknown {kind}.*did you mean '{nearest}'"):
        settings_of("pt1", **names)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_of("pt1").epochs = 1


# Bounds


LEAST = {
    **dict.fromkeys(("world_seed", "max_per_country", "ft_world_rows", "ft_warmup_rows"), 0),
    **dict.fromkeys(("n_atlantis", "id_digits", "pretrain_rows", "val_rows", "test_rows"), 1),
    **dict.fromkeys(("multi_rows", "ft_atlantis_rows", "n_layers", "epochs", "batch_size"), 1),
    **dict.fromkeys(("accumulation", "n_checkpoints", "n_validations"), 1),
    **dict.fromkeys(("learning_rate", "weight_decay", "clip_norm"), 0.0),
    **{"n_cities": 6, "warmup_steps": 0},
}


@pytest.mark.parametrize(("name", "bound"), LEAST.items())
def test_a_value_below_its_bound_is_refused(name, bound):
    value = bound - 1
    sentence = f"^{name}={value} is too small; it must be at least {bound}$"
    with pytest.raises(InputError, match=sentence):
        settings_of("pt1", "smoke", {name: value})


def test_a_value_above_its_bound_is_refused():
    with pytest.raises(InputError, match="^id_digits=7 is too large; it must be at most 6$"):
        settings_of("pt1", "smoke", {"id_digits": 7})


WHOLE = [name for name, spec in FIELDS.items() if spec.type == "int"]


@pytest.mark.parametrize("name", WHOLE)
def test_every_whole_number_has_a_largest_value(name):
    with pytest.raises(InputError, match=f"^{name}=9223372036854775808 is too large; it must be"):
        check_value(name, 2**63)
    for text in ("9" * 300, "9" * 5000):
        with pytest.raises(InputError, match=f"^{name}='?999.*[0-9] characters.*too") as fault:
            check_value(name, parse_value(name, text))
        assert len(str(fault.value)) < 200


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_another_type_is_refused(name):
    for value in (None, [], {}, True, "text" if FIELDS[name].type != "str" else 1):
        with pytest.raises(InputError, match=f"^{name}=.* is not of the type "):
            check_value(name, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(InputError, match="learning_rate=.* is not a finite number"):
        settings_of("pt1", "smoke", {"learning_rate": value})


@pytest.mark.parametrize(
    ("name", "value"), [("loss", "fulll"), ("precision", "fp16"), ("compute", "fast")]
)
def test_a_value_that_is_not_among_the_allowed_is_refused(name, value):
    with pytest.raises(InputError, match=f"unknown {name} '{value}'.*allowed: "):
        settings_of("pt1", "smoke", {name: value})


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed=-1 is too small"):
        settings_of("pt1", "smoke", seed=-1)


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(InputError, match=r"hidden_size=30 with n_heads=4.*multiple of .*=8$"):
        settings_of("pt1", "smoke", {"hidden_size": 30, "n_heads": 4})


def test_a_batch_has_a_row_for_each_of_its_parts():
    with pytest.raises(InputError, match="accumulation=5 is more than batch_size=4"):
        settings_of("pt1", "smoke", {"accumulation": 5, "batch_size": 4})


def test_cities_must_fit_their_ids():
    with pytest.raises(InputError, match=r"95 \+ 8 cities do not fit ids of 2 digits; at most 100"):
        settings_of("pt1", "smoke", {"n_cities": 95, "n_atlantis": 8, "id_digits": 2})


# Typed and saved settings


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", "1", 1.0),
        ("cities", "my cities.csv", "my cities.csv"),
        ("loss", "answer", "answer"),
    ],
)
def test_typed_values_get_their_type(name, text, value):
    parsed = parse_value(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [("epochs", "2.5", "a whole number"), ("epochs", "", "a whole number"),
     ("clip_norm", "much", "a number")],
)  # fmt: skip
def test_a_typed_value_of_another_type_is_refused(name, text, kind):
    with pytest.raises(InputError, match=f"^{name}='{text}' is not {kind}$"):
        parse_value(name, text)


def test_a_typed_unknown_setting_is_refused():
    with pytest.raises(InputError, match="unknown setting 'top_k'"):
        parse_value("top_k", "5")


def test_every_setting_survives_being_written_and_typed_again():
    settings = settings_of("pt1@wide_ftwb2-13", "mini", {"learning_rate": 0.1 + 0.2})
    typed = {name: parse_value(name, str(value)) for name, value in settings.as_dict().items()}
    assert typed == settings.as_dict()


def test_saved_settings_are_read_back():
    settings = settings_of("pt1@wide_ftwb2-13", "mini", {"epochs": 3}, seed=7)
    assert from_dict(settings.as_dict()) == settings


def test_saved_settings_of_another_version_are_refused():
    values = settings_of("pt1").as_dict()
    with pytest.raises(InputError, match="unknown setting 'temperature'"):
        from_dict({**values, "temperature": 1})
    del values["loss"], values["epochs"]
    with pytest.raises(InputError, match="^settings lack epochs, loss$"):
        from_dict(values)


# Bases


def test_the_base_of_a_finetuning_has_its_seed_world_rows_and_model():
    overrides = {"n_layers": 3, "pretrain_rows": 50, "world_seed": 9}
    settings = settings_of("pt2-3@wide_ftwb2-13", "smoke", overrides, world="scattered", seed=3)
    expected = settings_of("pt2-3@wide", "smoke", overrides, world="scattered", seed=3)
    assert base_settings(settings) == expected


def test_the_base_is_trained_as_its_scale_says():
    settings = settings_of("pt1_ftwb1-1", "smoke", {"epochs": 9, "learning_rate": 0.5})
    assert base_settings(settings) == settings_of("pt1", "smoke")


# No setting without effect


@pytest.mark.parametrize("name", OVERRIDABLE)
def test_every_setting_is_read_by_code(name):
    folder = Path(worldrep.__file__).parent
    sources = [p for p in folder.rglob("*.py") if p.name not in ("settings.py", "scales.py")]
    read = re.compile(rf"\bsettings\.{name}\b")
    assert any(read.search(path.read_text(encoding="utf-8")) for path in sources)


def test_equal_numbers_are_equal_settings():
    kinds = ({"weight_decay": 0}, {"weight_decay": 0.0}, {"weight_decay": -0.0})
    texts = {json.dumps(settings_of("pt1", overrides=own).as_dict()) for own in kinds}
    assert len(texts) == 1
    with pytest.raises(InputError, match="trained_part='last-01' is not one of"):
        settings_of("pt1_ftwb1-1+freeze", overrides={"trained_part": "last-01"})


def test_every_setting_has_a_group_and_a_description():
    groups = {"name", "world", "rows", "ft_rows", "model", "training", "strategy"}
    assert {spec.metadata["group"] for spec in FIELDS.values()} == groups
    assert all(spec.metadata["help"] for spec in FIELDS.values())
