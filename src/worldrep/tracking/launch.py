"""The run that `mlflow run` creates before it starts a command."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import RunTag

from worldrep.tracking.runs import RunSpec, StoredRun

ORIGIN_TAGS = ("mlflow.source.", "mlflow.project.", "mlflow.gitRepoURL", "mlflow.user")


class Launch:
    """Makes that run the run of the result, or a pointer to it."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # else child processes would write to it
        self._run_id = run_id if os.environ.get("RANK", "0") == "0" else None
        self._used: str | None = None

    def become(self, spec: RunSpec, tags: Mapping[str, str], experiment_id: str) -> str | None:
        """Use the run for a piece of work; None if there is no such run in this experiment."""
        if self._run_id is None:
            return None
        if self._client.get_run(self._run_id).info.experiment_id != experiment_id:
            return None
        run_id, self._run_id = self._run_id, None
        self._used = run_id
        self._client.update_run(run_id, name=spec.name)
        # In one request: another process could claim a run that has a fingerprint but no owner.
        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        return run_id

    def rename(self, name: str) -> None:
        """Rename the run of a command that has no result of its own."""
        if self._run_id is not None:
            self._client.update_run(self._run_id, name=name)

    def take_back(self, run_id: str) -> bool:
        """Undo `become` and return True, if it used this run."""
        if run_id != self._used:
            return False
        self._run_id, self._used = run_id, None
        return True

    def origin(self) -> dict[str, str]:
        """Return the tags that name the command's source, for the run of the result."""
        if self._run_id is None:
            return {}
        tags = self._client.get_run(self._run_id).data.tags
        return {key: value for key, value in tags.items() if key.startswith(ORIGIN_TAGS)}

    def point_to(self, result: StoredRun) -> None:
        """Make the run a pointer to a result in another run.

        (It cannot be deleted: `mlflow run` ends it after the command has ended.)
        """
        if self._run_id is None:
            return
        note = f"This command's result is run {result.id}, {result.name}."
        for key, value in (("worldrep.result_run_id", result.id), ("mlflow.note.content", note)):
            self._client.set_tag(self._run_id, key, value)
        self._client.update_run(self._run_id, name=f"launch of {result.name}")
        self._run_id = None
