"""An open MLflow run: buffered metrics, a heartbeat, artifacts, checkpoints."""

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

from worldrep.tracking.datasets import Dataset
from worldrep.tracking.liveness import CLOSED, HEARTBEAT_SECONDS, Claim, TakenError, heartbeat_tag
from worldrep.training.checkpoint import MANIFEST

FLUSH_POINTS, FLUSH_SECONDS, BATCH_POINTS = 500, 5.0, 1000
CHECKPOINTS = "checkpoints"


class OpenRun:
    """Writes to one run until it is closed. A Recorder for the training core.

    resumed: the run was begun by an earlier process; metrics that it logged are not logged again.
    claim: the number of this process's claim. lost: another process, which took this one for dead,
    has the run now; methods raise TakenError.
    """

    def __init__(self, client: MlflowClient, run_id: str, claim: int) -> None:
        self.id = run_id
        self.resumed = claim > 0
        self._client, self._claim = client, claim
        self._points: list[Metric] = []
        self._flushed = time.monotonic()
        self._last_steps: dict[str, int] = {}
        self.lost = False
        self._closing = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._pulse.start()

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            try:
                self._look()
                if self.lost:
                    return
                self.tags(heartbeat_tag())
            except Exception:
                continue

    def _look(self) -> None:
        """Find out whether a later claim has been made."""
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
        self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Log settings as params `cfg.*`, unless an earlier process did, and as settings.json."""
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
        """Buffer numbers of one step; infinite ones become NaN."""
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
        """Numbers that hold from now on in place of earlier ones of their names."""
        now = int(time.time() * 1000)
        self._points += [Metric(key, value, now, 0) for key, value in values.items()]

    def last_step(self, key: str) -> int:
        """The last step at which an earlier process logged this metric, -1 for never."""
        if not self.resumed:
            return -1
        if key not in self._last_steps:
            history = self._client.get_metric_history(self.id, key)
            self._last_steps[key] = max((point.step for point in history), default=-1)
        return self._last_steps[key]

    def flush(self, *, required: bool = True) -> None:
        """Send buffered numbers; if not required, a failure keeps them for the next time."""
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
        """Store a folder's files, its manifest last if it has one: whole or not whole shows."""
        self._check()
        files = [path for path in sorted(source.iterdir()) if path.name != MANIFEST]
        with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
            for path in files:
                (Path(temporary) / path.name).hardlink_to(path)
            self._client.log_artifacts(self.id, temporary, folder)
        if (source / MANIFEST).exists():
            self.artifact(source / MANIFEST, folder)

    def checkpoint(self, folder: Path) -> None:
        """Store a checkpoint after the numbers that belong to it."""
        self._look()
        self._check()
        self.flush()
        self.artifacts(folder, f"{CHECKPOINTS}/{folder.name}")

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self._closing.set()
        self._pulse.join()
        self._look()
        self._check()
        self.flush()
        self._client.set_terminated(self.id, status)
        self.tags({CLOSED: str(self._claim)})
