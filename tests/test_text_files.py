"""YAML files of users: every scalar is a text, and every limit is one sentence."""

import pytest

from worldrep.errors import InputError
from worldrep.studies import load_definition
from worldrep.text_files import DEEPEST, MOST_NODES, MOST_YAML, read_yaml


def read(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, "study")


def test_scalars_are_texts(tmp_path):
    text = "a: [no, 010, 2026-13-45, 1e-3, 0x10, ~, 12:30, 'x']\nb: {c: true}\n!!int 5: !!float 6"
    values = ["no", "010", "2026-13-45", "1e-3", "0x10", "~", "12:30", "x"]
    assert read(tmp_path, text) == {"a": values, "b": {"c": "true"}, "5": "6"}
    assert read(tmp_path, "# nothing") is None


def test_an_alias_stands_for_what_its_anchor_names(tmp_path):
    assert read(tmp_path, "a: &x [1, 2]\nb: *x") == {"a": ["1", "2"], "b": ["1", "2"]}


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, f"study FILE: has more than {MOST_NODES} values in 'a"),
        ("a: &x [*x]", "study FILE: *x in 'a' stands for nothing before it"),
        ("a: {b: &x {c: *x}}", "study FILE: *x in 'a.b.c' stands for nothing before it"),
        ("a: {b: " + "[" * 100_000, f"study FILE: is nested more than {DEEPEST} deep in 'a.b'"),
        ("- " * 100_000, f"study FILE: is nested more than {DEEPEST} deep"),
        ("? " * 100_000, f"study FILE: is nested more than {DEEPEST} deep"),
        ("a: {b: 1, b: 2}", "study FILE: 'b' is there twice in 'a'"),
        ("a: 1\n'a': 2", "study FILE: 'a' is there twice"),
        ("a: {[1]: 2}", "study FILE: a key in 'a' is not a name"),
        ("a: 1\n---\na: 2", "study FILE: has several documents, separated by ---"),
        ("a: [", "study FILE line 1 is not YAML: expected the node content, but found"),
        ('a: "\\UFFFFFFFF"', "study FILE is not YAML: "),
        ("%YAML 1." + "1" * 5000 + "\n---\na", "study FILE is not YAML: "),
        (b"a: \x07", "study FILE is not YAML: "),
        (b"a: \xff", "study FILE line 1 is not UTF-8 (byte 0xff), perhaps Windows-1252"),
        ("a: " + "x" * MOST_YAML, "study FILE has more than 0.25 MB"),
    ],
)
def test_whatever_is_no_such_file_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError) as fault:
        read(tmp_path, text)
    found = str(fault.value).replace(str(tmp_path / "file.yaml"), "FILE")
    assert found.startswith(sentence) and "\n" not in found and len(found) < 300


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: pt1\nmodels: pt2", "'models' is there twice"),
        ("models: pt1\nsettings: {epochs: 1, epochs: 2}", "'epochs' is there twice in 'settings'"),
        ("models: 2026-13-45", "unknown pretrain '2026-13-45'"),
        ("models: [pt1, [pt2]]", "models is not a list of names or numbers"),
        ("models: pt1\nscale: [mini]", "scale is not a text"),
        ("models: pt1\nabout: {}", "about is not a text"),
        ("models: pt1\nsettings: {epochs: [1]}", "epochs in settings is not one value"),
        ("models: pt1\nsettings: {epochs: 2026-10-10}", "epochs='2026-10-10' is not a whole"),
        ("models: pt1\nsettings: {epochs: }", "epochs='' is not a whole number"),
        ("models: pt1\nsettings: {epochs: " + "9" * 5000 + "}", "has too many digits"),
        ("models: pt1\nsettings: {epochs: " + "9" * 300 + "}", "is too large; it must be at most"),
        ("models: pt1\nseeds: " + "9" * 5000, "has too many digits"),
        ("models: pt1_ft1-1.." + "9" * 5000, "unknown ft"),
        (f"models: pt1\nseeds: {[*range(19_000)]}\nworlds: [standard, scattered]", "38000 models"),
    ],
)  # fmt: skip
def test_a_study_of_other_types_or_sizes_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as fault:
        _ = load_definition(str(path)).resolved
    assert sentence in str(fault.value) and len(str(fault.value)) < 600
    assert str(fault.value).startswith(f"study {path}: ")


def test_a_setting_whose_name_is_a_boolean_of_yaml_is_read_as_typed(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("models: pt1\nseeds: 010\nsettings: {precision: no, clip_norm: 1}\n")
    (found,) = load_definition(str(path)).resolved
    assert (found.precision, found.seed, found.clip_norm) == ("no", 10, 1.0)
