"""One step after the other in this process."""

from __future__ import annotations

import time

from worldrep.executors.work import Job, Outcome, Tell, Workplace, attempt
from worldrep.tracking import Store
from worldrep.tracking.liveness import Owner


class Inline:
    """The executor of a single machine, without any further process."""

    def __init__(self, store: Store, workplace: Workplace, tell: Tell) -> None:
        self._store, self._workplace, self._tell = store, workplace, tell
        self._job: Job | None = None

    @property
    def free(self) -> int:
        return 0 if self._job else 1

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self, seconds: float) -> list[Outcome]:
        """Do the step that was submitted."""
        job, self._job = self._job, None
        if job is None:  # all that is left is done by other drivers
            time.sleep(seconds)
            return []
        return [attempt(self._store, job, self._workplace, lambda news: self._tell(1, news))]

    def stop(self) -> list[Owner]:
        """Nothing goes on behind this process's back; it is this one that ended."""
        return [Owner.here()]
