"""The runs of a store: what they carry, how they end, and nothing logged twice."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time

import pytest
from drivers import run_spec
from mlflow import MlflowClient

from worldrep.disk import cache_folder
from worldrep.errors import InputError, StateError, interrupt_on_sigterm
from worldrep.tracking import RunSpec


def test_a_run_carries_its_tags_settings_and_status(store):
    with store.run(run_spec(seed="42")) as run:
        run.metrics(3, {"standard/angle/mean": 1.5})
    stored = store.client.get_run(run.id)
    assert stored.info.status == "FINISHED" and stored.info.run_name == "pt1 s42 evaluate"
    tags = stored.data.tags
    assert tags["worldrep.stage"] == "evaluate" and tags["worldrep.seed"] == "42"
    assert tags["worldrep.fingerprint"] == "f1"
    assert stored.data.params["cfg.a"] == "1"
    assert stored.data.metrics["standard/angle/mean"] == 1.5
    assert store.finished("f1").id == run.id


def test_a_failure_ends_as_failed_and_says_why(store):
    with pytest.raises(ZeroDivisionError), store.run(run_spec()) as run:
        raise ZeroDivisionError("poison")
    stored = store.get(run.id)
    assert stored.status == "FAILED" and "poison" in stored.tags["worldrep.error"]
    assert store.finished("f1") is None


def test_an_interrupt_ends_as_killed(store):
    with pytest.raises(KeyboardInterrupt), store.run(run_spec()) as run:
        raise KeyboardInterrupt
    assert store.get(run.id).status == "KILLED"


def test_an_interrupt_while_the_rest_is_sent_ends_as_killed_and_loses_nothing(store):
    usual = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), store.run(run_spec()) as run:
            for step in range(500):
                run.tags({"worldrep.last": str(step)})
            signal.setitimer(signal.ITIMER_REAL, 0.2, 60)  # again, if closing has no end
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert store.get(run.id).status == "KILLED" and store.get(run.id).tag("last") != "499"
    with store.run(run_spec()) as again:
        assert again.id == run.id and store.get(run.id).tag("last") == "499"


def test_a_cache_that_is_removed_ends_the_run_with_a_sentence(store):
    with (
        pytest.raises(StateError, match="was removed, with what the store does not"),
        store.run(run_spec()) as run,
    ):
        while True:  # until a request that is kept there is removed before it is sent
            run.tags({"worldrep.last": "1"})
            shutil.rmtree(cache_folder() / "outbox", ignore_errors=True)
    assert store.get(run.id).status == "FAILED"
    with store.run(run_spec()) as again:
        again.tags({"worldrep.last": "2"})
    assert again.id == run.id and store.get(run.id).tag("last") == "2"


def test_failed_work_is_carried_on_in_the_same_run(store):
    with pytest.raises(ZeroDivisionError), store.run(run_spec()) as first:
        raise ZeroDivisionError
    with store.run(run_spec()) as second:
        pass
    assert first.id == second.id and second.resumed
    assert [run.status for run in store.find(fingerprint="f1")] == ["FINISHED"]
    assert "worldrep.error" not in store.get(second.id).tags


def test_a_resumed_run_does_not_log_a_step_again(store):
    with pytest.raises(ZeroDivisionError), store.run(run_spec()) as run:
        run.metrics(1, {"train/loss": 1.0})
        run.metrics(2, {"train/loss": 0.9, "val/x": 5})
        raise ZeroDivisionError
    with store.run(run_spec()) as run:
        run.metrics(2, {"train/loss": 0.9})
        run.metrics(3, {"train/loss": 0.8, "val/x": 4})
    history = store.client.get_metric_history(run.id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.9), (3, 0.8)]
    assert len(store.client.get_metric_history(run.id, "val/x")) == 2


def test_a_resumed_run_keeps_the_settings_that_it_began_with(store, tmp_path):
    """Those that are not in the fingerprint may differ, such as the path of a CSV."""
    for path, rows in (("a.csv", 20), ("b.csv", 30)):
        own = dataclasses.replace(run_spec(), settings={"cities": path, "rows": rows, "rate": 0.5})
        with contextlib.suppress(ZeroDivisionError), store.run(own) as run:
            assert 1 / (path == "b.csv") > 0
    settings = json.loads(store.artifact(run.id, "settings.json", tmp_path).read_text())
    assert settings == {"cities": "a.csv", "rows": 20, "rate": 0.5}
    assert store.get(run.id).params["cfg.cities"] == "a.csv"


def test_settings_that_are_no_numbers_or_texts_are_stored_as_they_are(store, tmp_path):
    with store.run(dataclasses.replace(run_spec(), settings={"layers": (0, 3), "on": True})) as run:
        pass
    settings = json.loads(store.artifact(run.id, "settings.json", tmp_path).read_text())
    assert settings == {"layers": [0, 3], "on": True}


def test_metrics_are_replaced_also_after_a_clock_that_was_ahead(store, monkeypatch):
    summary = dataclasses.replace(run_spec(), stage="summary", repeatable=True)
    for value, ahead in ((0.5, 60), (0.9, 0)):
        clock = time.time() + ahead
        with store.run(summary) as run, monkeypatch.context() as patched:
            patched.setattr("worldrep.tracking.open_run.time.time", lambda now=clock: now)
            run.replace_metrics({"transfer": value})
    assert store.get(run.id).metrics["transfer"] == 0.9


def test_an_interrupt_while_a_finished_run_is_closed_leaves_it_finished(store, monkeypatch):
    def set_terminated(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(self, *arguments)

    usual = MlflowClient.set_terminated
    monkeypatch.setattr(MlflowClient, "set_terminated", set_terminated)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt), store.run(run_spec()) as run:
            run.metrics(1, {"x": 1.0})
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert store.get(run.id).status == "FINISHED" and store.finished("f1").id == run.id


def test_the_history_of_a_metric_has_the_last_value_of_each_step(store):
    with store.run(run_spec()) as run:
        run.metrics(2, {"m": 4.0})
        run.metrics(1, {"m": 3.0})
        run.flush()
        run.metrics(2, {"m": 5.0})
    assert store.history(run.id, "m") == [(1, 3.0), (2, 5.0)]
    assert store.history(run.id, "another") == []


def test_finished_work_is_reused_as_a_child_of_the_study_that_wants_it(store):
    study = store.claim(RunSpec("study", "study", "s1", {})).id
    assert store.reuse("f1") is None
    with store.run(run_spec()) as run:
        assert store.reuse("f1", study) is None
    assert store.reuse("f1", study) == run.id and store.get(run.id).parent == study


def test_infinite_numbers_become_nan(store):
    with store.run(run_spec()) as run:
        run.metrics(1, {"m": float("inf")})
    assert store.client.get_run(run.id).data.metrics["m"] != pytest.approx(1.8e308)
    assert str(store.client.get_run(run.id).data.metrics["m"]) == "nan"


def test_a_run_that_is_not_there_is_one_sentence(store):
    with pytest.raises(InputError, match="run_id 'abc' is not in the store"):
        store.get("abc")


def test_an_artifact_that_is_not_there_is_one_sentence(store):
    with store.run(run_spec()) as run:
        pass
    with pytest.raises(StateError, match="has no artifact model"), store.download(run.id, "model"):
        pass


def test_a_run_stays_below_the_study_that_made_it(store):
    studies = [store.claim(RunSpec("study", f"study {i}", f"s{i}", {})).id for i in range(2)]
    with store.run(RunSpec("extract", "extract", "f9", {}, parent=studies[0])) as run:
        pass
    store.adopt(run.id, studies[1])
    assert store.get(run.id).parent == studies[0]
