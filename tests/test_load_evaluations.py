"""The tidy frame of all evaluations, from stores whose every number is known."""

import pandas as pd
import pytest

from analysis import load_evaluations
from analysis.options import Options
from analysis.result import publish
from analysis.seeds import seeds
from analysis.store.evaluations import TIDY_COLUMNS
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES
from worldrep.tracking import Store

KEYS = ["model", "seed", "world", "suite", "task", "metric"]


def test_every_number_has_a_row(synthetic):
    base = synthetic.base()
    tags = {"model_id": "m-12"}
    run = synthetic.tuned(
        "ftwb1-1", base, {**dict.fromkeys(TASK_NAMES, 0.4), "angle": 1.0}, tags=tags
    )
    table = load_evaluations()
    assert table.columns.tolist() == TIDY_COLUMNS and not table.duplicated(KEYS).any()
    assert len(table) == 3 * 7 + 7 + 7 + 2  # means of both, improvements and their two means
    own = table[table["model"] == "pt1_ftwb1-1"].set_index(["suite", "task", "metric"])
    assert own.loc[("atlantis", "compass", "mean"), "value"] == pytest.approx(0.2 + 0.7 * 0.4)
    improvement = own.xs(("atlantis", "improvement"), level=("suite", "metric"))["value"]
    known = dict.fromkeys(TASK_NAMES, 0.4) | {"angle": 1.0, "trained": 0.4, "transfer": 0.5}
    assert improvement.to_dict() == pytest.approx(known)
    assert set(own["run_id"]) == {run} and set(own["model_id"]) == {"m-12"}
    names = own[["seed", "width", "world", "strategy"]].drop_duplicates()
    assert names.values.tolist() == [[1, "base", "standard", "plain"]]
    bases = table[table["model"] == "pt1"]
    assert set(bases["suite"]) == {"standard", "atlantis", "multi"}
    assert set(bases["metric"]) == {"mean"} and set(bases["model_id"]) == {""}


def test_all_that_an_evaluation_says_of_a_suite_is_there(synthetic):
    facts = {"mean": 3.0, "median": 2.0, "std": 1.5, "min": 0.0, "max": 9.0, "n": 8.0}
    facts |= {"valid_ratio": 0.5}
    metrics = {f"atlantis/angle/{fact}": value for fact, value in facts.items()}
    synthetic.evaluate("pt1", 1, synthetic.base(evaluated=False), metrics)
    table = load_evaluations()
    assert dict(zip(table["metric"], table["value"], strict=True)) == facts


@pytest.fixture
def several(synthetic):
    """Models of two widths, worlds and strategies, some of a second seed."""
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    synthetic.evaluate("pt1_ftwb1-1+lora", 1, "m", {"atlantis/angle/mean": 7.0}, base)
    synthetic.tuned("ftwb1-1", synthetic.base(2), 0.6, 2)
    synthetic.tuned("ftwb1-1", synthetic.base(world="scattered"), 0.7, world="scattered")
    synthetic.evaluate("pt1@wide", 1, "w", {"atlantis/angle/mean": 8.0})
    synthetic.evaluate("pt1", 1, "s", {"atlantis/angle/mean": 9.0}, scale="smoke")


def test_widths_worlds_and_strategies_are_told_apart(several):
    table = load_evaluations()
    assert not table.duplicated(KEYS).any()
    kinds = table[["model", "seed", "width", "world", "strategy"]].drop_duplicates()
    assert sorted(map(tuple, kinds.to_numpy().tolist())) == [
        ("pt1", 1, "base", "scattered", "plain"),
        ("pt1", 1, "base", "standard", "plain"),
        ("pt1", 2, "base", "standard", "plain"),
        ("pt1@wide", 1, "wide", "standard", "plain"),
        ("pt1_ftwb1-1", 1, "base", "scattered", "plain"),
        ("pt1_ftwb1-1", 1, "base", "standard", "plain"),
        ("pt1_ftwb1-1", 2, "base", "standard", "plain"),
        ("pt1_ftwb1-1+lora", 1, "base", "standard", "lora"),
    ]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ({"width": "wide"}, {"pt1@wide"}),
        ({"strategy": "lora"}, {"pt1_ftwb1-1+lora"}),
        ({"world": "scattered"}, {"pt1", "pt1_ftwb1-1"}),
        ({"seeds": [2]}, {"pt1", "pt1_ftwb1-1"}),
        ({"scale": "smoke"}, {"pt1"}),
    ],
)
def test_rows_can_be_chosen(several, names, kept):
    every, table = load_evaluations(names.get("scale", "mini")), load_evaluations(**names)
    assert set(table["model"]) == kept
    for key, wanted in names.items():
        if key != "scale":
            column = every["seed"] if key == "seeds" else every[key]
            every = every[column.isin([*wanted] if key == "seeds" else [wanted])]
    pd.testing.assert_frame_equal(table, every.reset_index(drop=True))


def test_what_a_reader_has_to_know_is_beside_the_numbers(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.3)
    newer = synthetic.tuned("ftwb1-1", base, 0.6)
    table = load_evaluations()
    assert set(table["run_id"][table["model"] == "pt1_ftwb1-1"]) == {newer}
    (caveat,) = table.attrs["caveats"]
    assert "has 2 finished evaluations" in caveat


def test_nothing_and_wrong_names_are_one_sentence(store_uri):
    with pytest.raises(StateError, match=r"no experiment 'worldrep'.*`worldrep demo`"):
        load_evaluations()
    Store.connect()
    with pytest.raises(NothingThere, match=r"none at all; `worldrep demo` makes some"):
        load_evaluations()
    for names in ({"scale": "all"}, {"scale": "minni"}, {"world": "flat"}, {"seeds": [-1]}):
        with pytest.raises(InputError):
            load_evaluations(**names)


def test_what_is_not_there_is_told_with_what_is(several):
    with pytest.raises(NothingThere, match="of scale paper: it has .* of scale mini"):
        load_evaluations("paper")
    with pytest.raises(NothingThere, match="of scale mini, width narrow: it has "):
        load_evaluations(width="narrow")
    with pytest.raises(NothingThere, match="with seeds 1, 2"):
        load_evaluations(seeds=[9], width="base", world="standard")
    with pytest.raises(NothingThere, match="of scale mini, strategy lora"):  # only its base is
        load_evaluations(seeds=[2], strategy="lora")


def test_a_result_has_every_table_and_figure_of_its_folder(several, tmp_path):
    result = seeds(Source(Store.connect()), Options(tmp_path / "out", log=False, quiet=True))
    publish(result, Store.connect())
    files = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {file for file in files if file.endswith(".csv")} - {"missing.csv", "runs_used.csv"}
    assert tables == {f"{name}.csv" for name in result.all_tables}
    figures = {file for file in files if file.endswith(".png")}
    assert figures and figures == {f"{name}.png" for name in result.figures}
