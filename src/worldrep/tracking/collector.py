"""Keeping Python's garbage collector from taking most of the time of a long search."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sparing_collector() -> Iterator[None]:
    """Leave what exists already (torch, mlflow) out of collections, and do none unasked.

    Reading runs and drawing make so many small objects that the collector would walk through all
    of the imported libraries again and again. Call `gc.collect(0)` where much has become garbage.
    """
    enabled = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
