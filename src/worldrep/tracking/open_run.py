"""A run that a process writes to."""

import json
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import (
    DatasetInput,
    InputTag,
    LoggedModelInput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException

from worldrep.disk import FullError, temporary_folder
from worldrep.errors import interrupts_delayed, raise_delayed
from worldrep.text import without_passwords
from worldrep.tracking.artifacts import CHECKPOINTS, Artifacts
from worldrep.tracking.liveness import CLOSED, HEARTBEAT, HEARTBEAT_SECONDS, Claim, TakenError
from worldrep.tracking.logged_models import MODEL_ID, begin_model, end_model
from worldrep.tracking.outbox import Entry, Outbox
from worldrep.tracking.patience import AwayError, Client, Outage, pauses, root_reason, waiting_helps
from worldrep.tracking.runs import ERROR, SETTINGS, Dataset, RunSpec
from worldrep.training.checkpoint import MANIFEST, step_of

FLUSH_POINTS, FLUSH_SECONDS, BATCH_POINTS = 500, 5.0, 1000
JOIN_SECONDS = 1.0  # a thread that waits for an absent server ends later, by itself


class OpenRun:
    """Writes to one run until it is closed. A Recorder for the training core.

    What is logged goes to an outbox on disk, and a thread sends it in order: metrics, tags, files
    and checkpoints do not wait for the store. All methods raise what the thread met: TakenError
    after another process has taken the run over (`lost`), or a fault of the store that waiting
    cannot mend. Metrics that an earlier process logged (`resumed`) are not logged again.
    """

    def __init__(self, client: Client, run_id: str, claim: int) -> None:
        """Start the sending thread. claim: number of this process's claim, 0 for a new run."""
        self.id, self.resumed, self.lost = run_id, claim > 0, False
        self._client, self._claim = client, claim
        self.model_id, self._linked_step = "", -1
        self._suites: Mapping[str, Dataset] = {}
        self._points: list[tuple] = []  # arguments of Metric
        self._last_steps: dict[str, int] = {}
        self._last_time = 0  # ms, of the points of earlier processes
        self._outbox, self._outage = Outbox(run_id, claim), Outage(client.address)
        self._fault: Exception | None = None
        self._flushing = self._closing = self._closed = False
        self._changed = threading.Condition()
        self._put_at = self._beat_at = time.monotonic()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()

    def _send_all(self) -> None:
        """Send heartbeats and the outbox until the run is closed, lost, or refused."""
        pause = pauses()
        while not self._closing:
            tried, left = time.monotonic(), 0.0
            try:
                self._beat()
                if self.lost:
                    break
                if entry := self._outbox.oldest():
                    self._send(entry)
                    self._outbox.drop()
                else:
                    left = self._beat_at + HEARTBEAT_SECONDS - time.monotonic()
                self._outage.ends()
                pause = pauses()
            except Exception as fault:
                if not waiting_helps(fault):
                    self._fault = self._outbox.explained(fault)
                    break
                self._outage.goes_on(root_reason(fault), tried)
                self._outage.tell(self._what_is_done)
                left = next(pause)
            with self._changed:
                self._changed.notify_all()
                if left > 0 and not self._closing and (self._outage.began or not self._outbox):
                    self._changed.wait(left)
        with self._changed:
            self._changed.notify_all()

    @property
    def _what_is_done(self) -> str:
        if self._flushing:
            return f"waiting to send what is left of run {self.id}, {self._client.at_most}"
        return f"work goes on, and what it logs is kept in {self._outbox.folder}"

    def _beat(self) -> None:
        """Give a sign of life when it is due; during an outage, before anything else is sent."""
        if self._outage.began or time.monotonic() - self._beat_at >= HEARTBEAT_SECONDS:
            self._read_claim(self._client.once("get_run", self.id))
            if not self.lost:
                self._client.once("set_tag", self.id, HEARTBEAT, f"{time.time():.3f}")
                self._beat_at = time.monotonic()

    def _send(self, entry: Entry) -> None:
        content, send = entry.content, self._client.once
        if "path" in content or "keep_states" in content:
            self._read_claim(send("get_run", self.id))
            if not self.lost:
                self._send_files(entry)
            return
        tags = [RunTag(*pair) for pair in content.get("tags", {}).items()]
        metrics = [Metric(*point) for point in content.get("metrics", [])]
        send("log_batch", self.id, metrics=metrics, tags=tags)

    def _send_files(self, entry: Entry) -> None:
        if step := entry.content.get("keep_states"):
            steps = [*(known for known in self._states if known < step), step]
            self._states = self._artifacts.keep_states(steps, 2)
            return
        folder = entry.content["path"]
        try:
            for path in sorted(
                entry.files.iterdir(), key=lambda path: (path.name == MANIFEST, path)
            ):
                self._artifacts.put(path, folder)
        except FullError:
            if entry.content.get("whole"):
                self._artifacts.delete(folder)
            raise

    def _read_claim(self, run: Run) -> None:
        newest = Claim.newest(run.data.tags, run.data.params)
        self.lost = newest is not None and newest.number != self._claim

    def _check(self) -> None:
        if self.lost:
            text = f"run {self.id} was taken over by another process, because this one was silent"
            raise TakenError(text, self.id)
        if self._fault is not None:
            raise self._fault

    def _put(self, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        self._check()
        self._outbox.put(content, files)
        with self._changed:
            self._changed.notify_all()

    def tags(self, tags: Mapping[str, str]) -> None:
        self._put({"tags": {key: without_passwords(str(value)) for key, value in tags.items()}})

    def take_up(self) -> None:
        """Send what the process before this one could not send; read the steps that it logged."""
        self.flush()
        stored = self._client.get_run(self.id).data._metric_objs  # the last point of each metric
        self._last_steps = {point.key: point.step for point in stored}
        self._last_time = max((point.timestamp for point in stored), default=0)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log settings as settings.json and as params `cfg.*`.

        Those that an earlier process logged stay: the fingerprint leaves out settings without an
        effect on the run, such as the path of a CSV, and MLflow does not change a param.
        """
        known = self._client.get_run(self.id).data.params
        params = [Param(f"cfg.{k}", str(v)) for k, v in settings.items() if f"cfg.{k}" not in known]
        self._client.log_batch(self.id, params=params)
        values = {k: _stored(v, known.get(f"cfg.{k}", str(v))) for k, v in settings.items()}
        with self.new_artifact(SETTINGS) as path:
            path.write_text(json.dumps(values, indent=1), encoding="utf-8")

    def begin_model(self, spec: RunSpec, experiment_id: str) -> None:
        """Give the run its LoggedModel, new or of an earlier process."""
        facts = spec.model_facts | {"experiment_id": experiment_id}
        self.model_id = begin_model(self._client, self.id, self.resumed, facts).model_id
        self.tags({MODEL_ID: self.model_id})

    def link_metrics(self, model_id: str, step: int, suites: Mapping[str, Dataset]) -> None:
        """Link the metrics of a LoggedModel's step to it, and to what they are measured on.

        Those of other steps are of other weights. MLflow reads all metrics of the models that it
        lists, so whole curves would also make its list slow.

        Args:
            model_id: Empty for a training of an earlier version, which has no LoggedModel.
            step: The last one of the training.
            suites: Data set by the part of the metrics' names before the last slash.
        """
        self.model_id, self._linked_step, self._suites = model_id, step, suites

    def _point(self, key: str, value: float, now: int, step: int) -> tuple:
        if not self.model_id or step != self._linked_step:
            return key, value, now, step
        data = self._suites.get(key.rpartition("/")[0])
        return key, value, now, step, self.model_id, *((data.name, data.digest) if data else ())

    def inputs(self, context: str, datasets: Iterable[Dataset], models: Iterable[str] = ()) -> None:
        """Log data sets, and LoggedModels by their ids, as inputs of the run, in one request.

        An empty id, of a training of an earlier version, is left out.
        """
        tag = InputTag("mlflow.data.context", context)
        entities = [DatasetInput(dataset.entity(), [tag]) for dataset in datasets]
        self._client.log_inputs(self.id, entities, [*map(LoggedModelInput, filter(None, models))])

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Buffer metrics of one step; infinite values become NaN."""
        self._check()
        now = int(time.time() * 1000)
        for key, value in values.items():
            if step > self.last_step(key):
                number = float(value) if math.isfinite(value) else math.nan
                self._points.append(self._point(key, number, now, step))
        waited = time.monotonic() - self._put_at
        if len(self._points) >= FLUSH_POINTS or waited >= FLUSH_SECONDS:
            self._put_points()

    def replace_metrics(self, values: Mapping[str, float]) -> None:
        """Buffer metrics of step 0 that replace earlier values of the same names."""
        # Of points of one step MLflow keeps the newest, and another machine's clock may be ahead.
        now = max(int(time.time() * 1000), self._last_time + 1)
        self._points += [(key, float(value), now, 0) for key, value in values.items()]

    def last_step(self, key: str) -> int:
        """Return the last step at which an earlier process logged a metric, -1 for never."""
        return self._last_steps.get(key, -1)

    def _put_points(self) -> None:
        self._put_at = time.monotonic()
        while self._points:
            self._put({"metrics": self._points[:BATCH_POINTS]})
            del self._points[:BATCH_POINTS]

    def flush(self, *, patient: bool = True) -> None:
        """Wait until the store has all that was logged; AwayError if it stays away."""
        self._put_points()
        began, self._flushing = time.monotonic(), True
        self._outage.told = False
        while True:
            with self._changed:
                self._check()
                if not self._outbox or self._closing:
                    break
                self._changed.wait(0.25)
            raise_delayed()
            self._client.check(self._outage, began, None if patient else 0.0)
        self._flushing = False

    @cached_property
    def _artifacts(self) -> Artifacts:
        return Artifacts(self._client, self.id)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self._put({"path": folder}, [path])

    @contextmanager
    def new_artifact(self, name: str, folder: str | None = None) -> Iterator[Path]:
        """Store the file that the block writes to the path that it gets."""
        with temporary_folder() as temporary:
            yield temporary / name
            self.artifact(temporary / name, folder)

    def artifacts(self, source: Path, folder: str) -> None:
        """Store the files of a folder, its manifest last, so that an incomplete copy has none.

        If the artifact store is full, what was stored is removed, and there is space for the rest
        of the run.
        """
        self._put({"path": folder, "whole": True}, source.iterdir())

    def checkpoint(self, folder: Path) -> None:
        """Store a checkpoint, after the metrics of the steps before it.

        This one and the one before keep the state of the training, older ones the model alone.
        """
        self._put_points()
        self.artifacts(folder, f"{CHECKPOINTS}/{folder.name}")
        self._put({"keep_states": step_of(folder.name)})

    @cached_property
    def _states(self) -> list[int]:
        """The steps, ascending, whose checkpoints may have the state of the training."""
        return self._artifacts.checkpoint_steps() if self.resumed else []

    def drop_states(self) -> None:
        """Delete the states of all checkpoints, after the run has finished."""
        with suppress(OSError, MlflowException):
            self._artifacts.keep_states(self._states, 0)

    def close(self, status: str, error: str = "") -> None:
        """Send what is left, then set the status. After an interrupt no absent store is awaited.

        A run that is closed stays as it is.
        """
        if self._closed:
            return
        try:
            try:
                self.flush(patient=status != "KILLED")
            except (TakenError, AwayError):
                raise
            except Exception:
                if status == "FINISHED":
                    raise
        finally:
            self.leave()
        run = self._client.get_run(self.id)
        self._read_claim(run)
        if self.lost:
            self._outbox.remove()
            self._check()
        with interrupts_delayed():  # Ctrl-C here must not end a finished run as KILLED
            end_model(self._client, run, status == "FINISHED")
            if error:
                self._client.set_tag(self.id, ERROR, error)
            self._client.set_terminated(self.id, status)
            self._client.set_tag(self.id, CLOSED, str(self._claim))
            self._closed = True
            if not self._outbox:
                self._outbox.remove()

    def leave(self) -> None:
        """Stop without closing the run. What was not sent is kept for the next process."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._sender.join(JOIN_SECONDS)


def _stored(value: Any, text: str) -> Any:
    """Return the setting that an earlier process logged as a param; else, or if damaged, ours."""
    if text == str(value) or not isinstance(value, int | float | str):
        return value
    try:
        return type(value)(text)
    except ValueError:
        return value
