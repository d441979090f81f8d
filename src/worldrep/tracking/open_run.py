"""An open run: buffered metrics, a heartbeat, artifacts and checkpoints."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from worldrep.tracking.liveness import CLOSED, HEARTBEAT_SECONDS, Claim, TakenError, heartbeat_tag
from worldrep.tracking.runs import Dataset
from worldrep.training.checkpoint import MANIFEST

FLUSH_POINTS, FLUSH_SECONDS, BATCH_POINTS = 500, 5.0, 1000
CHECKPOINTS = "checkpoints"  # artifact folder


class OpenRun:
    """Writes to one run until it is closed. A Recorder for the training core.

    Methods raise TakenError after another process has taken the run over, which happens when this
    process sent no heartbeat for too long.

    Attributes:
        resumed: An earlier process began the run; metrics that it logged are not logged again.
        lost: Another process has taken the run over.
    """

    def __init__(self, client: MlflowClient, run_id: str, claim: int) -> None:
        """Start the heartbeat. claim: number of this process's claim, 0 for a new run."""
        self.id = run_id
        self.resumed = claim > 0
        self.lost = False
        self._client, self._claim = client, claim
        self._points: list[Metric] = []
        self._flushed = time.monotonic()
        self._last_steps: dict[str, int] = {}
        self._closing = threading.Event()
        self._heartbeat = threading.Thread(target=self._send_heartbeats, daemon=True)
        self._heartbeat.start()

    def _send_heartbeats(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            try:
                self._read_claim()
                if self.lost:
                    return
                self.tags(heartbeat_tag())
            except Exception:
                continue

    def _read_claim(self) -> None:
        """Find out whether another process has made a later claim."""
        run = self._client.get_run(self.id)
        newest = Claim.newest(run.data.tags, run.data.params)
        self.lost = newest is not None and newest.number != self._claim

    def _check(self) -> None:
        if self.lost:
            raise TakenError(
                f"run {self.id} was taken over by another process, because this one was silent",
                self.id,
            )

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, given with their prefix."""
        self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log settings as settings.json, and as params `cfg.*` unless an earlier process did."""
        known = self._client.get_run(self.id).data.params
        params = [Param(f"cfg.{k}", str(v)) for k, v in settings.items() if f"cfg.{k}" not in known]
        self._client.log_batch(self.id, params=params)
        self._client.log_text(self.id, json.dumps(dict(settings), indent=1), "settings.json")

    def inputs(self, context: str, datasets: Iterable[Dataset]) -> None:
        """Log data sets as inputs of the run, in one request."""
        tag = InputTag("mlflow.data.context", context)
        entities = [dataset.entity() for dataset in datasets]
        self._client.log_inputs(self.id, [DatasetInput(entity, [tag]) for entity in entities])

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Buffer metrics of one step; infinite values become NaN."""
        self._check()
        now = int(time.time() * 1000)
        for key, value in values.items():
            if step > self.last_step(key):
                number = value if math.isfinite(value) else math.nan
                self._points.append(Metric(key, number, now, step))
        waited = time.monotonic() - self._flushed
        if len(self._points) >= FLUSH_POINTS or waited >= FLUSH_SECONDS:
            self.flush(required=False)

    def replace_metrics(self, values: Mapping[str, float]) -> None:
        """Buffer metrics of step 0 that replace earlier values of the same names."""
        now = int(time.time() * 1000)
        self._points += [Metric(key, value, now, 0) for key, value in values.items()]

    def last_step(self, key: str) -> int:
        """Return the last step at which an earlier process logged a metric, -1 for never."""
        if not self.resumed:
            return -1
        if key not in self._last_steps:
            history = self._client.get_metric_history(self.id, key)
            self._last_steps[key] = max((point.step for point in history), default=-1)
        return self._last_steps[key]

    def flush(self, *, required: bool = True) -> None:
        """Send the buffered metrics; if not required, keep them after a failure for the next try.

        Raises:
            StoreFault: The store failed, and the flush is required.
        """
        self._flushed = time.monotonic()
        try:
            while self._points:
                self._client.log_batch(self.id, metrics=self._points[:BATCH_POINTS])
                del self._points[:BATCH_POINTS]
        except MlflowException:
            if required:
                raise
            print("metrics are kept until the store answers again", file=sys.stderr)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, in a folder of the run's artifacts."""
        self._client.log_artifact(self.id, str(path), folder)

    def artifacts(self, source: Path, folder: str) -> None:
        """Store the files of a folder, its manifest last, so that an incomplete copy has none."""
        self._check()
        files = [path for path in sorted(source.iterdir()) if path.name != MANIFEST]
        with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
            for path in files:
                (Path(temporary) / path.name).hardlink_to(path)
            self._client.log_artifacts(self.id, temporary, folder)
        if (source / MANIFEST).exists():
            self.artifact(source / MANIFEST, folder)

    def checkpoint(self, folder: Path) -> None:
        """Store a checkpoint, after the metrics of the steps before it."""
        self._read_claim()
        self._check()
        self.flush()
        self.artifacts(folder, f"{CHECKPOINTS}/{folder.name}")

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self._closing.set()
        self._heartbeat.join()
        self._read_claim()
        self._check()
        self.flush()
        self._client.set_terminated(self.id, status)
        self.tags({CLOSED: str(self._claim)})
