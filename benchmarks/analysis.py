"""How long the analyses take: on a store of made-up studies, each as a user calls it.

116 models are exp1 with four seeds; other studies, scales and worlds fill the store. Times are of
the work after the imports, which are given apart; CKA is of random representations at paper size.

    python -m benchmarks.analysis                # 116 models in a store of about 400 runs
    python -m benchmarks.analysis --fill 2000    # in a store of 2,000 runs
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import click

from benchmarks.report import Table, write
from benchmarks.stores import copied, make_database, working_in
from benchmarks.turns import timed

FILLING = (("exp6", "mini"), ("ftset", "mini"), ("exp1", "smoke"), ("exp6", "smoke"))
SEEDS = (1, 2, 3, 42)
MODELS, LAYERS, CITIES, FEATURES = 21, 6, 5075, 256  # pt1-1..7 with three seeds, at paper scale


@click.command()
@click.option("--fill", default=0, show_default=True, help="Runs that the store has at least.")
@click.option("--workers", default=2, show_default=True, help="Processes that fill the store.")
@click.option("--out", default="", help="JSON file for the numbers.")
def main(fill: int, workers: int, out: str) -> None:
    """Fill a store, then time the analyses on it."""
    imports, _ = timed(import_report)
    with tempfile.TemporaryDirectory(prefix="worldrep-") as name:
        folder = Path(name)
        uri = copied(make_database(folder / "empty.db"), folder)
        with working_in(folder, uri), redirect_stdout(StringIO()):
            runs = fill_store(fill, workers)
            seconds = time_analyses(folder) | {"cka_at_paper_size": time_cka()}
    numbers = {"runs": runs, "imports": imports, "seconds": seconds}
    write("analysis", numbers, table(runs, imports, seconds), out)


def import_report() -> None:
    import analysis.report  # noqa: F401


def fill_store(fill: int, workers: int) -> int:
    """exp1, then further studies until there are enough runs; how many there are."""
    from worldrep.executors import Choice
    from worldrep.studies import expand, load_definition
    from worldrep.studies.drive import run_study
    from worldrep.tracking import Store

    store = Store.connect()
    choice = Choice("processes", workers, cpus=1, perform="benchmarks.simulated:perform")
    for name, scale in (("exp1", "mini"), *FILLING):
        if name == "exp1" and scale == "mini" or len(store.find()) < fill:
            graph = expand(load_definition(name).changed(seeds=SEEDS, scale=scale))
            run_study(store, graph, choice).check()
    return len(store.find())


def time_analyses(folder: Path) -> dict[str, float]:
    """Seconds from the opened store to the written files, without recording them."""
    from analysis.command import open_source
    from analysis.exp1_heatmaps import exp1_heatmaps
    from analysis.forgetting import forgetting
    from analysis.options import Options
    from analysis.probes import probes
    from analysis.report import report
    from analysis.result import publish

    seconds = {}
    for analyse in (exp1_heatmaps, forgetting, probes, report):
        options = Options(folder / analyse.__name__, log=False)

        def run(analyse: Callable[..., Any] = analyse, options: Options = options) -> None:
            with open_source(options) as source:
                publish(analyse(source, options), source.store)

        seconds[analyse.__name__], _ = timed(run)
    return seconds


def time_cka(models: int = MODELS, cities: int = CITIES, layers: int = LAYERS) -> float:
    """Seconds for all pairs of models in every layer."""
    import numpy as np

    from analysis.statistics.similarity import cka_table

    stream = np.random.default_rng(0)
    tables = stream.standard_normal((models, cities, FEATURES), dtype=np.float32)
    return timed(lambda: [cka_table(list(tables)) for _ in range(layers)])[0]


def table(runs: int, imports: float, seconds: Mapping[str, float]) -> Table:
    """What was timed, with the size of the store that it read."""
    rows = [(name, taken) for name, taken in seconds.items()]
    title = f"In a store of {runs:,} runs, after {imports:.1f} s of imports:"
    return Table(("what", "seconds"), rows, title)


if __name__ == "__main__":
    main()
