"""The only part of worldrep that talks to MLflow."""

from mlflow.exceptions import MlflowException as StoreFault

from worldrep.tracking.liveness import TakenError
from worldrep.tracking.records import RunSpec, StoredRun
from worldrep.tracking.run import OpenRun
from worldrep.tracking.store import Store

__all__ = ["OpenRun", "RunSpec", "Store", "StoreFault", "StoredRun", "TakenError"]
