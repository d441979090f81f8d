"""Runs in an MLflow store, each piece of work in one run. The only package that calls MLflow.

Imports `training` (checkpoint folders), `data` (cache folder) and the top-level modules.
"""

from mlflow.exceptions import MlflowException as StoreFault

from worldrep.tracking.artifacts import CHECKPOINTS, MODEL
from worldrep.tracking.connection import DEFAULT_EXPERIMENT, sqlite_file
from worldrep.tracking.liveness import Owner, TakenError
from worldrep.tracking.logged_models import write_python_function
from worldrep.tracking.open_run import OpenRun
from worldrep.tracking.page import run_page
from worldrep.tracking.patience import AwayError
from worldrep.tracking.runs import CITIES, DELETED, SETTINGS, Dataset, RunSpec, StoredRun, listed
from worldrep.tracking.store import Store, damage_named, ended_on_error, gc_disabled
