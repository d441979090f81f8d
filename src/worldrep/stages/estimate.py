"""How long a training should take on this machine, from a few real steps."""

from __future__ import annotations

import time

from worldrep.data.rows import RowMaker
from worldrep.data.sets import load_rows, training_sets
from worldrep.data.tokens import stack_padded
from worldrep.model.qwen2 import build_model
from worldrep.settings import Settings
from worldrep.training.device import make_accelerator
from worldrep.training.feed import RowFeed, Schedule
from worldrep.training.state import Training
from worldrep.training.steps import steps_of

WARM_UP, TIMED = 2, 5


def estimate_seconds(settings: Settings, maker: RowMaker) -> float:
    """Seconds of the steps alone, timed on a throwaway model with a sample of the rows."""
    rowsets = training_sets(settings, maker.world)
    sample = stack_padded([load_rows(maker, rowset)[: settings.batch_size] for rowset in rowsets])
    accelerator = make_accelerator(settings)
    feed = RowFeed(sample, settings, accelerator.device)
    training = Training(build_model(settings), settings, accelerator)
    steps = steps_of(training, feed)
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            steps.read()  # a device that runs behind is waited for
            started = time.perf_counter()
        training.step = step % feed.schedule.steps
        steps.take()
    steps.read()
    per_step = (time.perf_counter() - started) / TIMED
    del steps
    accelerator.free_memory()
    rows = sum(rowset.rows for rowset in rowsets)
    return per_step * Schedule.of(settings, rows).steps
