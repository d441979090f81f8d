"""The only part of worldrep that talks to MLflow."""

from mlflow.exceptions import MlflowException as StoreFault

from worldrep.tracking.datasets import Dataset
from worldrep.tracking.liveness import TakenError
from worldrep.tracking.records import RunSpec, StoredRun
from worldrep.tracking.run import OpenRun
from worldrep.tracking.store import Store

__all__ = ["Dataset", "OpenRun", "RunSpec", "Store", "StoreFault", "StoredRun", "TakenError"]
