"""What all analysis commands have in common: options, exit codes, one sentence for a fault."""

import importlib
import json

import numpy as np
import pytest
from drivers import invoke
from synthetic import SyntheticStore

from analysis.exp1_heatmaps import main as exp1_heatmaps
from analysis.report import CHAPTERS
from worldrep.names import TASK_NAMES
from worldrep.tracking import Store

ANALYSES = (*CHAPTERS, "report")


@pytest.fixture(params=ANALYSES)
def command(request):
    return importlib.import_module(f"analysis.{request.param}").main


def test_wrong_input_ends_with_code_2(command, store_uri, tmp_path):
    for typed, text in (
        ("--scale=minni", "did you mean 'mini'"),
        ("--world=flat", "unknown world 'flat'"),
        ("--width=huge", "unknown width 'huge'"),
        ("--strategy=loora", "did you mean 'lora'"),
        ("--seeds=one", "seed='one' is not a whole number"),
        ("--seed=1", "No such option"),
        ("--experiment=wolrdrep", "unknown experiment 'wolrdrep'"),
    ):
        code, _, error = invoke(command, typed, "--out", "never")
        assert code == 2 and text in error
    assert not (tmp_path / "never").exists()


def test_a_store_without_results_ends_with_one_sentence(command, store_uri):
    code, _, error = invoke(command, "--no-log")
    assert code == 1 and error.count("\n") == 1
    assert "has no experiment 'worldrep'" in error
    Store.connect()
    for typed in ((), ("--experiment", "none"), ("--experiment", "worldrep")):
        code, _, error = invoke(command, "--no-log", *typed)
        assert code == 1 and error.count("\n") == 1
        assert "experiment 'worldrep' of the store" in error and "none at all" in error


@pytest.fixture(scope="module")
def filled(new_store):
    """The URI of a store with something for every analysis: two seeds of a few models."""
    with new_store("filled") as (uri, _):
        synthetic = SyntheticStore(uri)
        for seed in (1, 2):
            fill(synthetic, seed)
        for run in Store.connect().find(stage="pretrain"):
            synthetic.curve(run.id, "train/loss", {5: 2.0, 10: 1.0})
            synthetic.curve(run.id, "val/standard/distance/mean", {0: 100.0, 10: 50.0})
    return uri


def fill(synthetic, seed):
    base = synthetic.base(seed)
    for k, ft in enumerate(("ftwb1-1", "ftwb1-2", "ftwb1-3", "ftwb2-1", "ft1-1", "ft1-2")):
        by_task = {task: 0.1 * ((k + i) % 7) for i, task in enumerate(TASK_NAMES)}
        synthetic.tuned(ft, base, by_task, seed)
    cities = len(synthetic.world().cities)
    for k, model in enumerate(("pt1-1", "pt1-2", "pt1-3", "pt1", "pt1_ftwb1-1")):
        start = synthetic.trained("pt1", seed) if "_" in model else None
        table = np.random.default_rng([k, seed]).normal(size=(cities, 8)).astype("float32")
        synthetic.extract(model, seed, synthetic.trained(model, seed, start), {2: table}, start)


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_tables_and_a_run_are_made(name, filled, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled)
    main = importlib.import_module(f"analysis.{name}").main
    code, text, _ = invoke(main, "--out", str(tmp_path / "f"))
    assert code == 0 and str(tmp_path / "f") in text
    files = {path.name for path in (tmp_path / "f").iterdir()}
    facts = json.loads((tmp_path / "f" / "statistics.json").read_text())
    assert set(facts["files"]) == files > {"missing.csv", "runs_used.csv", "statistics.json"}
    figures = {file.removesuffix(".png") for file in files if file.endswith(".png")}
    assert figures and {f"{figure}.svg" for figure in figures} < files
    assert facts["analysis"] == name and facts["seeds"] == [1, 2] and facts["runs_used"] > 0
    store = Store.connect()
    (run,) = [run for run in store.find(stage="analysis") if run.tag("analysis") == name]
    assert run.status == "FINISHED" and run.tag("runs_used") == str(facts["runs_used"])
    logged = store.client.list_artifacts(run.id, name)
    assert {entry.path.rsplit("/", 1)[-1] for entry in logged} == files
    assert f"run: {run.id}" in text


def test_only_the_comparison_of_widths_takes_all_of_them(store_uri):
    for name in ANALYSES:
        main = importlib.import_module(f"analysis.{name}").main
        code, _, error = invoke(main, "--width", "all", "--no-log")
        assert code == (1 if name == "exp3_heatmaps" else 2), name
        assert "unknown width 'all'" in error or code == 1


def test_a_folder_that_cannot_be_written_ends_with_code_2(synthetic, tmp_path):
    synthetic.tuned("ftwb1-1", synthetic.base(), 0.25)
    (tmp_path / "file").write_text("")
    code, _, error = invoke(exp1_heatmaps, "--out", str(tmp_path / "file"), "--no-log")
    assert code == 2 and "cannot write to out=" in error
    assert (tmp_path / "file").read_text() == ""


def test_an_unreachable_store_ends_with_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    code, _, error = invoke(exp1_heatmaps)
    assert code == 1 and error.count("\n") == 1 and "cannot use the MLflow store" in error
