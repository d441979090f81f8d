"""Steps for tests of studies: real ones, but for the one that is poisoned."""

import os

from worldrep.data.sets import _maker
from worldrep.executors.jobs import perform_step as perform

POISONED = "finetune pt1_ftwb1-2 seed42"


def poisoned(store, task, watch):
    """As a real step; one of them raises in the middle of its run."""
    if task.title != POISONED:
        return perform(store, task, watch)

    def watch_and_raise(progress):
        if progress.done > 1:
            raise ZeroDivisionError("poison")

    return perform(store, task, watch_and_raise)


def in_another_folder(store, task, watch):
    """As a real step, where relative paths of the driver lead nowhere."""
    here = os.getcwd()
    os.chdir("elsewhere")
    _maker.cache_clear()
    try:
        return perform(store, task, watch)
    finally:
        os.chdir(here)
