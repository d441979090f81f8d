"""The only part of worldrep that talks to MLflow."""

from worldrep.tracking.run import OpenRun
from worldrep.tracking.store import RunSpec, Store, StoredRun

__all__ = ["OpenRun", "RunSpec", "Store", "StoredRun"]
