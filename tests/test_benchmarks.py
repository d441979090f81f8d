"""The benchmarks measure at a tiny size, and what they write can be read. No time is judged."""

import importlib
import json
import math

import pytest
from click.testing import CliRunner

from benchmarks import analysis, data, inference, report, study, tracking, training
from benchmarks.stores import working_in
from worldrep.data.world import world_of
from worldrep.evaluation.suites import build_suites
from worldrep.names import ModelName
from worldrep.scales import resolve


def test_a_table_shows_whole_numbers_whole_and_floats_with_three_digits():
    rows = [{"n": 1_234_567, "half": 31_706.15}, {"n": 0}]
    assert report.table(rows) == "| n | half |\n| --- | --- |\n| 1,234,567 | 31,700 |\n| 0 |  |"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.999, "10"), (99.96, "100"), (-12.345, "-12.3"), (0.0, "0"), (math.nan, "nan"),
        (1.94e-7, "1.94e-07"), (0.012345, "0.0123"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_before_their_digits_are_counted(value, text):
    assert report.shown(value) == text


def test_a_list_that_is_none_is_refused_in_a_sentence():
    result = CliRunner().invoke(inference.main, ["--worlds", "4,x"])
    assert result.exit_code == 2
    assert result.output == "Error: '4,x' is not a list of whole numbers such as 1,2,4\n"
    result = CliRunner().invoke(inference.main, ["--batches", "pad"])
    assert result.exit_code == 2 and "did you mean 'padded'" in result.output


SMOKE = ["--scale", "smoke"]
SLOW = pytest.mark.slow
COMMANDS = [
    ("data", [*SMOKE, "--sizes", "32", "--rounds", "1"], 2),
    ("inference", [*SMOKE, "--rows", "6", "--steps", "2", "--worlds", "15"], 2),
    ("inference", [*SMOKE, "--rows", "6", "--steps", "2", "--worlds", "15", "--batches", "padded"],
     2),
    pytest.param(
        "training",
        [*SMOKE, "--blocks", "1", "--widths", "base", "--curve", "16", "--processes", "2",
         "--seconds", "0.1"],
        3,
        marks=SLOW,
    ),
    pytest.param("tracking", [*SMOKE, "--steps", "8"], 1, marks=SLOW),
    pytest.param("study", ["--models", "4", "--workers", "1"], 1, marks=SLOW),
    pytest.param("analysis", [], 1, marks=pytest.mark.endure),
]  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    """Benchmarks measure for less time."""
    for name, value in {"WARM_UP": 1, "REPEATS": 1, "COPIED": 2**20}.items():
        monkeypatch.setattr(training, name, value)
    for name, value in {"MODELS": 2, "CITIES": 20, "LAYERS": 1}.items():
        monkeypatch.setattr(analysis, name, value)
    monkeypatch.setattr(analysis, "SEEDS", (1,))
    monkeypatch.setattr(analysis, "STUDIES", (("demo", "mini"),))
    monkeypatch.setattr(analysis, "ANALYSES", analysis.ANALYSES[:1])


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
    assert {"cores", "torch", "device", "date"} <= set(content["environment"])
    for title, rows in content["tables"].items():
        assert title in result.output and report.table(rows) in result.output
    assert "nan" not in result.output


def test_all_row_sets_shrink_with_the_training_set():
    settings = data.of_size("paper", 10_000)
    sizes = settings.pretrain_rows, settings.ft_atlantis_rows, settings.val_rows
    assert sizes == (10_000, 1_000, 1)


def test_the_rate_of_data_is_rows_by_seconds():
    settings = data.of_size("smoke", 32)
    row = data.measure(settings, world_of(settings), "inside", 2)
    assert row["task"] == "inside" and row["rows"] > 32
    assert row["rows/s"] == row["rows"] / row["seconds"]


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
    row = tracking.measure(tracking.lasting("smoke", 8), "SQLite", store_uri, tmp_path)
    assert (row["store"], row["steps"]) == ("SQLite", 8)
    assert 0 < row["of these tracking"] < row["seconds"]


def test_a_study_is_timed_by_its_steps(store_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.stores.CURVE_POINTS", 5)
    with working_in(tmp_path, store_uri):
        row = study.measure(4, 1)
    assert (row["models"], row["steps"], row["workers"]) == (4, 12, 1)
    assert row["a step, ms"] > row["outside its run, ms"] > 0


@pytest.fixture(scope="module")
def compared():
    """Steps that Trainer and worldrep have taken, and the row about them."""
    ours = training.Ours("smoke", "base", training.WARM_UP + 1, batch_size=16, loss="answer")
    return ours, training.compare(ours)


def test_training_is_compared_on_equal_losses(compared):
    ours, row = compared
    assert row["losses apart"] < 1e-5 and len(ours.losses) == ours.blocks
    assert row["worldrep, tokens/s"] / row["Trainer, tokens/s"] == row["ratio"]


@pytest.fixture(scope="module")
def trained():
    return inference.trained("smoke", "base", 3, test_rows=12)


@pytest.mark.parametrize("batches", ["plain", "padded"])
def test_evaluation_is_compared_on_equal_texts(trained, batches):
    suites = build_suites(trained.maker, trained.settings)
    row = inference.answer(trained, suites[4], 1, batches)
    assert row["suite"] == "standard/inside"
    assert row["texts that differ"] == 0 and row["rows"] == 12


@pytest.mark.parametrize("batches", ["plain", "padded"])
def test_extraction_is_compared_on_equal_tables(trained, batches):
    row = inference.represent(trained, 15, "all", 1, batches)
    assert row["cities"] == 15 and row["apart"] < 1e-4


def test_the_floor_counts_what_a_step_must_do(short, compared):
    row = training.floor(compared[0])
    tokens = compared[0].tokens(training.WARM_UP) / training.BLOCK
    assert 0 < row["distinct tokens"] < tokens
    settings = resolve(ModelName("pt1"), scale="smoke")  # 2 layers, widths 16 and 32
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 32) + 98 * 16
    assert training.matrix_weights(settings) == matrices
    activations = 2 * 10 * 2 * (14 * 16 + 3 * 32)
    assert training.step_bytes(settings, 10, mixed=False) == 4 * (
        activations + (matrices + 98 * 16) * (8 + 3)
    )


def test_ways_take_turns_and_return_their_last_results():
    calls = []
    ways = [lambda name=name: calls.append(name) or len(calls) for name in ("a", "b")]
    found = report.in_turns(2, *ways)
    assert calls == ["a", "b", "a", "b"]
    assert [result for _, result in found] == [3, 4]
