"""What a run used, as MLflow shows it among a run's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset as Entity


@dataclass(frozen=True)
class Dataset:
    """A data set by name and digest; source: what it can be made again from."""

    name: str
    digest: str
    source: Mapping[str, Any]

    def entity(self) -> Entity:
        source = CodeDatasetSource(dict(self.source))
        return MetaDataset(source, name=self.name, digest=self.digest)._to_mlflow_entity()
