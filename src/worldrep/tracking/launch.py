"""The run that `mlflow run` makes before it starts a command."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import RunTag

from worldrep.tracking.records import RunSpec, StoredRun

ORIGIN_TAGS = ("mlflow.source.", "mlflow.project.", "mlflow.gitRepoURL", "mlflow.user")


class Launch:
    """What becomes of that run: the result's own run, or a pointer to it."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # else children would write to it
        self._run_id = run_id if os.environ.get("RANK", "0") == "0" else None
        self._used: str | None = None

    def become(self, spec: RunSpec, tags: Mapping[str, str], experiment_id: str) -> str | None:
        """Make it the run of a piece of work; None if there is none in this experiment."""
        if self._run_id is None:
            return None
        if self._client.get_run(self._run_id).info.experiment_id != experiment_id:
            return None
        run_id, self._run_id = self._run_id, None
        self._used = run_id
        self._client.update_run(run_id, name=spec.name)
        # All at once: a fingerprint without an owner would be there for the taking.
        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        return run_id

    def rename(self, name: str) -> None:
        """Call it what the command did, when that left no run of its own."""
        if self._run_id is not None:
            self._client.update_run(self._run_id, name=name)

    def take_back(self, run_id: str) -> bool:
        """Let it be used anew, if this is the run that was used."""
        if run_id != self._used:
            return False
        self._run_id, self._used = run_id, None
        return True

    def origin(self) -> dict[str, str]:
        """Tags that say where the command came from, for the run that holds the result instead."""
        if self._run_id is None:
            return {}
        tags = self._client.get_run(self._run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith(ORIGIN_TAGS)}

    def point_to(self, result: StoredRun) -> None:
        """Make it a pointer to a result that was there before, or lies in another experiment.

        (It cannot be deleted: `mlflow run` ends it when the command has ended.)
        """
        if self._run_id is None:
            return
        note = f"This command's result is run {result.id}, {result.name}."
        for key, value in (("worldrep.result_run_id", result.id), ("mlflow.note.content", note)):
            self._client.set_tag(self._run_id, key, value)
        self._client.update_run(self._run_id, name=f"launch of {result.name}")
        self._run_id = None
