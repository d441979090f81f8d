"""Optuna's parts that guide a sweep: what is tried next, and what is given up early."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from worldrep.digests import random_stream

optuna.logging.set_verbosity(optuna.logging.ERROR)  # what there is to say, the sweep says itself

AUTO, NONE = "auto", "none"
SAMPLERS = ("tpe", "random")
PRUNERS = (AUTO, "median", "hyperband", NONE)
STARTUP_TRIALS = 5  # whose values the median is first taken of


def make_sampler(kind: str, seed: int, number: int) -> BaseSampler:
    """What suggests a trial when `number` others were before it.

    It depends on the seed and on those trials alone, so that a sweep goes on after a kill as it
    would have without.
    """
    own = int(random_stream(seed, "sampler", number).integers(2**31))
    return RandomSampler(own) if kind == "random" else TPESampler(seed=own)


def make_pruner(kind: str, n_validations: int) -> BasePruner:
    """What ends poor trials: it compares them at the same validation, counted from 1."""
    if kind == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS)
    if kind == "hyperband":
        return HyperbandPruner(max_resource=n_validations)
    return NopPruner()
