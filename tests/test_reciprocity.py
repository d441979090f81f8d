"""Give, take and net, against sums that were made by hand."""

import json
import math

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.options import Options
from analysis.reciprocity import exchange, main, reciprocity
from analysis.store.source import Source
from worldrep.errors import StateError
from worldrep.names import TASK_NAMES
from worldrep.tracking import Store


def of_store(**options):
    return reciprocity(Source(Store.connect()), Options(out="unused", **options))


def all_ones(synthetic, seed, improvement=lambda own, task: 0.5):
    """Every ftwb1 model, by the improvement of one trained on task `own` on `task`."""
    base = synthetic.base(seed)
    for own in range(7):
        by_task = {task: improvement(own, i) for i, task in enumerate(TASK_NAMES)}
        synthetic.tuned(f"ftwb1-{own + 1}", base, by_task, seed)


def test_sums_leave_out_the_task_itself():
    values = [[10 * row + column for column in range(7)] for row in range(7)]
    found = exchange(pd.DataFrame(values, columns=TASK_NAMES)).set_index("task")
    assert found.loc["distance", "give"] == 1 + 2 + 3 + 4 + 5 + 6
    assert found.loc["distance", "take"] == 10 + 20 + 30 + 40 + 50 + 60
    assert found.loc["angle", "net"] == (20 + 21 + 23 + 24 + 25 + 26) - (2 + 12 + 32 + 42 + 52 + 62)
    assert found["net"].sum() == 0


def test_a_sum_that_lacks_a_cell_is_missing():
    matrix = pd.DataFrame(0.5, index=range(7), columns=TASK_NAMES)
    matrix.iloc[0, 2] = math.nan
    found = exchange(matrix).set_index("task")
    assert math.isnan(found.loc["distance", "give"]) and math.isnan(found.loc["angle", "take"])
    assert found.loc["compass", "give"] == 3.0


def test_spread_over_seeds(synthetic):
    for seed, value in ((1, 0.1), (2, 0.3)):
        all_ones(synthetic, seed, lambda own, task, value=value: value)
    give = of_store().all_statistics["give"]["angle"]
    assert give["mean"] == pytest.approx(1.2) and give["n"] == 2
    assert give["std"] == pytest.approx(0.6 * math.sqrt(2))  # ddof = 1
    assert give["low"] < 0.6 < 1.8 < give["high"]


def test_a_missing_model_is_told_with_its_command(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    found = of_store()
    assert found.all_statistics["give"]["distance"]["mean"] == pytest.approx(3.0)
    assert found.all_statistics["take"]["distance"]["missing"] == 1
    assert math.isnan(found.all_statistics["net"]["distance"]["mean"])
    assert len(found.missing) == 42 and found.missing["command"].str.contains("-e finetune").all()
    assert "see missing.csv" in " ".join(found.parts[0].notes)


def test_the_command(synthetic, tmp_path):
    all_ones(synthetic, 1, lambda own, task: own / 10)
    out = tmp_path / "o"
    done = CliRunner().invoke(main, ["--out", str(out), "--no-log"])
    assert done.exit_code == 0, done.output
    assert "crossing: net +2.10 (giver)" in done.stdout  # 6 * 0.6 - (.1 + .2 + .3 + .4 + .5)
    assert "compass: net 0.00 (even)" in done.stdout
    assert {"reciprocity.csv", "by_seed.csv"} < {path.name for path in out.iterdir()}
    facts = json.loads((out / "statistics.json").read_text())
    assert facts["statistics"]["net"]["crossing"]["std"] is None  # one seed


def test_a_store_without_models_is_one_sentence(synthetic):
    synthetic.base()
    with pytest.raises(
        StateError, match="no seed with both an evaluated base and a fine-tuned model"
    ):
        of_store()
