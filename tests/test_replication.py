"""The table of findings in docs/replication.md, and how it is computed."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.replication import (
    FINDINGS,
    NET,
    Finding,
    Measured,
    bases_table,
    main,
    replication_table,
)
from worldrep.data.tasks import TASKS
from worldrep.errors import StateError
from worldrep.names import FINETUNINGS, TASK_NAMES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/replication.md").read_text(encoding="utf-8")
SCALES = sorted(path.name for path in (ROOT / "docs/results").iterdir() if path.is_dir())


@pytest.mark.parametrize("scale", SCALES)
def test_the_page_has_the_table_of_the_stored_results(scale):
    table = replication_table(ROOT / "docs/results" / scale)
    assert table in PAGE


@pytest.mark.parametrize("scale", SCALES)
def test_the_page_has_the_bases_of_the_stored_results(scale):
    table = bases_table(ROOT / "docs/results" / scale)
    assert table and table in PAGE


@pytest.mark.parametrize(
    ("label", "tables", "names"),
    [
        ("seed 42 (GPU, bf16)", "ft_heatmaps", "ftwb{}_aggregate"),
        ("seeds 1, 2, 3 (CPU, float32)", "exp1_heatmaps", "ftwb{}_aggregate"),
        ("narrow (CPU, float32)", "exp3_heatmaps", "narrow_ftwb{}_seed42"),
        ("base (GPU, bf16)", "exp3_heatmaps", "base_ftwb{}_seed42"),
        ("wide (CPU, float32)", "exp3_heatmaps", "wide_ftwb{}_seed42"),
        ("`standard` (GPU, bf16)", "ft_heatmaps", "ftwb{}_seed42"),
        ("`scattered` (CPU, float32)", "scattered", "ftwb{}_seed42"),
    ],
)
def test_the_page_has_the_means_of_the_stored_results(label, tables, names):
    path = ROOT / "docs/results/small" / tables / "statistics.json"
    facts = json.loads(path.read_text(encoding="utf-8"))["statistics"]
    own = [facts[names.format(n)][kind]["mean"] for n in (1, 2) for kind in ("trained", "transfer")]
    row = f"| {label} | {' | '.join(f'{mean:.2f}' for mean in own)} |"
    assert row in PAGE


def test_the_page_has_the_scores_of_models_of_one_task():
    table = pd.read_csv(ROOT / "docs/results/small/seeds/standard.csv", index_col="model")
    bases = pd.read_csv(ROOT / "docs/results/small/reciprocity/values.csv")
    bases = bases.groupby(["task", "seed"])["base_standard"].first()
    cells, base_cells = [], []
    for number, task in enumerate(TASK_NAMES, start=1):
        own = table[table["quantity"] == f"standard/{task}/mean"].loc[f"pt1-{number}"]
        means = map(float, own["parts"].strip("()").split(","))
        shown = "{:.2f}" if TASKS[task].accuracy else "{:,.0f}"
        digits = -2 if task == "trianglearea" else 2
        cells.append(", ".join(shown.format(round(mean, digits)) for mean in means))
        base_cells.append(", ".join(shown.format(round(mean, digits)) for mean in bases[task]))
    assert f"| the model of the task | {' | '.join(cells)} |" in PAGE
    assert f"| `pt1` | {' | '.join(base_cells)} |" in PAGE


def write(folder, analysis, statistics, seeds=(1, 2)):
    (folder / analysis).mkdir(parents=True, exist_ok=True)
    facts = {"seeds": list(seeds), "statistics": statistics}
    (folder / analysis / "statistics.json").write_text(json.dumps(facts))


def row(folder, text):
    lines = replication_table(folder).splitlines()
    return next(line for line in lines if line.startswith(f"| {text} |"))


def test_means_over_seeds_and_their_interval_equal_hand_computed_ones(tmp_path):
    means = {1: 0.9, 2: 1.1}
    write(tmp_path, "exp1_heatmaps", {
        f"ftwb{n}_seed{seed}": {
            "trained": {"mean": mean, "missing": 0},
            "transfer": {"mean": mean / 2 + 0.1 * n, "missing": 0},
        }
        for n in (1, 2) for seed, mean in means.items()
    })  # fmt: skip
    reach = 12.7062 * math.sqrt(0.02) / math.sqrt(2)
    assert f"1.000 [{1 - reach:.3f}, {1 + reach:.3f}], 2 seeds" in row(tmp_path, "ftwb1, trained")
    assert "cannot be told" in row(tmp_path, "ftwb1, trained")
    own = row(tmp_path, "ftwb2 minus ftwb1, transfer")
    assert "0.100 [0.100, 0.100], 2 seeds | replicated" in own
    assert "not measured" in row(tmp_path, "CKA, same task minus different tasks")


def test_one_seed_has_no_interval_and_no_verdict(tmp_path):
    cells = {"trained": {"mean": 0.9, "missing": 0}, "transfer": {"mean": 0.5, "missing": 0}}
    write(tmp_path, "exp1_heatmaps", {"ftwb1_seed1": cells, "ftwb2_seed1": cells}, seeds=(1,))
    assert "| 0.900, 1 seed | cannot be told |" in row(tmp_path, "ftwb1, trained")


def test_missing_cells_are_counted_and_nothing_is_told(tmp_path):
    cells = {"trained": {"mean": 0.95, "missing": 0}, "transfer": {"mean": 0.9, "missing": 4}}
    own = {f"ftwb{n}_seed{seed}": cells for n in (1, 2) for seed in (1, 2)}
    write(tmp_path, "exp1_heatmaps", own)
    assert "2 seeds | replicated" in row(tmp_path, "ftwb2, trained")
    assert "2 seeds, 8 cells missing | cannot be told" in row(tmp_path, "ftwb2, transfer")
    told = row(tmp_path, "ftwb2 minus ftwb1, transfer")
    assert "2 seeds, 16 cells missing | cannot be told" in told


@pytest.mark.parametrize(
    ("sign", "missing", "told"),
    [(1, None, f"1.000, p = {2 / 720:.3g}, 6 tasks, 2 seeds | replicated"),
     (-1, None, f"-1.000, p = {2 / 720:.3g}, 6 tasks, 2 seeds | not replicated"),
     (1, "angle", "nan, 6 tasks, 2 seeds | cannot be told")],
)  # fmt: skip
def test_the_published_order_and_its_reverse_are_two_orders_of_720(tmp_path, sign, missing, told):
    net = {t: {"mean": None if t == missing else sign * NET.get(t, 9.0)} for t in TASK_NAMES}
    write(tmp_path, "reciprocity", {"net": net})
    own = row(tmp_path, "givers and takers: rank correlation with the published net order")
    assert told in own


@pytest.mark.parametrize(
    ("lacking", "told"),
    [((), "2 seeds | cannot be told"), (["ftwb2-2"], "2 seeds, 10 cells missing | cannot be told")],
)
def test_widths_are_compared_in_transfer_cells_of_the_seeds_of_both(tmp_path, lacking, told):
    write(tmp_path, "exp3_heatmaps", {}, seeds=(1, 2, 3))  # seed 3: narrow only
    for seed, gain in ((1, 0.1), (2, 0.3)):
        for width, more, missing in (("base", 0.0, ()), ("wide", gain, lacking)):
            table = pd.DataFrame(0.5 + more, index=["ftwb2-2", "ftwb2-4"], columns=TASK_NAMES)
            table.loc["ftwb2-4", [*FINETUNINGS["ftwb2-4"]]] = 9 * more  # trained: does not count
            table.loc[[*missing]] = math.nan
            path = tmp_path / f"exp3_heatmaps/{width}_ftwb2_seed{seed}.csv"
            table.rename_axis("model").to_csv(path)
    reach = 12.7062 * math.sqrt(0.02) / math.sqrt(2)
    own = row(tmp_path, "ftwb2, wide minus base, transfer")
    assert f"0.200 [{0.2 - reach:.3f}, {0.2 + reach:.3f}], {told}" in own


def test_errors_are_compared_with_those_of_the_base(tmp_path):
    write(tmp_path, "forgetting", {})
    write(tmp_path, "reciprocity", {"net": {t: {"mean": NET.get(t, 9.0)} for t in TASK_NAMES}})
    (tmp_path / "forgetting/raw_change.csv").write_text(
        "model,seed,distance (0.1 degree),trianglearea (x),angle (degree),perimeter (0.1 degree)\n"
        "m,1,9.0,1.0,999.0,1.0\nm,2,9.0,1.0,999.0,1.0\n"
    )
    (tmp_path / "reciprocity/values.csv").write_text(
        "model,seed,task,base_standard\n"
        + "".join(f"m,{s},{t},1.0\n" for s in (1, 2) for t in TASK_NAMES)
    )
    for task, ratio in (("distance", "10.000"), ("angle", "1000.000")):
        own = row(tmp_path, f"error in {task} on standard questions, after ftwb1 over before")
        assert f"{ratio} [{ratio}, {ratio}], 2 seeds" in own


@pytest.mark.parametrize(
    ("difference", "p", "told"),
    [(0.25, 0.01, "0.250, p = 0.01, 21 and 126 pairs | replicated"),
     (None, None, "nan, 21 and 126 pairs | cannot be told")],
)  # fmt: skip
def test_cka_of_one_seed_cannot_be_told(tmp_path, difference, p, told):
    write(tmp_path, "cka", {"cka_pt1_layer4_pairs": {
        "same tasks": {"n": 21}, "different tasks, different seeds": {"n": 126},
        "comparison": {"difference": difference, "p": p},
    }})  # fmt: skip
    assert told in row(tmp_path, "CKA, same task minus different tasks")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Measured(1.0, "", 0.5, 1.5), "replicated"),
        (Measured(1.0, "", -0.5, 2.5), "cannot be told"),
        (Measured(-1.0, "", -1.5, -0.5), "not replicated"),
        (Measured(1.0, ""), "cannot be told"),
        (Measured(0.5, "", p=0.01), "replicated"),
        (Measured(0.5, "", p=0.06), "cannot be told"),
        (Measured(-0.5, "", p=0.01), "not replicated"),
        (Measured(1.0, "", 0.5, 1.5, missing=1), "cannot be told"),
        (Measured(math.nan, "", p=0.0), "cannot be told"),
    ],
)
def test_the_whole_interval_or_the_p_value_decides(found, verdict):
    def measure(tables):
        return found

    assert Finding("", "", (0.0, math.inf), "", "", measure).verdict(found) == verdict


def test_every_analysis_that_is_named_exists():
    for finding in FINDINGS:
        package = ROOT / "analysis" / finding.analysis
        assert package.is_dir() or package.with_suffix(".py").is_file()


@pytest.mark.parametrize(
    ("analysis", "statistics", "finding"),
    [("cka", {"cka_pt2_layer4_pairs": {}}, "CKA, same task minus different tasks"),
     ("ft_heatmaps", {}, "ftwb3 minus ft3, transfer"),
     ("exp3_heatmaps", {}, "ftwb2, wide minus base, transfer"),
     ("forgetting", {}, "error in angle on standard questions, after ftwb1 over before")],
)  # fmt: skip
def test_what_a_store_does_not_have_is_not_measured(tmp_path, analysis, statistics, finding):
    write(tmp_path, analysis, statistics)
    assert "|  | not measured |" in row(tmp_path, finding)


def test_errors_of_no_model_are_not_measured(tmp_path):
    for analysis, table in (("forgetting", "raw_change"), ("reciprocity", "values")):
        write(tmp_path, analysis, {"net": {t: {"mean": NET.get(t, 9.0)} for t in TASK_NAMES}})
        columns = "model,seed,angle" if table == "raw_change" else "model,seed,task,base_standard"
        (tmp_path / analysis / f"{table}.csv").write_text(
            f"{columns},distance,trianglearea,perimeter\n"
        )
    own = row(tmp_path, "error in angle on standard questions, after ftwb1 over before")
    assert "|  | not measured |" in own


def test_missing_and_damaged_tables_are_one_sentence(tmp_path):
    with pytest.raises(StateError, match="has no tables of an analysis"):
        replication_table(tmp_path)
    assert bases_table(tmp_path) == ""
    (tmp_path / "reciprocity").mkdir()
    with pytest.raises(StateError, match="values.csv cannot be used"):
        bases_table(tmp_path)
    (tmp_path / "reciprocity").rmdir()
    write(tmp_path, "cka", {"cka_pt1_layer4_pairs": {}})
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 1
    assert "make them again by `python -m analysis.cka" in result.output
