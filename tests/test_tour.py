"""The notebook of the documentation: it runs, and what it shows is of a real study."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/tour.ipynb"
MODELS = ["pt1", "pt1_ftwb1-1", "pt1_ftwb1-3"]


@pytest.fixture
def execute(store_uri, tmp_path, monkeypatch):
    """Executes the notebook at scale smoke, beside the store; returns its cells of code."""
    import nbformat
    from nbclient import NotebookClient

    def executed(stops=False):
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        (tmp_path / "docs").mkdir()
        text = NOTEBOOK.read_text()
        assert text.count('SCALE = \\"mini\\"') == 1
        notebook = nbformat.reads(text.replace('\\"mini\\"', '\\"smoke\\"'), as_version=4)
        place = {"metadata": {"path": tmp_path / "docs"}}
        NotebookClient(notebook, resources=place, startup_timeout=600, allow_errors=stops).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return executed


@pytest.mark.slow
def test_the_notebook_runs(execute):
    from worldrep.executors import ExecutorOptions
    from worldrep.studies import Definition, expand
    from worldrep.studies.driver import run_study
    from worldrep.tracking import Store

    study = Definition("tour", MODELS, seeds=(1, 2), scale="smoke", steps=("train", "evaluate"))
    run_study(Store.connect(), expand(study), ExecutorOptions())
    cells = execute()
    assert all(
        output.output_type != "stream" or output.name == "stdout"
        for cell in cells
        for output in cell.outputs
    )
    assert "numbers of 6 evaluations" in cells[0].outputs[0].text
    shown = [output.data for cell in cells for output in cell.outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 3


@pytest.mark.slow
def test_without_models_its_first_cell_ends_with_one_sentence(execute):
    (output,) = execute(stops=True)[0].outputs
    assert output.output_type == "error"
    (sentence,) = output.traceback
    assert sentence.startswith("Error: the store at sqlite:///../mlflow.db has no experiment")
    assert "`worldrep demo`" in sentence and "\n" not in sentence


def test_its_stored_outputs_are_complete_and_of_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < 600_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in cells)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    for output in outputs:
        shown = {k: v for k, v in output.get("data", output).items() if k != "image/png"}
        assert not re.search(r"(?<![\w.<])/\w+/\w|sqlite:|@", json.dumps(shown))
