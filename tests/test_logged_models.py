"""Models in MLflow: what a training makes there, what loads it, and what its URIs are good for."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from drivers import run
from mlflow import MlflowClient
from mlflow.entities import Metric
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.stores import free_port, wait_for
from entrypoints import ask, evaluate, extract, finetune, pretrain
from worldrep.executors import ExecutorOptions
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import from_params
from worldrep.stages.train import train_model
from worldrep.studies import expand, load_definition
from worldrep.studies.driver import run_study
from worldrep.tracking import Store, logged_models
from worldrep.tracking.logged_models import CODE, LIBRARIES

SMOKE = ["--scale", "smoke"]
NAME = "pt1_ftwb1-3"


def models(**facts):
    """The LoggedModels of the experiment, the newest first, with these attributes."""
    client = MlflowClient()
    found = client.search_logged_models([Store.connect().experiment_id])
    return [model for model in found if all(getattr(model, k) == v for k, v in facts.items())]


@pytest.fixture(scope="module")
def trained(new_store):
    """A store with a model and its base, evaluated, and the model's version 1 as `atlas`."""
    with new_store("models") as (uri, _):
        mlflow.set_tracking_uri(uri)
        run(finetune, "--ft", "ftwb1-3", *SMOKE)
        run(evaluate, "--model", NAME, "--answers", "true", *SMOKE)
        (model,) = models(name=NAME)
        mlflow.register_model(f"models:/{model.model_id}", "atlas")
        MlflowClient().set_registered_model_alias("atlas", "champion", "1")
        yield Store.connect()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def own_store(store_uri):
    mlflow.set_tracking_uri(store_uri)
    yield Store.connect()
    mlflow.set_tracking_uri(None)


def test_a_training_makes_one_model_with_its_settings_and_tags(trained):
    tuned, base = models()
    for model, stage, name in ((tuned, "finetune", NAME), (base, "pretrain", "pt1")):
        (source,) = trained.find(stage=stage)
        assert (model.name, model.model_type, str(model.status)) == (name, stage, "READY")
        assert model.source_run_id == source.id and source.model_id == model.model_id
        (output,) = trained.client.get_run(source.id).outputs.model_outputs
        assert output.model_id == model.model_id  # so the page of the run leads to it
        assert from_params(model.params) == from_params(source.params)
        for tag in ("scale", "tasks", "seed", "world", "fingerprint"):
            assert model.tags[f"worldrep.{tag}"] == source.tag(tag)


def test_metrics_are_linked_to_the_model_and_to_what_they_are_measured_on(trained):
    (model,), (training,) = models(name=NAME), trained.find(stage="finetune")
    (evaluation,) = trained.find(stage="evaluate")
    linked = {metric.key: metric for metric in model.metrics}
    assert len(linked) == len(model.metrics)  # of the last step alone
    numbers = dict(training.metrics) | dict(evaluation.metrics)
    assert {key: metric.value for key, metric in linked.items()} == numbers
    inputs = trained.client.get_run(evaluation.id).inputs
    assert [used.model_id for used in inputs.model_inputs] == [model.model_id]
    known = {data.dataset.name: data.dataset.digest for data in inputs.dataset_inputs}
    for key, value in evaluation.metrics.items():
        metric, (suite, task, _) = linked[key], key.split("/")
        split = {"standard": f"{task} world", "atlantis": f"{task} atlantis"}
        assert metric.dataset_name == f"{split.get(suite, 'multi standard')} test"
        assert metric.dataset_digest == known[metric.dataset_name]
        assert metric.run_id == evaluation.id and metric.value == value
    assert linked["val/atlantis/angle/mean"].dataset_name == "angle atlantis val"
    assert linked["train/loss"].dataset_name is None


def test_models_are_compared_by_what_they_scored_on_a_data_set(trained):
    client, (tuned, _) = MlflowClient(), models()
    data = [{"dataset_name": "angle atlantis test"}]
    order = [{"field_name": "metrics.atlantis/angle/mean"} | data[0]]
    found = client.search_logged_models(
        [trained.experiment_id], "metrics.`atlantis/angle/mean` >= 0", datasets=data, order_by=order
    )
    assert [model.model_id for model in found] == [tuned.model_id]


def test_the_files_load_with_transformers_and_are_stored_once(trained, tmp_path):
    (model,) = models(name=NAME)
    for artifact in (f"models:/{model.model_id}", f"runs:/{model.source_run_id}/{NAME}"):
        folder = mlflow.artifacts.download_artifacts(artifact, dst_path=str(tmp_path))
        assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16
        assert AutoTokenizer.from_pretrained(folder)("a=")["input_ids"][0] == 2
    (weights,) = Path("mlruns").glob(f"*/models/{model.model_id}/artifacts/model.safetensors")
    (own,) = Path("mlruns").glob(f"*/{model.source_run_id}/artifacts/model/model.safetensors")
    assert own.samefile(weights)
    assert not list(Path("mlruns").rglob("*.pkl"))


def test_a_model_that_cannot_be_linked_whole_is_read_where_it_is(own_store, tmp_path, monkeypatch):
    def link(source, target, **options):
        if Path(target).parent.name == "model" and not refused:
            refused.append(target)
            raise OSError("too many links")
        usual(source, target, **options)

    usual, refused = os.link, []
    monkeypatch.setattr("os.link", link)
    run_id = train_model(own_store, resolve(ModelName("pt1"), scale="smoke"))
    names = {path.name for path in own_store.artifact(run_id, "model", tmp_path).iterdir()}
    assert {"manifest.json", "model.safetensors", Path(refused[0]).name} <= names


def test_a_python_function_answers_as_in_the_evaluation(trained):
    (evaluation,), (model,) = trained.find(stage="evaluate"), models(name=NAME)
    with trained.download(evaluation.id, "answers.parquet") as path:
        answers = pd.read_parquet(path)
    questions, right = answers["prompt"].tolist(), answers["generated"].tolist()
    found = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert found.predict(questions) == right and len(set(right)) > 1
    assert found.predict(pd.DataFrame({"question": questions})) == right
    assert found.predict(["  dist(c_36, c_83) "]) == found.predict(["dist(c_36,c_83)="])
    (column,) = found.metadata.signature.inputs
    assert (column.type.name, column.name) == ("string", None)
    assert len(found.predict(found.input_example)) == 1
    champion = mlflow.pyfunc.load_model("models:/atlas@champion")
    assert champion.predict(questions[:9]) == right[:9]
    # MLflow has written into the folder, which is still that of the model.
    run(extract, "--run_id", "models:/atlas@champion")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("hello", "'hello' is no question: a question is, for example, dist(c_12,c_40)="),
        ("area(c_1,c_2)=", "begins with one of dist, triarea, angle"),
        ("dist(Tokyo,Lagos)=", "is no question"),
        ("perimeter(" + ",".join(["c_12"] * 30) + ")", "has too many cities"),
    ],
)
def test_a_python_function_refuses_what_is_no_question(trained, typed, said):
    (model,) = models(name=NAME)
    with pytest.raises(mlflow.MlflowException) as fault:
        mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(["dist(c_36,c_83)", typed])
    assert said in str(fault.value)


def test_the_code_beside_the_weights_imports_what_its_requirements_name():
    """Nothing of this package, so that a model can be used where it is not installed."""
    nodes = list(ast.walk(ast.parse((Path(logged_models.__file__).parent / CODE).read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    found = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert found and found <= set(LIBRARIES)


def test_a_uri_stands_for_the_run_that_made_the_model(trained):
    (model,) = models(name=NAME)
    uris = [f"models:/{model.model_id}", "models:/atlas/1", "models:/atlas@champion"]
    for uri in (*uris, "models:/atlas/latest"):
        assert trained.get(uri).id == model.source_run_id
    for option in ("--run_id", "--model"):
        assert "already done" in run(evaluate, option, uris[-1], "--answers", "true")
    assert model.source_run_id in run(ask, "--model", uris[0], "dist(Tokyo,Lagos)")
    (base,) = models(name="pt1")
    named = ["--base_run", f"models:/{base.model_id}", *SMOKE]
    assert "already done" in run(finetune, "--ft", "ftwb1-3", *named)
    assert "already done" in run(evaluate, "--model", NAME, "--answers", "true", *named)


@pytest.mark.parametrize("uri", [
    "models:/none@champion", "models:/atlas@none", "models:/atlas/7", "models:/atlas/Production",
    "models:/m-0", "models:/", "models:/a/b/c", "models:/none/latest",
])  # fmt: skip
def test_a_uri_that_names_no_model_is_one_sentence(trained, uri):
    message = run(evaluate, "--model", uri, code=2)
    assert f"{uri!r} names no model of the store at sqlite:" in message
    assert "write models:/ID, models:/NAME/VERSION or models:/NAME@ALIAS" in message
    assert message.count("\n") == 1


def test_a_model_of_another_kind_is_one_sentence(trained):
    client = MlflowClient()
    stray = client.create_logged_model(trained.experiment_id, "stray")
    message = run(evaluate, "--model", f"models:/{stray.model_id}", code=2)
    assert "was made by no run; name a model that a training here made" in message
    other = client.create_run(trained.experiment_id)
    foreign = client.create_logged_model(trained.experiment_id, "f", other.info.run_id)
    message = run(evaluate, "--model", f"models:/{foreign.model_id}", code=2)
    assert f"run_id models:/{foreign.model_id} is a run of stage unknown (RUNNING)" in message
    tuned = ["--base_run", "models:/atlas/1", "--ft", "ftwb1-4", *SMOKE]
    assert "not a finished pretrain run" in run(finetune, *tuned, code=2)
    message = run(evaluate, "--model", "models:/atlas/1", "--epochs", "3", code=2)
    assert "leave out epochs" in message
    for model in (stray, foreign):
        client.delete_logged_model(model.model_id)


def test_a_model_of_a_failed_training_is_failed(own_store):
    run(pretrain, *SMOKE, "--learning_rate", "1e30", code=1)
    (model,) = models()
    assert str(model.status) == "FAILED" and own_store.get(model.source_run_id).status == "FAILED"


def stop_halfway(progress):
    if progress.done > progress.total / 2:
        raise KeyboardInterrupt


def test_a_resumed_training_goes_on_with_its_model(own_store):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"n_checkpoints": 8})
    with pytest.raises(KeyboardInterrupt):
        train_model(own_store, settings, progress=stop_halfway)
    (begun,) = models()
    assert str(begun.status) == "FAILED"
    seen = []
    run_id = train_model(
        own_store, settings, progress=lambda _: seen.append(str(models()[0].status))
    )
    (model,) = models()
    assert set(seen) == {"PENDING"} and str(model.status) == "READY"
    assert (model.model_id, model.source_run_id) == (begun.model_id, run_id)
    assert len(own_store.client.get_run(run_id).outputs.model_outputs) == 1


def test_points_that_are_sent_twice_are_kept_once(own_store):
    """As after an answer that was lost."""
    client, point = MlflowClient(), ("a/mean", 1.0, 1, 5)
    run_id = client.create_run(own_store.experiment_id).info.run_id
    model = client.create_logged_model(own_store.experiment_id, "m", run_id)
    metrics = [Metric(*point, model.model_id, "data", "d1"), Metric("b", 2.0, 1, 5, model.model_id)]
    for _ in range(2):
        own_store.client.log_batch(run_id, metrics=metrics)
    assert len(client.get_logged_model(model.model_id).metrics) == 2


def test_a_training_of_an_earlier_version_is_still_read(own_store, tmp_path):
    """It has its files in its own folder, and no LoggedModel."""
    run_id = train_model(own_store, resolve(ModelName("pt1"), scale="smoke"))
    (model,) = models()
    own_store.client.delete_tag(run_id, "worldrep.model_id")
    own_store.client.delete_logged_model(model.model_id)
    for path in tmp_path.glob("mlruns/*/models/*/artifacts/*"):
        path.unlink()
    run(evaluate, "--model", "pt1", *SMOKE)
    run(finetune, "--ft", "ftwb1-1", *SMOKE)
    (evaluation,) = own_store.find(stage="evaluate")
    assert evaluation.model_id == ""
    assert not own_store.client.get_run(evaluation.id).inputs.model_inputs


def test_a_model_that_was_deleted_is_named_with_the_way_out(own_store):
    run_id = train_model(own_store, resolve(ModelName("pt1"), scale="smoke"))
    (model,) = models()
    own_store.client.delete_logged_model(model.model_id)
    (own,) = Path("mlruns").glob(f"*/{run_id}/artifacts/model")
    shutil.rmtree(own)  # as on a server, where the run has no folder of its own
    message = run(evaluate, "--model", "pt1", *SMOKE, code=1)
    assert f"the model {model.model_id} of run {run_id} was deleted; after `mlflow runs" in message
    own_store.client.delete_run(run_id)
    run(pretrain, *SMOKE)
    run(evaluate, "--model", "pt1", *SMOKE)


def test_a_summary_has_the_models_that_it_summarises_as_inputs(own_store):
    Path("one.yaml").write_text("models: [pt1]\nseeds: [1, 2]\nscale: smoke\nsteps: [evaluate]\n")
    run_study(own_store, expand(load_definition("one.yaml")), ExecutorOptions())
    (summary,) = own_store.find(stage="summary")
    inputs = own_store.client.get_run(summary.id).inputs
    assert {used.model_id for used in inputs.model_inputs} == {m.model_id for m in models()}
    assert len(models()) == 2


@pytest.mark.slow
def test_a_model_is_served_over_http(trained, tmp_path):
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/atlas@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"

    def is_up():
        with suppress(OSError), urllib.request.urlopen(f"{address}/ping", timeout=5) as answer:
            return answer.status == 200
        return False

    def post(**content):
        request = urllib.request.Request(f"{address}/invocations", json.dumps(content).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as fault:
            return json.load(fault)

    questions = ["dist(c_36,c_83)=", "compass(c_36,c_83)="]
    right = mlflow.pyfunc.load_model("models:/atlas@champion").predict(questions)
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(server, log, is_up)
        assert post(inputs=questions) == {"predictions": right}
        frame = {"columns": ["question"], "data": [[text] for text in questions]}
        assert post(dataframe_split=frame) == {"predictions": right}
        assert "'hello' is no question" in post(inputs=["hello"])["message"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
