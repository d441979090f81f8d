"""The benchmarks measure at a tiny size, and what they write can be read. No time is judged."""

import importlib
import json
import math

import pytest
from click.testing import CliRunner

from benchmarks import analysis, data, device, inference, report, study, timing, tracking, training
from benchmarks.stores import working_in
from worldrep.names import TASK_NAMES, ModelName
from worldrep.scales import resolve


def test_a_table_shows_whole_numbers_whole_and_floats_with_three_digits():
    cases = [{"n": 1_234_567, "x": 63_412.3}, {"n": 0, "x": 0.012345}]
    columns = {"n": "n", "half": lambda case: case["x"] / 2}
    assert report.table(cases, columns) == (
        "| n | half |\n| --- | --- |\n| 1,234,567 | 31,700 |\n| 0 | 0.00617 |"
    )
    assert report.table([], columns, "Above:").startswith("Above:\n\n| n |")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.999, "10.0"), (99.96, "100"), (-12.345, "-12.3"), (0.0, "0"), (math.nan, "nan"),
        (1.94e-7, "1.9e-07"), (report.percent(0.01234), "1.23%"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_before_their_digits_are_counted(value, text):
    assert report.shown(value) == text


def page_of(folder):
    return CliRunner().invoke(report.main, [str(folder)])


def test_files_of_benchmarks_make_one_page(tmp_path):
    for name in ("two", "one"):
        tables = [report.table([{"n": 1}], {"n": "n"})] * 2
        report.write(tmp_path / "bench" / f"{name}.json", name, {"n": 1}, tables)
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


def test_a_list_that_is_none_is_refused_in_a_sentence():
    result = CliRunner().invoke(inference.main, ["--curve", "4,x"])
    assert result.exit_code == 2
    assert result.output == "Error: '4,x' is not a list of whole numbers such as 1,2,4\n"


SMOKE = ["--scale", "smoke"]
SLOW = pytest.mark.slow
COMMANDS = [
    ("data", [*SMOKE, "--sizes", "32", "--rounds", "1"], 2),
    ("training", [*SMOKE, "--blocks", "1", "--widths", "base", "--curve", "16"], 1),
    ("inference", [*SMOKE, "--rows", "6", "--curve", "4", "--steps", "2", "--worlds", "15"], 2),
    pytest.param(
        "device",
        [*SMOKE, "--widths", "base", "--processes", "2", "--seconds", "0.1"],
        2,
        marks=SLOW,
    ),
    pytest.param("tracking", [*SMOKE, "--steps", "8"], 1, marks=SLOW),
    pytest.param("study", ["--models", "4", "--workers", "1"], 2, marks=SLOW),
    pytest.param("analysis", [], 1, marks=SLOW),
]


@pytest.fixture
def short(monkeypatch):
    """Benchmarks measure for less time."""
    monkeypatch.setattr(data, "PLAIN_SECONDS", 0.01)
    for name, value in {"BLOCKS": 1, "WARM_UP": 1, "REPEATS": 1, "COPIED": 2**20}.items():
        monkeypatch.setattr(device, name, value)
    for name, value in {"SEEDS": (1,), "MODELS": 2, "CITIES": 20, "LAYERS": 1}.items():
        monkeypatch.setattr(analysis, name, value)


@pytest.mark.parametrize(("name", "options", "tables"), COMMANDS)
def test_every_benchmark_prints_its_tables_and_writes_its_numbers(
    short, tmp_path, name, options, tables
):
    command = importlib.import_module(f"benchmarks.{name}").main
    path = tmp_path / "numbers.json"
    result = CliRunner().invoke(command, [*options, "--out", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    content = json.loads(path.read_text())
    assert content["name"] == name and len(content["tables"]) == tables
    assert all(table in result.output for table in content["tables"])
    assert "nan" not in result.output


def test_all_row_sets_shrink_with_the_training_set():
    settings = data.of_size("paper", 10_000)
    sizes = settings.pretrain_rows, settings.ft_atlantis_rows, settings.val_rows
    assert sizes == (10_000, 1_000, 1)


def test_data_of_every_task_are_made_both_ways(short):
    case = data.measure("smoke", 32, 2)
    assert [task["task"] for task in case["tasks"]] == list(TASK_NAMES)
    assert case["rows"] == sum(task["rows"] for task in case["tasks"])


def test_a_call_within_a_call_is_timed_once():
    class Outer:
        def whole(self):
            return self.part() + self.part()

        def part(self):
            return 1

    with tracking.clocked(Outer) as spent:
        assert Outer().whole() == 2 and len(spent) == 1
        Outer().part()
    Outer().part()
    assert len(spent) == 2


def test_tracking_takes_a_part_of_the_training_beside_which_it_is_timed(store_uri, tmp_path):
    settings = tracking.lasting("smoke", 8)
    (case,) = tracking.measure(settings, 1, {"SQLite": store_uri}, tmp_path)
    assert case["store"] == "SQLite" and 0 < case["tracking_seconds"] < case["seconds"]


def test_a_study_is_timed_by_its_steps(store_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.simulated.CURVE_POINTS", 5)
    with working_in(tmp_path, store_uri):
        case = study.measure(4, 1)
    assert (case["models"], case["steps"], case["workers"]) == (4, 12, 1)
    assert case["seconds_per_step"] > case["seconds_per_step_outside_runs"] > 0


def test_training_is_compared_on_equal_losses():
    found = training.measure("smoke", "base", blocks=1, batch_size=16, loss="answer")
    assert found["losses_apart"] < 1e-5


def test_evaluation_is_compared_on_equal_texts():
    model, suites = inference.trained("smoke", "base", 12, steps=3, cities="none")
    found = inference.answer(model, "standard/inside", suites["standard/inside"], 1, batch=8)
    assert found["differing"] == 0 and found["rows"] == 12


def test_extraction_is_compared_on_equal_tables():
    found = inference.represent("smoke", "base", "all", 15, rounds=1)
    assert found["cities"] == 15 and found["apart"] < 1e-4


def test_the_floor_counts_what_a_step_must_do(short):
    found = device.floor("smoke", "base")
    assert found["tokens"] < found["real_tokens"]
    settings = resolve(ModelName("pt1"), scale="smoke")  # 2 layers, widths 16 and 32
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 32) + 98 * 16
    assert device.matrix_weights(settings) == matrices
    assert device.step_flop(settings, 10) == 6 * matrices * 10
    activations = 2 * 10 * 2 * (14 * 16 + 3 * 32)
    assert device.step_bytes(settings, 10, mixed=False) == 4 * (
        activations + (matrices + 98 * 16) * (8 + 3)
    )


def test_ways_take_turns_and_return_their_last_results():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in ("a", "b")}
    seconds, results = timing.in_turns(ways, 2)
    assert calls == ["a", "b", "a", "b"]
    assert results == {"a": 3, "b": 4} and set(seconds) == {"a", "b"}
