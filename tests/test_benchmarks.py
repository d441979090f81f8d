"""The benchmarks measure at a tiny size, and what they write can be read. No time is judged."""

import json
import math
from collections.abc import Mapping

import pytest
from click.testing import CliRunner

from benchmarks import (
    analysis,
    cities,
    data,
    evaluation,
    extraction,
    floor,
    plain_steps,
    replicate,
    report,
    study,
    together,
    tracking,
    training,
)
from benchmarks.clock import clocked
from benchmarks.simulated import large_study
from benchmarks.stores import working_in
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve


def numbers_in(found):
    """All numbers of nested mappings."""
    for value in found.values():
        if isinstance(value, Mapping):
            yield from numbers_in(value)
        elif not isinstance(value, str):
            yield value


def assert_positive(found):
    assert all(math.isfinite(number) and number > 0 for number in numbers_in(found)), found


def test_a_table_shows_whole_numbers_whole_and_floats_with_three_digits():
    table = report.Table(("what", "n", "x"), [("a", 1_234_567, 63_412.3), ("b", 0, 0.012345)])
    assert str(table) == (
        "| what | n | x |\n| --- | --- | --- |\n| a | 1,234,567 | 63,400 |\n| b | 0 | 0.0123 |"
    )
    assert str(report.Table(("n",), [], "Above:")).startswith("Above:\n\n| n |")


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.999, "10.0"), (99.96, "100"), (-12.345, "-12.3"), (0.0, "0"), (math.nan, "nan")],
)
def test_numbers_are_rounded_before_their_digits_are_counted(value, text):
    assert report.shown(value) == text


def test_ratios_and_shares_are_text():
    assert (report.ratio(2.345678), report.percent(0.01234)) == ("2.35", "1.23%")


def page_of(folder):
    return CliRunner().invoke(report.main, [str(folder)])


def test_files_of_benchmarks_make_one_page(tmp_path):
    for name in ("two", "one"):
        table = report.Table(("n",), [(1,)], name)
        report.write(name, {"n": 1}, [table, table], tmp_path / "bench" / f"{name}.json")
    assert {path.name for path in (tmp_path / "bench").iterdir()} == {"one.json", "two.json"}
    content = json.loads((tmp_path / "bench" / "one.json").read_text())
    assert content["numbers"] == {"n": 1}
    assert {"cores", "torch", "device", "date"} <= set(content["environment"])
    text = page_of(tmp_path / "bench").output
    assert text.index("## one") < text.index("## two")
    assert text.count("| n |\n| --- |\n| 1 |") == 4


@pytest.mark.parametrize("content", ["no JSON", "[1]", "{}", '{"environment": 1}'])
def test_a_file_of_something_else_is_named_in_one_sentence(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    result = page_of(tmp_path)
    assert result.exit_code == 1
    assert result.output.strip().count("\n") == 0
    assert "bad.json was not written by a benchmark" in result.output


def test_an_empty_folder_is_told_in_one_sentence(tmp_path):
    result = page_of(tmp_path)
    assert result.exit_code == 1 and "make bench" in result.output


def test_data_are_timed_for_every_task(monkeypatch):
    monkeypatch.setattr(data, "PLAIN_SECONDS", 0.01)
    case = data.measure("smoke", 32, 2)
    assert set(case["tasks"]) == set(TASK_NAMES)
    assert case["rows"] == sum(task["rows"] for task in case["tasks"].values())
    assert_positive(case)
    assert len(data.tables([case, case])) == 2


def test_all_row_sets_shrink_with_the_training_set():
    settings = data.of_size("paper", 10_000)
    assert (settings.pretrain_rows, settings.ft_atlantis_rows, settings.val_rows) == (
        10_000,
        1_000,
        1,
    )


def test_a_clock_counts_a_call_within_a_call_once():
    class Outer:
        def whole(self):
            return self.part() + self.part()

        def part(self):
            return 1

    with clocked(Outer) as clock:
        assert Outer().whole() == 2
        Outer().part()
    assert dict(clock.calls) == {"whole": 1, "part": 1}
    Outer().part()
    assert clock.calls["part"] == 1 and clock.total == sum(clock.seconds.values()) > 0


def test_tracking_is_timed_beside_the_same_training_without_it(store_uri, tmp_path):
    settings = tracking.lasting("smoke", 8)
    (case,) = tracking.measure(settings, 1, {"SQLite": store_uri}, tmp_path)
    assert (case["store"], case["steps"]) == ("SQLite", 8)
    assert case["points"] >= 8
    longer = case.pop("longer")
    assert math.isfinite(longer)
    assert_positive(case)
    assert case["tracking_seconds"] < case["seconds"]
    parts = ("opening", "numbers", "checkpoints", "closing")
    assert sum(case[f"{part}_seconds"] for part in parts) == pytest.approx(case["tracking_seconds"])
    assert len(tracking.tables([case | {"longer": longer}], {"SQLite": 1.0})) == 2


def test_a_study_is_timed_by_its_steps(store_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.simulated.CURVE_POINTS", 5)
    with working_in(tmp_path, store_uri):
        case = study.measure(4, 1)
    assert (case["models"], case["steps"], case["workers"]) == (4, 12, 1)
    assert_positive(case)
    assert case["seconds_per_step"] > case["seconds_per_step_outside_runs"]
    plain = {"seconds_per_step": 1.0}
    assert len(study.tables([case | {"plain": plain}], {"status": 1.0})) == 3


def test_a_step_in_a_process_of_its_own_logs_what_the_simulated_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.simulated.CURVE_POINTS", 5)
    (settings,) = large_study(1, 1).by_model()
    train, evaluate, extract = plain_steps.write_steps(settings, tmp_path)
    content = json.loads((train / "step.json").read_text())
    assert content["name"] == settings.run_name("train")
    assert [values for _, values in content["numbers"] if "train/loss" in values]
    assert (train / "cities.csv").exists() and list(extract.rglob("*.safetensors"))
    assert len(json.loads((evaluate / "step.json").read_text())["numbers"]) == 21


@pytest.mark.slow
def test_a_step_in_a_process_of_its_own_is_timed(store_uri, empty_database, tmp_path):
    assert_positive(study.measure_plain(tmp_path / "plain", empty_database))


def test_similarity_is_timed():
    assert analysis.time_cka(models=2, cities=20, layers=1) > 0
    assert len(analysis.table(2, 1.0, {"report": 1.0}).rows) == 1


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (training, ["--blocks", "1", "--width", "base"]),
        (evaluation, ["--rows", "6", "--curve", "4", "--steps", "2"]),
        (floor, ["--width", "base"]),
    ],
)
def test_a_command_writes_its_numbers(tmp_path, monkeypatch, command, options):
    monkeypatch.setattr(training, "CURVE", (16,))
    path = tmp_path / "numbers.json"
    options = "--scale", "smoke", *options, "--out", str(path)
    result = CliRunner().invoke(command.main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["tables"][0] in result.output


def test_a_list_that_is_none_is_refused_in_a_sentence():
    result = CliRunner().invoke(evaluation.main, ["--curve", "4,x"])
    assert result.exit_code == 2
    assert result.output == "Error: '4,x' is not a list of whole numbers such as 1,2,4\n"


def test_training_is_compared_on_equal_losses():
    found = training.measure("smoke", "base", blocks=1, batch_size=16, loss="answer")
    assert found.pop("losses_apart") < 1e-5
    assert_positive(found)


def test_evaluation_is_compared_on_equal_texts():
    model, suites = evaluation.prepare("smoke", "base", 12, steps=3, cities="none")
    found = evaluation.measure(model, "standard/inside", suites["standard/inside"], rounds=1)
    assert found.pop("differing") == 0
    assert_positive(found)


def test_extraction_is_compared_on_equal_tables():
    found = extraction.measure("smoke", "base", "all", 15, rounds=1)
    assert found["cities"] == 15 and found.pop("apart") < 1e-4
    assert_positive(found)


def test_the_floor_counts_what_a_step_must_do():
    found = floor.measure("smoke", "base")
    assert_positive(found)
    assert found["tokens"] < found["real_tokens"]
    settings = resolve(ModelName("pt1"), scale="smoke")  # 2 layers, widths 16 and 32
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 32) + 98 * 16
    assert floor.matrix_weights(settings) == matrices
    assert floor.step_flop(settings, 10) == 6 * matrices * 10
    activations = 2 * 10 * 2 * (14 * 16 + 3 * 32)
    assert floor.step_bytes(settings, 10, mixed=False) == 4 * (
        activations + (matrices + 98 * 16) * (8 + 3)
    )


@pytest.mark.slow
def test_models_are_trained_at_once():
    rate = together.measure(2, "smoke", "base", 0.2, {"batch_size": 8})
    assert rate > 0


def test_a_replication_is_made_once_and_only_with_its_settings(tmp_path):
    def run(*more):
        options = "--scale", "smoke", "--ft", "ftwb1-1", "--folder", str(tmp_path / "r"), *more
        return CliRunner().invoke(replicate.main, options)

    first, again, other = run(), run(), run("--compute", "plain")
    assert first.exit_code == 0, first.output
    assert first.output == again.output and "pt1_ftwb1-1: train" in first.output
    assert (
        other.exit_code == 1
        and "other settings or of another base; remove it first" in other.output
    )
    made = {path.name for path in (tmp_path / "r" / "pt1_ftwb1-1_seed42").iterdir()}
    assert made == {"metrics.json", "metrics.jsonl", "model", "settings.json"}


def test_cities_brought_along_make_the_same_world(tmp_path):
    from worldrep.data.world import build_world, world_of

    path = tmp_path / "cities.csv"
    assert CliRunner().invoke(cities.main, [str(path), "--scale", "mini"]).exit_code == 0
    settings = resolve(ModelName("pt1"), scale="mini", overrides={"cities": str(path)})
    assert world_of(settings).digest == build_world(scale="mini").digest
