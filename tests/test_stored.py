"""What comes from a store is not trusted: files, paths, tags and addresses that others wrote."""

import http.server
import json
import re
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drivers import run
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from safetensors.numpy import save_file

from entrypoints import evaluate, pretrain, study
from worldrep.errors import StateError
from worldrep.stages.models import TrainedModel, cached_cities
from worldrep.stored import DamagedError, Manifest, read_json, tensor_facts
from worldrep.tracking import RunSpec, Store, listed
from worldrep.training.checkpoint import MANIFEST, write_manifest

SMOKE = ["--scale", "smoke"]


@pytest.fixture(scope="module")
def trained(new_store):
    """The folder of a store with a base of a user's cities."""
    with new_store("trained"):
        places = np.random.default_rng(0).integers(-800, 800, size=(20, 2)).tolist()
        lines = [f"C{i},{x},{y}" for i, (x, y) in enumerate(places)]
        Path("own.csv").write_text("\n".join(["name,x,y", *lines]))
        run(pretrain, *SMOKE, "--cities", "own.csv")
        yield Path.cwd()


@pytest.fixture
def base(trained, tmp_path, monkeypatch):
    """That base in a copy of the store; its run id and the folder of its artifacts."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    move_addresses(tmp_path / "mlflow.db", trained, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = Store.connect().find(stage="pretrain")
    return found.id, next(tmp_path.glob(f"mlruns/*/{found.id}/artifacts"))


def move_addresses(database, old, new):
    """What docs/studies.md says of a moved store."""
    places = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "logged_models": "artifact_location",
        "model_versions": "storage_location",
    }
    for table, column in places.items():
        change(database, f"update {table} set {column} = replace({column}, ?, ?)", old, new)


def change(database, statement, *values):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, [*map(str, values)])


def evaluations():
    return [(found.status, found.tag("error")) for found in Store.connect().find(stage="evaluate")]


def test_a_path_in_stored_settings_is_never_opened(base, tmp_path):
    """Whoever writes to the store could else read a file of whoever evaluates."""
    run_id, files = base
    secret = tmp_path / "secret"
    secret.write_text("name,x,y\nS3CRET,1\n")
    settings = json.loads((files / "settings.json").read_text())
    change("mlflow.db", "update params set value = ? where key = 'cfg.cities'", secret)
    (files / "settings.json").write_text(json.dumps({**settings, "cities": str(secret)}))
    output = run(evaluate, "--run_id", run_id)
    own = TrainedModel.load(Store.connect(), Store.connect().get(run_id), "last").maker.world
    assert "S3CRET" not in output and "C7" in own.cities["name"].to_list()


def test_settings_that_are_not_those_of_the_run_are_refused(base):
    """Other test rows would give other numbers under the name of the model."""
    run_id, files = base
    settings = json.loads((files / "settings.json").read_text())
    (files / "settings.json").write_text(json.dumps({**settings, "test_rows": 15}))
    message = run(evaluate, "--run_id", run_id, code=1)
    assert f"run {run_id}: artifact settings.json is damaged: test_rows is 15" in message
    assert evaluations() == []


@pytest.mark.parametrize("named", [False, True])
def test_an_adapter_beside_a_model_changes_no_number(base, named):
    run_id, files = base
    run(evaluate, "--run_id", run_id)
    store = Store.connect()
    (honest,) = store.find(stage="evaluate")
    store.client.delete_run(honest.id)
    rank, hidden = 2, 16
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    adapter = {
        f"{prefix}.lora_A.weight": np.ones((rank, hidden), np.float32),
        f"{prefix}.lora_B.weight": np.ones((hidden, rank), np.float32),
    }
    save_file(adapter, files / "model" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 64}
    config |= {"target_modules": ["q_proj"], "base_model_name_or_path": "none"}
    (files / "model" / "adapter_config.json").write_text(json.dumps(config))
    if not named:
        message = run(evaluate, "--run_id", run_id, code=1)
        assert "adapter_config.json is damaged: manifest.json does not name it" in message
        return
    write_manifest(files / "model")
    run(evaluate, "--run_id", run_id)
    (found,) = store.find(stage="evaluate")
    assert dict(found.metrics) == dict(honest.metrics)


def test_a_config_that_is_not_that_of_the_settings_is_refused(base):
    run_id, files = base
    path = files / "model" / "config.json"
    for name, value in (("num_attention_heads", 4), ("hidden_act", "relu"), ("rms_norm_eps", 0.1)):
        whole = path.read_text()
        path.write_text(json.dumps({**json.loads(whole), name: value}))
        write_manifest(files / "model")
        message = run(evaluate, "--run_id", run_id, code=1)
        assert f"run {run_id}: artifact model/config.json is damaged: {name} is not" in message
        path.write_text(whole)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", ".hidden", "", "a\0b"])
def test_a_name_in_a_manifest_does_not_leave_its_folder(tmp_path, name):
    facts = {"bytes": 1, "sha256": "0" * 64}
    (tmp_path / MANIFEST).write_text(json.dumps({name: facts}))
    with pytest.raises(DamagedError):
        read_json(tmp_path / MANIFEST, Manifest)


def test_an_empty_manifest_is_not_that_of_a_model(base):
    run_id, files = base
    (files / "model" / MANIFEST).write_text("{}")
    assert "model/manifest.json is damaged" in run(evaluate, "--run_id", run_id, code=1)


def test_sizes_are_bounded_before_memory_is_taken(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(DamagedError, match="header of more than"):
        tensor_facts(path)
    header = b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DamagedError):
        tensor_facts(path)
    (tmp_path / MANIFEST).write_bytes(b" " * (2**24 + 1))
    with pytest.raises(DamagedError, match="more than 16777216 bytes"):
        read_json(tmp_path / MANIFEST, Manifest)
    (tmp_path / MANIFEST).write_bytes(b"[" * 100_000)
    with pytest.raises(DamagedError, match="recursion limit"):
        read_json(tmp_path / MANIFEST, Manifest)


def test_a_damaged_copy_of_cities_is_fetched_anew(base):
    run_id, files = base
    store = Store.connect()
    kept = Path(cached_cities(store, run_id))
    kept.write_text("name,x\nbroken")
    assert Path(cached_cities(store, run_id)).read_bytes() == (files / "cities.csv").read_bytes()


@pytest.mark.slow
def test_a_damaged_base_fails_the_steps_that_need_it_and_no_others(base, tmp_path):
    run_id, files = base
    (files / "model" / "model.safetensors").write_bytes(b"\x80\x04\x95")  # as a pickle begins
    Path("two.yaml").write_text(
        "models: [pt1, pt1-1, pt1_ftwb1-1]\nscale: smoke\nseeds: [42]\nsettings: {cities: own.csv}"
    )
    message = run(study, "--name", "two.yaml", "--executor", "inline", code=1)
    assert f"run {run_id}: artifact model/model.safetensors is damaged" in message
    assert "Traceback" not in message
    ended = {
        found.name: found.status
        for stage in ("pretrain", "evaluate", "extract", "finetune")
        for found in Store.connect().find(stage=stage)
    }
    assert ended["pt1-1 s42 evaluate"] == ended["pt1-1 s42 extract"] == "FINISHED"
    assert ended["pt1 s42 evaluate"] == ended["ftwb1-1 s42 finetune"] == "FAILED"


def test_a_deleted_training_is_not_evaluated(base):
    run_id, _ = base
    MlflowClient().delete_run(run_id)
    message = run(evaluate, "--run_id", run_id, code=2)
    assert f"(DELETED, restored by `mlflow runs restore --run-id {run_id}`)" in message
    assert evaluations() == []


def test_an_artifact_that_is_there_and_cannot_be_read_is_not_called_absent(base):
    run_id, files = base
    (files / "settings.json").unlink()
    message = run(evaluate, "--run_id", run_id, code=1)
    assert f"run {run_id} has no artifact settings.json in {files}" in message
    (files / "settings.json").symlink_to("settings.json")
    message = run(evaluate, "--run_id", run_id, code=1)
    assert f"artifact settings.json of run {run_id} cannot be read" in message


def test_a_moved_store_says_where_it_looked_and_writes_nothing_there(base, tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    run_id, _ = base
    new.mkdir()
    for name in ("mlflow.db", "mlruns"):
        shutil.move(name, new / name)
    move_addresses(new / "mlflow.db", tmp_path, old)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new}/mlflow.db")
    monkeypatch.chdir(new)
    for command, *arguments in (
        (evaluate, "--run_id", run_id), (pretrain, *SMOKE), (study, "--action", "status")
    ):  # fmt: skip
        message = run(command, *arguments, code=1)
        assert f"looked for in {old}/mlruns/1, which does not exist" in message
        assert message.count("\n") == 1 and not old.exists()
    subprocess.run(re.search(r"\((mkdir -p .*?)\)", message)[1], shell=True, check=True)
    run(evaluate, "--run_id", run_id)


def test_a_database_of_a_newer_mlflow_says_so(base, monkeypatch):
    shutil.copy("mlflow.db", "newer.db")  # MLflow checks each address once in a process
    change("newer.db", "update alembic_version set version_num = ?", "ffffffffffff")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path('newer.db').resolve()}")
    with pytest.raises(StateError, match="is of a newer MLflow than"):
        Store.connect()


def test_a_tag_is_cut_between_values():
    ids = [f"{i:032x}" for i in range(300)]
    assert listed(ids[:242]).split(",") == ids[:242]
    cut = listed(ids)
    assert len(cut) <= 8000 and cut.endswith(",and 58 more")
    assert cut.split(",")[:-1] == ids[:242]


GARBLED = ["", "abc", "nan", "inf", "1e400", "-1", "32503680000", "9" * 5000, "1 x y z"]


@pytest.mark.parametrize("value", GARBLED, ids=range(len(GARBLED)))
def test_claims_and_heartbeats_that_cannot_be_read_are_those_of_a_dead_process(store_uri, value):
    store = Store.connect()
    spec = RunSpec("evaluate", "pt1 s42 evaluate", "f1", {"model": "pt1"})
    client = store.client
    made = client.create_run(store.experiment_id, tags=spec.all_tags)
    for key in ("heartbeat", "owner", "closed_claim", "seed"):
        client.set_tag(made.info.run_id, f"worldrep.{key}", value)
    for key in ("claim.x", "claim.x=y", "claim.", "claim.01", "claim.1", "claim.2"):
        if value and "=" not in key:
            client.log_param(made.info.run_id, key, value)
    assert not store.get(made.info.run_id).alive
    assert store.get(made.info.run_id).seed in (None, 32503680000)
    with store.run(spec) as opened:
        pass
    assert opened.id == made.info.run_id and store.get(opened.id).status == "FINISHED"


class Ill(http.server.BaseHTTPRequestHandler):
    """A server that knows the experiment and answers 503 to everything else."""

    def do_GET(self):
        known = "experiments/get" in self.path
        experiment = {"experiment_id": "1", "name": "worldrep", "lifecycle_stage": "active"}
        self.send_response(200 if known else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"experiment": experiment} if known else {}).encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("moment", [-1, 2**62, None])
def test_a_time_that_no_calendar_has_is_read_as_one_that_it_has(store_uri, moment):
    store = Store.connect()
    run_id = store.client.create_run(store.experiment_id).info.run_id
    change("mlflow.db", "update runs set end_time = nullif(?, 'None')", moment)
    assert pd.Timestamp(store.get(run_id).ended, unit="s").year in (1970, 2100)


def test_a_store_that_is_ill_is_not_taken_for_one_without_the_run(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ill) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(MlflowException, match="503"):
            Store(uri, MlflowClient(uri), "1").get("0" * 32)
        server.shutdown()
