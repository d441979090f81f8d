"""What is written into the store, and what is known of what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from worldrep.tracking.liveness import Claim

TAG = "worldrep."
CITIES = "cities.csv"  # artifact: of a training the world, of a study the file that it was given


@dataclass(frozen=True)
class StoredRun:
    """What the store knows of a run. started, ended: seconds since 1970, ended 0 for not yet."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    claim: Claim | None
    started: float
    ended: float
    params: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> StoredRun:
        info, data = run.info, run.data
        claim = Claim.newest(data.tags, data.params)
        started, ended = (info.start_time or 0) / 1000, (info.end_time or 0) / 1000
        return cls(
            id=info.run_id,
            name=info.run_name,
            status=info.status,
            tags=data.tags,
            metrics=data.metrics,
            claim=claim,
            started=started,
            ended=ended,
            params=data.params,
        )

    def tag(self, name: str) -> str:
        """A tag by its name without prefix; empty if the run lacks it."""
        return self.tags.get(TAG + name, "")

    @property
    def fingerprint(self) -> str:
        return self.tag("fingerprint")

    @property
    def parent(self) -> str | None:
        return self.tags.get(MLFLOW_PARENT_RUN_ID)

    @property
    def alive(self) -> bool:
        """Whether a process is at work on it."""
        return self.claim is not None and self.claim.alive


@dataclass(frozen=True)
class RunSpec:
    """A piece of work: what its run is called, and what identifies its result.

    tags: without the prefix `worldrep.`; parent: run id of a study; repeatable: a finished run may
    be opened again, as a study's is.
    """

    stage: str
    name: str
    fingerprint: str
    tags: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    repeatable: bool = False

    @property
    def all_tags(self) -> dict[str, str]:
        """Tags as MLflow holds them. The parent is not among them: the first one is kept."""
        named = {"stage": self.stage, "fingerprint": self.fingerprint, **self.tags}
        return {TAG + key: str(value) for key, value in named.items()} | {
            MLFLOW_RUN_NAME: self.name
        }
