"""How long the analyses take on a store of simulated studies, each as a user calls it.

The 116 models of exp1 with four seeds are analysed; other studies fill the store. Times are of the
work after the imports. CKA is of random representations at paper size.

    python -m benchmarks.analysis --fill 2000    # in a store of 2,000 runs
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.report import Results, benchmark, table
from benchmarks.stores import copied, make_database, working_in
from benchmarks.timing import timed

STUDIES = (("exp1", "mini"), ("exp6", "mini"), ("ftset", "mini"), ("exp1", "smoke"))
SEEDS = (1, 2, 3, 42)
MODELS, LAYERS, CITIES, FEATURES = 21, 6, 5075, 256  # pt1-1..7 with three seeds, at paper scale


@benchmark
def main(fill: int = 0, workers: int = 2) -> Results:
    """Fill a store, then time the analyses on it.

    --fill is the number of runs that the store has at least, --workers fill it.
    """
    imports, _ = timed(_import_report)
    with tempfile.TemporaryDirectory(prefix="worldrep-") as name:
        folder = Path(name)
        uri = copied(make_database(folder / "empty.db"), folder)
        with working_in(folder, uri), redirect_stdout(StringIO()):
            runs = fill_store(fill, workers)
            seconds = time_analyses(folder) | {"cka_at_paper_size": time_cka()}
    title = f"In a store of {runs:,} runs, after {imports:.1f} s of imports:"
    columns = {"what": lambda name: name, "seconds": seconds.get}
    numbers = {"runs": runs, "imports": imports, "seconds": seconds}
    return numbers, [table(seconds, columns, title)]


def _import_report() -> None:
    import analysis.report  # noqa: F401


def fill_store(fill: int, workers: int) -> int:
    """Run exp1, then further studies until there are enough runs; return how many there are."""
    from benchmarks.simulated import PERFORM
    from worldrep.executors import ExecutorOptions
    from worldrep.studies import expand, load_definition
    from worldrep.studies.driver import run_study
    from worldrep.tracking import Store

    store, choice = Store.connect(), ExecutorOptions("processes", workers, cpus=1, perform=PERFORM)
    for i, (name, scale) in enumerate(STUDIES):
        if i == 0 or len(store.find()) < fill:
            graph = expand(load_definition(name).changed(seeds=SEEDS, scale=scale))
            run_study(store, graph, choice).check()
    return len(store.find())


def time_analyses(folder: Path) -> dict[str, float]:
    """Return the seconds from the opened store to the written files, without recording them."""
    from analysis.command import open_source
    from analysis.exp1_heatmaps import exp1_heatmaps
    from analysis.forgetting import forgetting
    from analysis.options import Options
    from analysis.probes import probes
    from analysis.report import report
    from analysis.result import publish

    def run(analyse: Callable[..., Any]) -> None:
        options = Options(folder / analyse.__name__, log=False)
        with open_source(options) as source:
            publish(analyse(source, options), source.store)

    analyses = exp1_heatmaps, forgetting, probes, report
    return {a.__name__: timed(lambda a=a: run(a))[0] for a in analyses}


def time_cka() -> float:
    """Return the seconds for all pairs of models in every layer."""
    import numpy as np

    from analysis.statistics.similarity import cka_table

    stream = np.random.default_rng(0)
    tables = stream.standard_normal((MODELS, CITIES, FEATURES), dtype=np.float32)
    return timed(lambda: [cka_table(list(tables)) for _ in range(LAYERS)])[0]


if __name__ == "__main__":
    main()
