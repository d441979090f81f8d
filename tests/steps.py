"""Steps for tests of studies: real ones, except for one that fails."""

import os

import torch

from worldrep.data.sets import _maker
from worldrep.errors import StateError
from worldrep.executors.jobs import perform_step

POISONED = "ftwb1-2 s42 finetune"


def poisoned(store, job, report):
    """As a real step; one of them raises in the middle of its run."""

    def report_and_raise(progress):
        if progress.unit == "step" and progress.done > 1:
            raise ZeroDivisionError("poison")

    return perform_step(store, job, report_and_raise if job.title == POISONED else report)


def in_another_folder(store, job, report):
    """As a real step, where relative paths of the driver lead nowhere."""
    here = os.getcwd()
    os.chdir("elsewhere")
    _maker.cache_clear()
    try:
        return perform_step(store, job, report)
    finally:
        os.chdir(here)


def count_threads(store, job, report):
    """Fail with the number of threads as message."""
    raise StateError(f"{torch.get_num_threads()} threads")
