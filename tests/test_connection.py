"""Stores and experiments: what is made, what is refused, and what `mlflow run` began."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import mlflow
import psycopg2.errors
import pytest
from drivers import run_spec
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from worldrep.errors import InputError, StateError
from worldrep.tracking import Dataset, Store
from worldrep.tracking.page import LISTS, SUMMARIES
from worldrep.tracking.patience import waiting_helps


def test_a_new_sqlite_store_has_a_write_ahead_log(store_uri):
    Store.connect()
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_new_store_is_told_and_reading_makes_none(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(StateError, match="there is no store at .*new.db"):
        Store.connect(create=False)
    assert not [*tmp_path.iterdir()]
    for told in (1, 0):
        Store.connect()
        said = (
            f"created a new store: {tmp_path / 'new.db'}; to use another, set MLFLOW_TRACKING_URI"
        )
        assert capfd.readouterr().err.count(said) == told


def launch(store, experiment_id):
    """A run as `mlflow run` makes it before it starts the command."""
    return store.client.create_run(
        experiment_id, tags={"mlflow.source.type": "PROJECT"}
    ).info.run_id


def test_the_run_of_mlflow_run_is_used_in_a_named_experiment(store, monkeypatch):
    launched = launch(store, store.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.experiment_id)
    again = Store.connect()
    with again.run(run_spec(), launched=True) as run:
        assert run.id == launched
    assert store.get(launched).name == "pt1 s42 evaluate"


def test_the_run_of_mlflow_run_points_to_the_result_elsewhere(store, monkeypatch):
    launched = launch(store, "0")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    again = Store.connect()
    with again.run(run_spec(), launched=True) as run:
        pass
    again.point_launch(run.id)
    assert run.id != launched and again.experiment_name == "worldrep"
    assert store.get(launched).tags["worldrep.result_run_id"] == run.id
    assert store.get(run.id).tags["mlflow.source.type"] == "PROJECT"


def test_an_experiment_is_made_once_and_named_by_the_user(store_uri):
    first, second = Store.connect("mine"), Store.connect("mine")
    assert first.experiment_id == second.experiment_id and first.experiment_name == "mine"


def test_a_deleted_experiment_is_named(store):
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(StateError, match="'worldrep' was deleted"):
        Store.connect()


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "sqlite:////dev/null/mlflow.db", "ftp://somewhere"]
)
def test_a_store_that_cannot_be_reached_is_one_sentence(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StateError, match="cannot use the MLflow store at") as caught:
        Store.connect()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"the tracking URI {uri} names no file"):
        Store.connect()


def test_a_database_that_does_not_answer_is_not_asked_for_minutes(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://127.0.0.1:9/none")
    monkeypatch.setenv("WORLDREP_STORE_PATIENCE", "0")
    waits = []
    monkeypatch.setattr(mlflow.store.db.utils.time, "sleep", waits.append)
    with pytest.raises(StateError, match="cannot use the MLflow store at postgresql"):
        Store.connect()
    assert sum(waits) < 5


def test_a_relative_address_of_another_folder_is_refused_and_no_database_is_made(
    store, tmp_path, monkeypatch
):
    made = store.client.create_run("0").info.run_id  # as by `mlflow run`
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    for _ in range(2):
        with pytest.raises(InputError, match=f"of {Path.cwd()} does not have the run {made} that"):
            Store.connect()
        assert not Path("mlflow.db").exists()
    ours, copy = sqlite3.connect(tmp_path / "mlflow.db"), sqlite3.connect("mlflow.db")
    with closing(ours), closing(copy):
        ours.backup(copy)  # it has the run
    Store.connect()
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another store")
    with pytest.raises(InputError, match="does not have the run of another store"):
        Store.connect()


def test_the_experiment_says_what_its_runs_are(store):
    client = store.client
    client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "mine")
    Store.connect().claim(run_spec()).close("FINISHED")
    tags = client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"] == "mine"  # a user's own stays
    another = Store.connect("another")
    another.claim(run_spec()).close("FINISHED")
    client.set_experiment_tag(another.experiment_id, "mlflow.note.content", "edited")
    another.claim(run_spec(fingerprint="f2")).close("FINISHED")  # by the same process
    assert client.get_experiment_by_name("another").tags["mlflow.note.content"] == "edited"
    Store.connect("third").claim(run_spec()).close("FINISHED")
    note = client.get_experiment_by_name("third").tags["mlflow.note.content"]
    assert all(f": {query}" in note for query in [SUMMARIES, *LISTS.values()])
    for query in [SUMMARIES, *LISTS.values()]:  # each is a filter
        client.search_runs([store.experiment_id], query)


def test_a_tag_that_another_process_makes_at_once_is_set_again(store, monkeypatch):
    run = store.claim(run_spec())
    set_tag, made = MlflowClient.set_tag, []

    def at_once(client, run_id, key, value):
        if not made:
            made.append(key)
            with closing(sqlite3.connect("mlflow.db")) as connection, connection:
                connection.execute("insert into tags values (?, 'other', ?)", [key, run_id])
            fault = sqlite3.IntegrityError("UNIQUE constraint failed: tags.key, tags.run_uuid")
            raise MlflowException("failed") from IntegrityError("insert", {}, fault)
        return set_tag(client, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "set_tag", at_once)
    store.client.set_tag(run.id, "mine", "1")
    assert made == ["mine"] and store.get(run.id).tags["mine"] == "1"
    run.close("FINISHED")


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        ("UNIQUE constraint failed: tags.key, tags.run_uuid", True),
        ("UNIQUE constraint failed: datasets.experiment_id, datasets.name", True),
        ('duplicate key value violates unique constraint "tag_pk"', True),
        ('duplicate key value violates unique constraint "dataset_pk"', True),
        ("UNIQUE constraint failed: webhooks.stage", False),
        ('duplicate key value violates unique constraint "experiments_name_key"', False),
        ("FOREIGN KEY constraint failed", False),
    ],
)
def test_of_rows_that_are_there_already_only_tags_and_data_sets_are_written_again(text, helps):
    kind = psycopg2.errors.UniqueViolation if "duplicate" in text else sqlite3.IntegrityError
    fault = IntegrityError("INSERT INTO tags", {}, kind(text))
    assert waiting_helps(fault) == waiting_helps(MlflowException(str(fault))) == helps


def test_runs_that_log_the_same_new_data_set_at_once_both_have_it(store):
    runs, data = [store.claim(run_spec(f)) for f in ("f1", "f2")], Dataset("cities", "1a2b", {})
    both, held = Barrier(2, timeout=30), []

    def hold(connection, cursor, statement, *_):
        if statement.startswith("INSERT INTO datasets") and len(held) < 2:
            held.append(statement)
            both.wait()  # until the other one has looked for the data set, too

    event.listen(Engine, "before_cursor_execute", hold)
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda run: run.inputs("training", [data]), runs))
    finally:
        event.remove(Engine, "before_cursor_execute", hold)
    assert len(held) == 2
    for run in runs:
        run.close("FINISHED")
        (logged,) = MlflowClient().get_run(run.id).inputs.dataset_inputs
        assert logged.dataset.digest == "1a2b"
