"""Becoming the one process that works on a piece of work, whatever other hosts do meanwhile.

The store is the only judge. Who makes a run looks for others of the same fingerprint afterwards,
and whoever finds one takes its own back: of two that begin together at least one sees the other, so
two never both go on. Who takes over a dead run adds the next claim to it, which one process alone
can do (see `liveness`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from worldrep.errors import StateError
from worldrep.tracking.liveness import (
    CLAIM,
    CLOSED,
    OWNER,
    Owner,
    TakenError,
    claim_text,
    heartbeat_tag,
)
from worldrep.tracking.records import RunSpec, StoredRun

if TYPE_CHECKING:
    from worldrep.tracking.store import Store

ATTEMPTS = 20
LONGEST_WAIT = 1.0  # seconds between two attempts


def claim_run(store: Store, spec: RunSpec, launched: bool) -> tuple[str, int]:
    """The id of the run that this process now owns, and the number of its claim; 0 for a new run.

    Raises TakenError when a living process has it, or when it was finished meanwhile (except for a
    spec that may be repeated).
    """
    for attempt in range(ATTEMPTS):
        earlier = store.find(fingerprint=spec.fingerprint)
        if earlier:
            run = _free_run(store, spec, earlier)
            number, status = take_over(store.client, run, spec.name)
            if status == "FINISHED" and not spec.repeatable:
                store.client.set_tag(run.id, CLOSED, str(number))
                raise TakenError(f"{spec.name} was finished meanwhile, in run {run.id}", run.id)
            _reopen(store.client, run)
            return run.id, number
        made = _create(store, spec, launched)
        if [run.id for run in store.find(fingerprint=spec.fingerprint)] == [made]:
            return made, 0
        _take_back(store, made)
        time.sleep(random.uniform(0, LONGEST_WAIT * (attempt + 1) / ATTEMPTS))
    raise StateError(f"{spec.name} is being begun by too many processes at once; try again")


def take_over(client: MlflowClient, run: StoredRun, name: str) -> tuple[int, str]:
    """Add this process's claim to a run that nobody works on; the claim's number and the run's
    status, which only this process changes from now on.

    (The status that was found before may be older than the claim beside it: MLflow reads a run in
    several steps.) Raises TakenError if another process was quicker.
    """
    number = run.claim.number + 1 if run.claim else 1
    text = claim_text(Owner.here())
    refused = None
    try:
        client.log_param(run.id, f"{CLAIM}{number}", text)
    except MlflowException as fault:
        refused = fault
    found = client.get_run(run.id)
    held = found.data.params.get(f"{CLAIM}{number}")
    if held is None and refused is not None:
        raise refused
    if held != text:
        raise TakenError(f"{name} was taken up by another process meanwhile", run.id)
    return number, found.info.status


def _free_run(store: Store, spec: RunSpec, earlier: Sequence[StoredRun]) -> StoredRun:
    """The run to carry on. Raises TakenError when there is nothing to do, or somebody does it."""
    for run in earlier:
        if run.alive and run.claim:
            owner = run.claim.owner
            raise TakenError(
                f"{spec.name} is being done by process {owner.pid} on {owner.host} "
                f"(run {run.id}); wait for it or stop it",
                run.id,
            )
        if run.status == "FINISHED" and not spec.repeatable:
            raise TakenError(f"{spec.name} was finished meanwhile, in run {run.id}", run.id)
    for run in earlier[1:]:
        store.close_dead(run)
    return earlier[0]


def _reopen(client: MlflowClient, run: StoredRun) -> None:
    if run.tag("error"):
        client.delete_tag(run.id, "worldrep.error")
    client.update_run(run.id, status="RUNNING")


def _create(store: Store, spec: RunSpec, launched: bool) -> str:
    tags = spec.all_tags | {OWNER: claim_text(Owner.here())} | heartbeat_tag()
    if spec.parent:
        tags[MLFLOW_PARENT_RUN_ID] = spec.parent
    if launched:
        if run_id := store.launch.become(spec, tags, store.experiment_id):
            return run_id
        tags = store.launch.origin() | tags
    run = store.client.create_run(store.experiment_id, tags=tags, run_name=spec.name)
    return run.info.run_id


def _take_back(store: Store, run_id: str) -> None:
    """Undo the making of a run, so that it stands in nobody's way."""
    store.client.delete_tag(run_id, "worldrep.fingerprint")
    if not store.launch.take_back(run_id):
        store.client.delete_run(run_id)
