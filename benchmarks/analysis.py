"""How long the analyses of exp1 (116 models, simulated) take, imports not counted; and CKA."""

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from analysis.command import open_source
from analysis.exp1_heatmaps import exp1_heatmaps
from analysis.forgetting import forgetting
from analysis.options import Options
from analysis.probes import probes
from analysis.report import report
from analysis.result import publish
from analysis.statistics.similarity import cka_table
from benchmarks.report import Tables, benchmark, timed
from benchmarks.stores import PERFORM, working_in
from worldrep.executors import ExecutorOptions
from worldrep.studies import expand, load_definition
from worldrep.studies.driver import run_study
from worldrep.tracking import Store

STUDIES = (("exp1", "mini"), ("exp6", "mini"), ("ftset", "mini"), ("exp1", "smoke"))
SEEDS = (1, 2, 3, 42)
ANALYSES = (exp1_heatmaps, forgetting, probes, report)
MODELS, LAYERS, CITIES, FEATURES = 21, 6, 5075, 256  # pt1-1..7 with three seeds, at paper scale


@benchmark
def main(fill: int = 0, workers: int = 2) -> Tables:
    """Fill a store, then time the analyses on it.

    --fill is the number of runs that the store has at least, --workers fill it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="worldrep-") as folder,
        working_in(Path(folder)),
        redirect_stdout(StringIO()),
    ):
        runs = fill_store(fill, workers)
        times = {a.__name__: timed(partial(run, a))[0] for a in ANALYSES}
    shape = MODELS, CITIES, FEATURES
    tables = list(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    times["CKA at paper size"], _ = timed(lambda: [cka_table(tables) for _ in range(LAYERS)])
    rows = [{"what": what, "seconds": seconds} for what, seconds in times.items()]
    return {f"In a store of {runs:,} runs:": rows}


def fill_store(fill: int, workers: int) -> int:
    """Run exp1, then further studies until there are enough runs; return how many there are."""
    store, choice = Store.connect(), ExecutorOptions("processes", workers, cpus=1, perform=PERFORM)
    for i, (name, scale) in enumerate(STUDIES):
        if i == 0 or len(store.find()) < fill:
            graph = expand(load_definition(name).changed(seeds=SEEDS, scale=scale))
            run_study(store, graph, choice).check()
    return len(store.find())


def run(analyse: Callable[..., Any]) -> None:
    """Analyse the store and write the files, without recording them."""
    options = Options(Path(analyse.__name__), log=False)
    with open_source(options) as source:
        publish(analyse(source, options), source.store)


if __name__ == "__main__":
    main()
