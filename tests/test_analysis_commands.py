"""What all analysis commands have in common: options, exit codes, one sentence for a fault."""

import importlib

import pytest
from click.testing import CliRunner

from analysis.exp1_heatmaps import main as exp1_heatmaps
from analysis.report import CHAPTERS
from worldrep.tracking import Store

ANALYSES = (*CHAPTERS, "report")


def invoke(command, *arguments):
    """Run a command in this process; exit code, standard output and standard error."""
    done = CliRunner().invoke(command, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(params=ANALYSES)
def command(request):
    return importlib.import_module(f"analysis.{request.param}").main


def test_wrong_input_ends_with_code_2(command, store_uri, tmp_path):
    for typed, text in (
        ("--scale=minni", "did you mean 'mini'"),
        ("--world=flat", "unknown world 'flat'"),
        ("--width=huge", "unknown width 'huge'"),
        ("--strategy=loora", "did you mean 'lora'"),
        ("--seeds=one", "seeds='one' is neither"),
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
