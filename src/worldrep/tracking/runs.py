"""A run as the store knows it, and what a new run is opened with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from worldrep.tracking.liveness import Claim

TAG = "worldrep."  # prefix of the tags
CITIES = "cities.csv"  # artifact: of a training its world, of a study the user's CSV


@dataclass(frozen=True)
class StoredRun:
    """A run as it was when it was read.

    Attributes:
        tags: With their prefix; `tag` reads one without.
        claim: The newest claim of a process on the run.
        started: Seconds since 1970.
        ended: Seconds since 1970, 0 for a run that has not ended.
    """

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
        """Convert a run of MLflow."""
        info, data = run.info, run.data
        return cls(
            id=info.run_id,
            name=info.run_name,
            status=info.status,
            tags=data.tags,
            metrics=data.metrics,
            claim=Claim.newest(data.tags, data.params),
            started=(info.start_time or 0) / 1000,
            ended=(info.end_time or 0) / 1000,
            params=data.params,
        )

    def tag(self, name: str) -> str:
        """Return a tag by its name without prefix, empty if the run lacks it."""
        return self.tags.get(TAG + name, "")

    @property
    def stage(self) -> str:
        """The kind of work, such as `pretrain`; empty for a run of another program."""
        return self.tag("stage")

    @property
    def fingerprint(self) -> str:
        """The digest of everything that determines the result."""
        return self.tag("fingerprint")

    @property
    def configuration(self) -> str:
        """The fingerprint without the seed, equal for runs that differ in their seed alone."""
        return self.tag("configuration")

    @property
    def parent(self) -> str | None:
        """The id of the parent run."""
        return self.tags.get(MLFLOW_PARENT_RUN_ID)

    @property
    def alive(self) -> bool:
        """Whether a process is working on the run."""
        return self.claim is not None and self.claim.alive


@dataclass(frozen=True)
class RunSpec:
    """A piece of work: the name of its run, and what identifies its result.

    Attributes:
        tags: Without the prefix `worldrep.`.
        settings: Logged as params `cfg.*` and as settings.json.
        parent: Run id of a study.
        repeatable: Whether a finished run may be opened again, as that of a study.
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
        """Tags as MLflow stores them, without the parent: a run keeps its first parent."""
        named = {"stage": self.stage, "fingerprint": self.fingerprint, **self.tags}
        return {TAG + key: str(value) for key, value in named.items()} | {
            MLFLOW_RUN_NAME: self.name
        }


@dataclass(frozen=True)
class Dataset:
    """A data set that a run used, with the description from which it can be made again."""

    name: str
    digest: str
    source: Mapping[str, Any]

    def entity(self) -> MlflowDataset:
        """Convert to MLflow's class."""
        source = CodeDatasetSource(dict(self.source))
        return MetaDataset(source, name=self.name, digest=self.digest)._to_mlflow_entity()
