"""How long a training should take on this machine, from a few real steps."""

from __future__ import annotations

import time

from worldrep.data import load_rows, pad_together, training_sets
from worldrep.feed import RowFeed, Schedule
from worldrep.model import build_model
from worldrep.rows import RowMaker
from worldrep.settings import Settings
from worldrep.training import Training, make_accelerator, train_step

WARM_UP, TIMED = 2, 5


def estimate_seconds(settings: Settings, maker: RowMaker) -> float:
    """Seconds of the steps alone, timed on a throwaway model with a sample of the rows."""
    rowsets = training_sets(settings, maker.world)
    sample = pad_together([load_rows(maker, rowset)[: settings.batch_size] for rowset in rowsets])
    accelerator = make_accelerator(settings)
    feed = RowFeed(sample, settings, accelerator.device)
    training = Training(build_model(settings), settings, accelerator)
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            started = time.perf_counter()
        train_step(training, feed, feed.batch(step % feed.schedule.steps))
    per_step = (time.perf_counter() - started) / TIMED
    accelerator.free_memory()
    rows = sum(rowset.rows for rowset in rowsets)
    return per_step * Schedule(rows, settings.batch_size, settings.epochs).steps
